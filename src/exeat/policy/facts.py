"""Registry facts as Cedar entities, and the digest of everything that a decision saw."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from exeat.core.facts import AgentFacts, PersonFacts, ServerFacts, ToolFacts
from exeat.core.ids import PersonId
from exeat.policy.methods import ANY_METHOD, TOOL_CALL, resource_type
from exeat.policy.world import tool_ancestors

CANONICAL: Final = msgspec.json.Encoder(order="sorted", decimal_format="number")
"""Canonical JSON: sorted keys, no white space, every digit kept."""


def uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def reference(kind: str, name: str) -> dict[str, dict[str, str]]:
    """Cedar JSON of an entity that an attribute names."""
    return {"__entity": uid(kind, name)}


def _entity(
    kind: str, name: str, attrs: Mapping[str, Any], parents: list[dict[str, str]]
) -> dict[str, Any]:
    return {"uid": uid(kind, name), "attrs": attrs, "parents": parents}


def principal_entities(
    agent: AgentFacts, user: PersonFacts | None, people: Mapping[PersonId, PersonFacts]
) -> list[dict[str, Any]]:
    """The agent with its groups, its owner and the user with their roles."""
    owner = people.get(agent.owner) or PersonFacts(agent.owner, agent.owner_live)
    groups = sorted(agent.groups)
    persons = [owner] if user is None or user.id == owner.id else [owner, user]
    if user is not None and user.id == owner.id:
        persons = [user]
    roles = sorted({role for person in persons for role in person.roles})
    return [
        _entity(
            "Agent",
            agent.id,
            {"owner": reference("Person", agent.owner), "environment": agent.environment},
            [uid("Group", group) for group in groups],
        ),
        *(_entity("Group", group, {}, []) for group in groups),
        *(
            _entity("Person", person.id, {}, [uid("Role", role) for role in sorted(person.roles)])
            for person in persons
        ),
        *(_entity("Role", role, {}, []) for role in roles),
    ]


def action_entities(action: str, tool: ToolFacts | None) -> list[dict[str, Any]]:
    """The called action and all its ancestors (trap 5)."""
    ups = (ANY_METHOD,) if tool is None else tool_ancestors(tool)
    return [
        _entity("Action", action, {}, [uid("Action", up) for up in ups]),
        *(_entity("Action", up, {}, []) for up in ups),
    ]


def resource_uid(method: str, action: str, server: ServerFacts, target: str) -> dict[str, str]:
    """The resource of a request: the tool, or server and name or URI, or the server itself."""
    if method == TOOL_CALL:
        return uid("Tool", action)
    kind = resource_type(method)
    return uid(kind, server.id if kind == "Server" else f"{server.id}/{target}")


def resource_entities(
    resource: Mapping[str, str], server: ServerFacts, tool: ToolFacts | None
) -> list[dict[str, Any]]:
    """The server, and the tool, prompt or resource on it."""
    above = _entity("Server", server.id, {"trust": server.trust}, [])
    if resource["type"] == "Server":
        return [above]
    attrs: dict[str, Any] = {}
    if tool is not None:
        attrs = {
            "effect": reference("Effect", tool.effect.value),
            "sink": reference("Sink", tool.sink.value),
            "reversible": tool.reversible,
            "confirmed": tool.profile_confirmed,
        }
    return [above, _entity(resource["type"], resource["id"], attrs, [uid("Server", server.id)])]


def standing_digest(
    agent: AgentFacts,
    user: PersonFacts | None,
    server: ServerFacts,
    tool: ToolFacts | None,
    owner: PersonFacts | None,
) -> bytes:
    """SHA-256 over the registry facts that a decision reads; the same in any process (POL-2)."""
    facts = {
        "agent": _plain(agent),
        "user": _plain(user),
        "owner": _plain(owner),
        "server": _plain(server),
        "tool": None if tool is None else _tool(tool),
    }
    return hashlib.sha256(CANONICAL.encode(facts)).digest()


def _plain(value: Any) -> Any:
    if value is None:
        return None
    return {name: _sorted(inner) for name, inner in msgspec.to_builtins(value).items()}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(inner) for name, inner in value.items()}
    if isinstance(value, list | set | frozenset | tuple):
        return sorted(value)
    return value


def _tool(tool: ToolFacts) -> dict[str, Any]:
    return {
        "server": tool.server,
        "name": tool.name,
        "pin": tool.pin,
        "state": tool.state.value,
        "effect": tool.effect.value,
        "sink": tool.sink.value,
        "reversible": tool.reversible,
        "confirmed": tool.profile_confirmed,
        **({"monotone": dict(tool.monotone)} if tool.monotone else {}),
    }


def input_digest(bundle: str, standing: bytes, seen: tuple[Any, ...]) -> str:
    """SHA-256 in hex over bundle digest, registry facts and the request's own values.

    ``seen``: method, action, target, observed pin, now (ns), clock trusted, arguments (as values, or
    as ``msgspec.Raw`` of their canonical bytes: the digest is the same).
    """
    preimage = b"%b\n%b%b" % (bundle.encode(), standing, CANONICAL.encode(seen))
    return hashlib.sha256(preimage).hexdigest()
