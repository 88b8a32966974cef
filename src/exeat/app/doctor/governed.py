"""What is governed: the state, the policy in force, agents and their people, keys, tools."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from exeat.app.doctor.check import DAY_NS, SOON_DAYS, Finding, Patient, ok, problem, skipped, warn
from exeat.core.errors import ExeatError
from exeat.core.facts import AgentFacts, Lifecycle, PinState
from exeat.policy.lint import lint
from exeat.policy.world import Catalogue
from exeat.storage.state import look_at_state

UNREAD: Final = "The registry cannot be read."


def state(patient: Patient) -> Iterator[Finding]:
    """Fills in the snapshot that later checks look at."""
    url = patient.settings.database_url
    kind = "PostgreSQL" if url else "SQLite"
    if url is None and not (patient.home / "state.db").is_file():
        yield problem("state", f"There is no state in {patient.home}.", "Run `exeat init`.")
        return
    opened = None
    try:
        opened = look_at_state(patient.home, url)
        found, ours = opened.schema()
        if found > ours:
            yield problem(
                "state",
                f"A newer exeat wrote the state (schema {found}, not {ours}).",
                "Run the newer exeat.",
            )
            return
        if found < ours:
            yield warn(
                "state",
                f"The state has schema {found}; this exeat writes {ours}.",
                "Make a backup; `exeat migrate` or the next `exeat up` brings it up to date.",
            )
            return
        patient.snapshot = opened.snapshot()
        yield ok("state", f"The state is readable ({kind}, schema {found}).")
    except ExeatError as error:
        yield problem("state", f"{str(error).rstrip('.')}.", error.remedy)
    finally:
        if opened is not None:
            opened.close()


def policy(patient: Patient) -> Iterator[Finding]:
    snapshot = patient.snapshot
    if snapshot is None:
        yield skipped("policy", UNREAD)
        return
    if snapshot.policy is None:
        yield warn(
            "policy",
            "No policy is in force: everything is denied.",
            "`exeat policy apply DIR --reason '…'`.",
        )
        return
    known = Catalogue(snapshot.tools, snapshot.servers, snapshot.agents, snapshot.people)
    found = lint(snapshot.policy.files, known)
    if found:
        yield problem(
            "policy",
            f"Policy version {snapshot.policy.number} no longer fits the registry: {found[0]}"
            f"{f' (and {len(found) - 1} more)' if len(found) > 1 else ''}",
            "Correct it, see `exeat policy lint`, and apply it again.",
        )
    else:
        yield ok("policy", f"Policy version {snapshot.policy.number} fits the registry.")


def kills(patient: Patient) -> Iterator[Finding]:
    """What stands still because somebody said so (APP-9)."""
    if patient.snapshot is None:
        yield skipped("kills", UNREAD)
        return
    for (target, name), kill in sorted(patient.snapshot.kills.of.items()):
        what = f"{target.value.capitalize()} {name}" if name else "Everything"
        yield warn(
            f"kill:{kill}",
            f"{what} is stopped by kill {kill}.",
            f"`exeat kill --list` says why; an admin ends it: `exeat revive {kill}`.",
        )
    if not patient.snapshot.kills:
        yield ok("kills", "Nothing is stopped by a kill.")


def agents(patient: Patient) -> Iterator[Finding]:
    if patient.snapshot is None:
        yield skipped("agents", UNREAD)
        return
    active = [a for a in patient.snapshot.agents.values() if a.lifecycle is Lifecycle.ACTIVE]
    found = [
        each for agent in sorted(active, key=lambda a: a.id) for each in _agent(agent, patient)
    ]
    yield from found
    if not found:
        yield ok("agents", f"{len(active)} active agents have owner, deputy and time left.")


def _agent(agent: AgentFacts, patient: Patient) -> Iterator[Finding]:
    check = f"agent:{agent.id}"
    if not agent.owner_live and not agent.deputy_live:
        yield problem(
            check,
            f"Agent {agent.id} has neither a live owner nor a live deputy: denied.",
            f"`exeat agent change {agent.id} --owner … --deputy …`.",
        )
    elif not (agent.owner_live and agent.deputy_live):
        gone, who = ("deputy", agent.deputy) if agent.owner_live else ("owner", agent.owner)
        yield warn(
            check,
            f"The {gone} of agent {agent.id} is gone ({who or 'nobody'}).",
            f"`exeat agent change {agent.id} --{gone} …`.",
        )
    left = agent.ends_at - patient.now
    if left <= 0:
        yield problem(
            check,
            f"Agent {agent.id} is past its end date: denied.",
            f"`exeat agent change {agent.id} --ends …`, or retire it.",
        )
    elif left <= SOON_DAYS * DAY_NS:
        yield warn(
            check,
            f"Agent {agent.id} ends in {left // DAY_NS} days.",
            f"`exeat agent change {agent.id} --ends …`, if it is still wanted.",
        )
    if agent.scope.accepted != agent.scope.digest:
        yield problem(
            check,
            f"The scope of agent {agent.id} waits for its owner: denied.",
            f"`exeat agent accept {agent.id}`.",
        )


def keys(patient: Patient) -> Iterator[Finding]:
    if patient.snapshot is None:
        yield skipped("keys", UNREAD)
        return
    soon = 0
    for key in sorted(patient.snapshot.credentials.values(), key=lambda each: each.id):
        agent = patient.snapshot.agents.get(key.agent)
        left = key.expires_at - patient.now
        if agent is None or agent.lifecycle is not Lifecycle.ACTIVE or left <= 0:
            continue
        if left <= SOON_DAYS * DAY_NS:
            soon += 1
            yield warn(
                f"key:{key.id}",
                f"Key {key.id} of {key.agent} ends in {left // DAY_NS} days.",
                f"`exeat key issue {key.agent}`, and give it to its client.",
            )
    if not soon:
        yield ok("keys", f"No key of an active agent ends within {SOON_DAYS} days.")


def tools(patient: Patient) -> Iterator[Finding]:
    if patient.snapshot is None:
        yield skipped("tools", UNREAD)
        return
    stopped = Counter((t.server, t.state) for t in patient.snapshot.tools.values())
    well = True
    for (server, pin), count in sorted(stopped.items()):
        if pin is PinState.PINNED:
            continue
        well = False
        what = "were never reviewed" if pin is PinState.NEW else "have changed since their review"
        yield warn(
            f"tools:{server}",
            f"{count} tools of {server} {what}, and are stopped.",
            f"`exeat tool diff SERVER/TOOL`, then `exeat tool pin {server} --all`.",
        )
    if well:
        yield ok("tools", f"All {len(patient.snapshot.tools)} tools are as they were reviewed.")
