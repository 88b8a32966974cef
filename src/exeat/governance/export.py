"""The registry as the files that would declare it (REG-8): plan on them shows nothing to do."""

from typing import Any

import yaml

from exeat.core.facts import Lifecycle, Transport
from exeat.registry.model.agent import Agent
from exeat.registry.model.names import show_until
from exeat.registry.model.server import Server
from exeat.registry.model.tool import Tool
from exeat.registry.store import RegistryRead

_HEAD = "# Written by `exeat export`.  Check with `exeat plan`, put in force with `exeat apply`.\n"


def export(now: RegistryRead) -> str:
    """Live people, servers, pinned tools, agents that are not retired.  Deterministic."""
    sections: dict[str, dict[str, Any]] = {
        "people": {p.id: {"roles": sorted(p.roles)} for p in now.people() if p.live},
        "servers": {server.id: _server(server) for server in now.servers()},
        "tools": {t.action: _tool(t, t.pinned.digest) for t in now.tools() if t.pinned is not None},
        "agents": {
            agent.id: _agent(agent)
            for agent in now.agents()
            if agent.lifecycle is not Lifecycle.RETIRED
        },
    }
    known = {name: things for name, things in sections.items() if things}
    return _HEAD + yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=100)


def _without_gaps(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "", [], {}, False)}


def _server(server: Server) -> dict[str, Any]:
    spec = server.spec
    http = spec.transport is Transport.HTTP
    shown = {
        "owner": server.owner,
        "url": spec.url if http else None,
        "headers_from": dict(sorted(spec.headers_from.items())),
        "headers_secret": dict(sorted(spec.headers_secret.items())),
        "auth": spec.auth.pairs(),
        "command": list(spec.command),
        "env": dict(sorted(spec.env.items())),
        "env_from": list(spec.env_from),
        "env_secret": dict(sorted(spec.env_secret.items())),
        "cwd": spec.cwd,
        "run_as": spec.run_as,
        "shared": spec.shared,
        "permit": spec.permit,
        "trust": server.trust or None,
        "extra_methods": sorted(server.extra_methods),
    }
    return _without_gaps(shown) | ({} if server.active else {"active": False})


def _tool(tool: Tool, pin: str) -> dict[str, Any]:
    profile = {} if tool.profile is None else tool.profile.as_json()
    return {"pin": pin, **profile}


def _agent(agent: Agent) -> dict[str, Any]:
    s = agent.scope
    return _without_gaps(
        {
            **agent.charter.as_json(),
            "until": None if agent.ends_at is None else show_until(agent.ends_at),
            "servers": sorted(s.servers),
            "effects": sorted(effect.value for effect in s.effects),
            "actions": sorted(s.actions),
        }
    )
