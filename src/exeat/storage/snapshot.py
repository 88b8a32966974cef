"""The state that decisions read, loaded in one transaction.

A reader that holds an older snapshot loads only the rows written since (each row knows its epoch);
a removal, which leaves no row, makes it load everything.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from exeat.core.facts import (
    AgentFacts,
    CredentialFacts,
    Effect,
    Lifecycle,
    PersonFacts,
    PolicyVersionFacts,
    ScopeFacts,
    ServerFacts,
    ServerSpec,
    Snapshot,
    ToolFacts,
)
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.core.kills import Kills, Target
from exeat.registry.model.binding import Kind
from exeat.registry.model.tool import Profile
from exeat.storage import policy, proposals, rows
from exeat.storage.schema import agents, keys, people, servers, state, tools
from exeat.storage.schema_identity import bindings, endings, proofs
from exeat.storage.schema_kills import kills
from exeat.storage.vault import marks

EMPTY: Final = Snapshot(0, {}, {}, {}, {}, {}, {}, None)
NOBODY: Final = PersonId("")
_CAUTIOUS: Final = Profile()
_EFFECTS: Final = {effect.value: effect for effect in Effect}


def load(connection: sa.Connection, before: Snapshot) -> Snapshot:
    """The snapshot as of this transaction.  ``before``: an older one, or EMPTY."""
    now = connection.execute(sa.select(state)).one()
    if now.epoch == before.epoch:
        return before
    if now.removed_epoch > before.epoch or now.epoch < before.epoch:
        before = EMPTY
    known = _people(connection, before)
    known_servers, specs = _servers(connection, before)
    clients, subjects = _bindings(connection, before)
    return Snapshot(
        epoch=now.epoch,
        agents=_observed(connection, _agents(connection, before, known)),
        people=known,
        servers=known_servers,
        specs=specs,
        tools=_tools(connection, before),
        credentials=_credentials(connection, before),
        policy=_policy(connection, before, now.policy_number),
        clients=clients,
        subjects=subjects,
        endings=_endings(connection, before),
        proofs=_proofs(connection, before),
        secrets=marks(connection, before.secrets, before.epoch),
        kills=_kills(connection, before),
    )


def _since(connection: sa.Connection, table: sa.Table, before: Snapshot) -> list[rows.Row]:
    return list(connection.execute(sa.select(table).where(table.c.epoch > before.epoch)))


def _people(connection: sa.Connection, before: Snapshot) -> Mapping[PersonId, PersonFacts]:
    changed = {
        PersonId(r.id): PersonFacts(PersonId(r.id), bool(r.live), rows.texts(r.roles))
        for r in _since(connection, people, before)
    }
    return {**before.people, **changed} if changed else before.people


def _agents(
    connection: sa.Connection, before: Snapshot, known: Mapping[PersonId, PersonFacts]
) -> Mapping[AgentId, AgentFacts]:
    """Agents written since, and those whose owner or deputy came or went (REG-2)."""
    live = frozenset(person.id for person in known.values() if person.live)
    changed = {AgentId(r.id): _agent(r, live) for r in _since(connection, agents, before)}
    if known is not before.people:
        for agent in before.agents.values():
            owner, deputy = agent.owner in live, agent.deputy in live
            if (owner, deputy) != (agent.owner_live, agent.deputy_live):
                moved = replace(agent, owner_live=owner, deputy_live=deputy)
                changed.setdefault(agent.id, moved)
    return {**before.agents, **changed} if changed else before.agents


def _observed(
    connection: sa.Connection, known: Mapping[AgentId, AgentFacts]
) -> Mapping[AgentId, AgentFacts]:
    """POL-7: agents that are, or were, observed; few, and so read whole."""
    changed = {
        agent: replace(known[agent], observe_until=until)
        for agent, until in proposals.observed(connection).items()
        if agent in known and known[agent].observe_until != until
    }
    return {**known, **changed} if changed else known


def _agent(row: rows.Row, live: frozenset[PersonId]) -> AgentFacts:
    """A draft may lack owner, deputy or end; such a gap reads as nobody, or as ended long ago."""
    owner, deputy = row.owner or NOBODY, row.deputy or NOBODY
    scope = ScopeFacts(
        digest=Digest(row.scope_digest),
        accepted=row.accepted_digest or "",
        acceptance=row.accepted_event or "",
        servers=frozenset(map(ServerId, rows.texts(row.servers))),
        effects=frozenset(_EFFECTS[effect] for effect in rows.texts(row.effects)),
        actions=frozenset(map(ActionId, rows.texts(row.actions))),
    )
    return AgentFacts(
        id=AgentId(row.id),
        revision=row.revision,
        lifecycle=Lifecycle(row.lifecycle),
        owner=owner,
        owner_live=owner in live,
        deputy=deputy,
        deputy_live=deputy in live,
        sponsor=row.sponsor or NOBODY,
        ends_at=row.ends_at or 0,
        scope=scope,
        groups=rows.texts(row.groups),
        environment=row.environment,
    )


def _servers(
    connection: sa.Connection, before: Snapshot
) -> tuple[Mapping[ServerId, ServerFacts], Mapping[ServerId, ServerSpec]]:
    changed = [rows.to_server(row) for row in _since(connection, servers, before)]
    if not changed:
        return before.servers, before.specs
    facts = {
        s.id: ServerFacts(
            s.id, s.revision, s.active, s.owner, s.trust, s.extra_methods, s.spec.mode
        )
        for s in changed
    }
    return {**before.servers, **facts}, {**before.specs, **{s.id: s.spec for s in changed}}


def _tools(connection: sa.Connection, before: Snapshot) -> Mapping[ActionId, ToolFacts]:
    changed: dict[ActionId, ToolFacts] = {}
    for row in _since(connection, tools, before):
        tool = rows.to_tool(row)
        pinned, profile = tool.pinned, tool.profile or _CAUTIOUS
        body: Mapping[str, Any] = {} if pinned is None else pinned.body
        changed[tool.action] = ToolFacts(
            server=tool.server,
            name=tool.name,
            action=tool.action,
            pin="" if pinned is None else pinned.digest,
            state=tool.state,
            definition=body,
            effect=profile.effect,
            sink=profile.sink,
            reversible=profile.reversible,
            profile_confirmed=tool.profile is not None,
            monotone=dict(profile.monotone),
        )
    return {**before.tools, **changed} if changed else before.tools


def _credentials(connection: sa.Connection, before: Snapshot) -> Mapping[bytes, CredentialFacts]:
    """Keys that are not revoked.  Expiry is left to the reader, who has a clock."""
    changed = [rows.to_key(row) for row in _since(connection, keys, before)]
    if not changed:
        return before.credentials
    known = dict(before.credentials)
    for key in changed:
        if key.revoked:
            known.pop(key.digest, None)
        else:
            known[key.digest] = CredentialFacts(key.id, key.agent, key.user, key.expires_at)
    return known


def _bindings(
    connection: sa.Connection, before: Snapshot
) -> tuple[Mapping[tuple[str, str, str], AgentId], Mapping[tuple[str, str], PersonId]]:
    changed = [rows.to_binding(row) for row in _since(connection, bindings, before)]
    if not changed:
        return before.clients, before.subjects
    clients = {(b.issuer, b.name, b.user or ""): b.agent for b in changed if b.kind is Kind.CLIENT}
    subjects = {(b.issuer, b.name): PersonId(b.to) for b in changed if b.kind is Kind.PERSON}
    return {**before.clients, **clients}, {**before.subjects, **subjects}


def _endings(connection: sa.Connection, before: Snapshot) -> Mapping[str, int]:
    changed = {row.name: int(row.until) for row in _since(connection, endings, before)}
    return {**before.endings, **changed} if changed else before.endings


def _proofs(connection: sa.Connection, before: Snapshot) -> Mapping[AgentId, str]:
    changed = {AgentId(row.agent): row.method for row in _since(connection, proofs, before)}
    if not changed:
        return before.proofs
    return {name: how for name, how in {**before.proofs, **changed}.items() if how}


def _kills(connection: sa.Connection, before: Snapshot) -> Kills:
    """Those that stand (APP-9)."""
    changed = _since(connection, kills, before)
    if not changed:
        return before.kills
    of = dict(before.kills.of)
    for row in sorted(changed, key=lambda each: each.ended_at is None):
        name = (Target(row.target), row.name)
        if row.ended_at is None:  # after those that ended: one may have been ordered again
            of[name] = row.id
        elif of.get(name) == row.id:
            del of[name]
    return Kills(of)


def _policy(
    connection: sa.Connection, before: Snapshot, number: int | None
) -> PolicyVersionFacts | None:
    if number is None:
        return None
    if before.policy is not None and before.policy.number == number:
        return before.policy
    v = policy.version(connection, number)
    return PolicyVersionFacts(v.digest, v.number, v.author, v.approver, v.reason, v.files)
