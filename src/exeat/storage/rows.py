"""Rows to values and back: the only place that knows how a value lies in its table."""

import json
from typing import Any

import sqlalchemy as sa

from exeat.core.controls import Order
from exeat.core.facts import Effect, Lifecycle, ServerSpec, Sink, Transport
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.core.kills import Target
from exeat.core.upstream_auth import read_auth
from exeat.registry.model.agent import Acceptance, Agent, Charter, Scope
from exeat.registry.model.binding import Binding, Kind
from exeat.registry.model.canonical import canonical
from exeat.registry.model.key import Key
from exeat.registry.model.kill import Kill
from exeat.registry.model.person import Person
from exeat.registry.model.policy import PolicyVersion
from exeat.registry.model.server import Server
from exeat.registry.model.stranger import Stranger
from exeat.registry.model.tool import Definition, Profile, Tool

Row = sa.Row[Any]
Values = dict[str, Any]


def _list(values: frozenset[Any]) -> str:
    return canonical(sorted(values))


def texts(column: str) -> frozenset[str]:
    return frozenset(json.loads(column)) if column != "[]" else frozenset()


def person_values(p: Person) -> Values:
    return {"id": p.id, "live": p.live, "roles": _list(p.roles), "revision": p.revision}


def to_person(row: Row) -> Person:
    return Person(PersonId(row.id), bool(row.live), texts(row.roles), row.revision)


def agent_values(agent: Agent) -> Values:
    c, s, a = agent.charter, agent.scope, agent.acceptance
    return {
        "id": agent.id,
        "name": c.name,
        "purpose": c.purpose,
        "owner": c.owner,
        "deputy": c.deputy,
        "sponsor": c.sponsor,
        "groups": _list(c.groups),
        "environment": c.environment,
        "model": c.model,
        "prompt_digest": c.prompt_digest,
        "servers": _list(s.servers),
        "effects": _list(s.effects),
        "actions": _list(s.actions),
        "ends_at": agent.ends_at,
        "scope_digest": agent.scope_digest,
        "accepted_digest": a and a.digest,
        "accepted_by": a and a.by,
        "accepted_at": a and a.at,
        "accepted_event": a and a.event,
        "lifecycle": agent.lifecycle.value,
        "revision": agent.revision,
    }


def to_agent(row: Row) -> Agent:
    charter = Charter(
        row.name,
        row.purpose,
        row.owner,
        row.deputy,
        row.sponsor,
        texts(row.groups),
        row.environment,
        row.model,
        row.prompt_digest,
    )
    scope = Scope(
        frozenset(map(ServerId, texts(row.servers))),
        frozenset(map(Effect, texts(row.effects))),
        frozenset(map(ActionId, texts(row.actions))),
    )
    acceptance = None
    if row.accepted_digest is not None:
        acceptance = Acceptance(
            Digest(row.accepted_digest), row.accepted_by, row.accepted_at, row.accepted_event
        )
    return Agent(
        AgentId(row.id),
        charter,
        scope,
        row.ends_at,
        acceptance,
        Lifecycle(row.lifecycle),
        row.revision,
    )


def server_values(server: Server) -> Values:
    return {
        "id": server.id,
        "spec": _spec_text(server.spec),
        "owner": server.owner,
        "trust": server.trust,
        "active": server.active,
        "extra_methods": _list(server.extra_methods),
        "revision": server.revision,
    }


def to_server(row: Row) -> Server:
    return Server(
        ServerId(row.id),
        to_spec(row.id, row.spec),
        PersonId(row.owner),
        row.trust,
        bool(row.active),
        texts(row.extra_methods),
        row.revision,
    )


def _spec_text(s: ServerSpec) -> str:
    return canonical(
        {
            "transport": s.transport.value,
            "url": s.url,
            "headers_from": dict(s.headers_from),
            "command": list(s.command),
            "env": dict(s.env),
            "env_from": list(s.env_from),
            "cwd": s.cwd,
            "run_as": s.run_as,
            "shared": s.shared,
            "headers_secret": dict(s.headers_secret),
            "env_secret": dict(s.env_secret),
            "permit": s.permit,
            "auth": s.auth.pairs(),
        }
    )


def to_spec(server: str, text: str) -> ServerSpec:
    s = json.loads(text)
    return ServerSpec(
        ServerId(server),
        Transport(s["transport"]),
        s["url"],
        s["headers_from"],
        tuple(s["command"]),
        s["env"],
        tuple(s["env_from"]),
        s["cwd"],
        s["run_as"],
        s["shared"],
        headers_secret=s.get("headers_secret", {}),
        env_secret=s.get("env_secret", {}),
        permit=s.get("permit", ""),
        auth=read_auth(s.get("auth", {})),
    )


def tool_values(tool: Tool) -> Values:
    pinned, pending, profile = tool.pinned, tool.pending, tool.profile
    return {
        "action": tool.action,
        "server": tool.server,
        "name": tool.name,
        "pinned_digest": pinned and pinned.digest,
        "pinned_body": pinned and canonical(dict(pinned.body)),
        "pending_digest": pending and pending.digest,
        "pending_body": pending and canonical(dict(pending.body)),
        "profile": profile and canonical(profile.as_json()),
        "revision": tool.revision,
    }


def to_tool(row: Row) -> Tool:
    return Tool(
        ServerId(row.server),
        row.name,
        _definition(row.pinned_digest, row.pinned_body),
        _definition(row.pending_digest, row.pending_body),
        to_profile(row.profile),
        row.revision,
    )


def to_profile(text: str | None) -> Profile | None:
    if text is None:
        return None
    p = json.loads(text)
    monotone = tuple((name, Order(order)) for name, order in sorted(p.get("monotone", {}).items()))
    return Profile(Effect(p["effect"]), Sink(p["sink"]), p["reversible"], monotone)


def _definition(digest: str | None, body: str | None) -> Definition | None:
    if digest is None or body is None:
        return None
    return Definition(Digest(digest), json.loads(body))


def key_values(key: Key) -> Values:
    return {
        "id": key.id,
        "agent": key.agent,
        "user": key.user,
        "digest": key.digest,
        "expires_at": key.expires_at,
        "revoked": key.revoked,
        "revision": key.revision,
    }


def to_key(row: Row) -> Key:
    return Key(
        row.id,
        AgentId(row.agent),
        row.user,
        bytes(row.digest),
        row.expires_at,
        bool(row.revoked),
        row.revision,
    )


def binding_values(b: Binding) -> Values:
    return {
        "id": b.id,
        "kind": b.kind.value,
        "issuer": b.issuer,
        "name": b.name,
        "user": b.user,
        "to": b.to,
        "revision": b.revision,
    }


def to_binding(row: Row) -> Binding:
    return Binding(row.id, Kind(row.kind), row.issuer, row.name, row.user, row.to, row.revision)


def stranger_values(s: Stranger) -> Values:
    return {
        "id": s.id,
        "issuer": s.issuer,
        "client": s.client,
        "user": s.user,
        "first_seen": s.first_seen,
        "last_seen": s.last_seen,
        "attempts": s.attempts,
        "tried": _list(s.tried),
    }


def to_stranger(row: Row) -> Stranger:
    return Stranger(
        row.id,
        row.issuer,
        row.client,
        row.user,
        row.first_seen,
        row.last_seen,
        row.attempts,
        texts(row.tried),
    )


def kill_values(k: Kill) -> Values:
    return {
        "id": k.id,
        "target": k.target.value,
        "name": k.name,
        "ordered_by": k.by,
        "reason": k.reason,
        "at": k.at,
        "ended_by": k.ended_by,
        "ended_at": k.ended_at,
        "revision": k.revision,
    }


def to_kill(row: Row) -> Kill:
    return Kill(
        row.id,
        Target(row.target),
        row.name,
        PersonId(row.ordered_by),
        row.reason,
        row.at,
        row.ended_by,
        row.ended_at,
        row.revision,
    )


def policy_values(v: PolicyVersion) -> Values:
    return {
        "number": v.number,
        "digest": v.digest,
        "files": canonical(dict(v.files)),
        "author": v.author,
        "approver": v.approver,
        "reason": v.reason,
        "at": v.at,
    }


def to_policy(row: Row) -> PolicyVersion:
    return PolicyVersion(
        row.number,
        Digest(row.digest),
        PersonId(row.author),
        PersonId(row.approver),
        row.reason,
        row.at,
        json.loads(row.files),
    )
