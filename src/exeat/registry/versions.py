"""The registry's verbs on policy versions, and on what takes two people (POL-5, POL-10)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.core.facts import Lifecycle
from exeat.core.ids import AgentId, PersonId
from exeat.core.limits import OBSERVE_MAX_S
from exeat.registry.model.act import Act
from exeat.registry.model.names import SECOND_NS, show_time
from exeat.registry.model.person import ADMIN, Person
from exeat.registry.model.policy import PolicyVersion, policy_digest
from exeat.registry.model.proposal import Kind, Proposal
from exeat.registry.rules.authority import require_admin, require_for_agent
from exeat.registry.store import RegistryChange, RegistryRead


class Versions:
    """Every verb is one transaction, and raises NotFound, Conflict or Invalid; then nothing changed.

    ``approvals``: how many people a change of policy takes, 1 or 2; None: two in a team, that is when
    the home has more than one live admin.
    """

    _begin: Callable[[], AbstractContextManager[RegistryChange]]

    def apply_policy(
        self, files: Mapping[str, str], author: PersonId, act: Act, approvals: int | None = None
    ) -> PolicyVersion:
        """A new version, in force at once (POL-5).  The actor approves it; the caller has linted
        it.  Conflict if exactly these files are in force already, or it takes two people."""
        with self._as_admin("put policy in force", act) as tx:
            if needed(tx, approvals) > 1:
                raise Conflict(
                    "A policy version takes two people here.",
                    remedy="Run `exeat policy propose DIR`; another admin runs `exeat policy approve`.",
                )
            _check_files(tx, files, author)
            return _add(tx, files, author, act.reason, act)

    def propose_policy(self, files: Mapping[str, str], author: PersonId, act: Act) -> Proposal:
        """The caller has linted it.  Nothing is in force before another admin approves."""
        with self._as_admin("propose policy", act) as tx:
            _check_files(tx, files, author)
            return _open(tx, Kind.POLICY, {"files": dict(files)}, author, act)

    def approve(self, number: int, seen: str, act: Act) -> Proposal:
        """POL-10: by another person than proposed it; in force in the same transaction.  ``seen``: the
        digest of what the approver was shown."""
        with self._as_admin("approve what others propose", act) as tx:
            old = tx.proposal(number)
            for who in (old.by, old.author):
                _require_live(tx, who)
            approved, event = old.approve(seen, act)
            tx.save_proposal(approved, event)
            if approved.kind is Kind.OBSERVE:
                _observe(tx, AgentId(approved.body["agent"]), approved.body["for_s"], old.by, act)
                return approved
            in_force = tx.policy_in_force()
            if (0 if in_force is None else in_force.number) != approved.base:
                raise Conflict(
                    "Another policy version came into force since it was proposed.",
                    remedy="Propose it again, against the version that is in force now.",
                )
            _add(tx, approved.body["files"], approved.author, approved.reason, act)
            return approved

    def withdraw(self, number: int, act: Act) -> Proposal:
        with self._as_admin("withdraw proposals", act) as tx:
            gone, event = tx.proposal(number).withdraw(act)
            tx.save_proposal(gone, event)
            return gone

    def enforce_policy(self, number: int, act: Act) -> PolicyVersion:
        """Back (or on) to a version that was in force before.  One person may: going back must be
        fast, and it only ever brings back what was approved then."""
        with self._as_admin("put policy in force", act) as tx:
            before, version = tx.policy_in_force(), tx.policy(number)
            if before is not None and before.number == number:
                raise Conflict(f"Policy version {number} is in force already.")
            _enforce(tx, before, version, act)
            return version

    def observe(
        self, agent: AgentId, for_s: int, act: Act, approvals: int | None = None
    ) -> Proposal | None:
        """POL-7: what policy would refuse this agent is only recorded, for ``for_s`` seconds.  In a
        team the proposal that another admin has to approve; None: it is observed from now on."""
        with self._as_admin(f"observe agent {agent}", act) as tx:
            _check_observation(tx, agent, for_s)
            if needed(tx, approvals) > 1:
                body = {"agent": agent, "for_s": for_s}
                return _open(tx, Kind.OBSERVE, body, act.actor, act)
            _observe(tx, agent, for_s, act.actor, act)
            return None

    def enforce_agent(self, agent: AgentId, act: Act) -> None:
        """POL-7: policy binds it again, from its next call on.  Its owner or deputy may, too."""
        with self._begin() as tx:
            require_for_agent(actor_of(tx, act), "enforce policy on", tx.agent(agent))
            until = tx.observed_until(agent)
            if until <= act.at:
                raise Conflict(f"Agent {agent} is not observed: policy binds it.")
            event = act.event(
                "agent.enforced", f"agent:{agent}", {"until": show_time(until)}, {"until": ""}
            )
            tx.observe(agent, 0, event)

    @contextmanager
    def _as_admin(self, verb: str, act: Act) -> Iterator[RegistryChange]:
        with self._begin() as tx:
            require_admin(actor_of(tx, act), verb)
            yield tx


def needed(read: RegistryRead, approvals: int | None) -> int:
    """How many people a change of policy takes.  ``approvals``: the setting."""
    if approvals is not None:
        return approvals
    admins = [person for person in read.people() if person.live and ADMIN in person.roles]
    return 2 if len(admins) > 1 else 1


def actor_of(tx: RegistryRead, act: Act) -> Person:
    try:
        return tx.person(act.actor)
    except NotFound:
        raise NotFound(
            f"{act.actor} is not a registered person, and so may not act.",
            remedy="Name a registered person with --as, or run `exeat init --me NAME`.",
        ) from None


def _require_live(tx: RegistryRead, person: PersonId) -> None:
    if not tx.person(person).live:
        raise Conflict(f"{person} has departed.", remedy="Name a live person.")


def _check_files(tx: RegistryRead, files: Mapping[str, str], author: PersonId) -> None:
    if not files:
        raise Invalid("A policy version has no files.", remedy="Name a directory of *.cedar.")
    _require_live(tx, author)
    before = tx.policy_in_force()
    if before is not None and before.digest == policy_digest(files):
        raise Conflict(f"Exactly this policy is in force, as version {before.number}.")


def _open(
    tx: RegistryChange, kind: Kind, body: Mapping[str, Any], author: PersonId, act: Act
) -> Proposal:
    in_force = tx.policy_in_force()
    base = 0 if in_force is None else in_force.number
    number = len(tx.proposals()) + 1
    made, event = Proposal.open(number, kind, body, base, author, act)
    tx.save_proposal(made, event)
    return made


def _add(
    tx: RegistryChange, files: Mapping[str, str], author: PersonId, reason: str, act: Act
) -> PolicyVersion:
    before = tx.policy_in_force()
    number, new = len(tx.policies()) + 1, policy_digest(files)
    version = PolicyVersion(number, new, author, act.actor, reason, act.at, dict(files))
    tx.save_policy(version, act.event("policy.added", version.subject, None, version.as_json()))
    _enforce(tx, before, version, act)
    return version


def _enforce(
    tx: RegistryChange, before: PolicyVersion | None, after: PolicyVersion, act: Act
) -> None:
    old = None if before is None else before.as_json()
    tx.enforce(after.number, act.event("policy.enforced", after.subject, old, after.as_json()))


def _check_observation(tx: RegistryRead, agent: AgentId, for_s: int) -> None:
    if not 0 < for_s <= OBSERVE_MAX_S:
        raise Invalid(
            f"An agent is observed for 1 second to {OBSERVE_MAX_S // 86_400} days.",
            remedy="Write for example --for 3d.",
        )
    if tx.agent(agent).lifecycle is Lifecycle.RETIRED:
        raise Conflict(f"Agent {agent} is retired.", remedy="Observe another one.")


def _observe(tx: RegistryChange, agent: AgentId, for_s: int, by: PersonId, act: Act) -> None:
    """``by``: who asked for it; the actor approves it, and may be the same person alone."""
    _check_observation(tx, agent, for_s)
    before, until = tx.observed_until(agent), act.at + for_s * SECOND_NS
    after = {"until": show_time(until), "for_s": for_s, "by": by, "approver": act.actor}
    old = {"until": show_time(before)} if before > act.at else None
    tx.observe(agent, until, act.event("agent.observed", f"agent:{agent}", old, after))
