"""One configured server, whichever client wrote it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from exeat.governance.inventory.clients import GEMINI, Client, Holder, Place, Scope, holders
from exeat.governance.inventory.text import Document, Path, lookup


class Reach(StrEnum):
    STDIO = "stdio"
    HTTP = "http"
    SSE = "sse"
    """The transport of 2024-11-05, with an address of its own for events."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """``path``: its keys within the file.  ``header_variables``: header → variable that holds it.
    ``bearer_variable``: the variable that holds a bearer token.  ``sign_in``: settings of the client's
    own OAuth.  ``problem``: why the client could not use it, in words; else empty."""

    client: Client
    scope: Scope
    file: str
    path: Path
    name: str
    project: str
    reach: Reach
    raw: Mapping[str, Any] = field(compare=False, repr=False)
    url: str = ""
    command: tuple[str, ...] = ()
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    env_from: tuple[str, ...] = ()
    env_file: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    header_variables: Mapping[str, str] = field(default_factory=dict)
    bearer_variable: str = ""
    header_command: str = ""
    sign_in: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    problem: str = ""


def entries(place: Place, file: str, document: Document) -> Iterator[Entry]:
    """All servers of a file, in its order."""
    for holder in holders(place, document):
        found = lookup(document.value, holder.path)
        if not isinstance(found, Mapping):
            continue
        for name, raw in found.items():
            yield _entry(place.client, holder, file, name, raw)


def _entry(client: Client, holder: Holder, file: str, name: str, raw: Any) -> Entry:
    path = (*holder.path, name)
    if not isinstance(raw, Mapping):
        return Entry(
            client,
            holder.scope,
            file,
            path,
            name,
            holder.project,
            Reach.UNKNOWN,
            {},
            problem="not an object",
        )
    problems = list(_problems(raw))
    url = next((_text(raw, key) for key in ("httpUrl", "serverUrl", "url") if _text(raw, key)), "")
    command = (_text(raw, "command"), *_texts(raw, "args")) if _text(raw, "command") else ()
    if not url and not command:
        problems.append("neither a command nor an address")
    return Entry(
        client,
        holder.scope,
        file,
        path,
        name,
        holder.project,
        _reach(client, raw, url, command),
        raw,
        url=url if not command else "",
        command=command,
        cwd=_text(raw, "cwd"),
        env=_map(raw, "env"),
        env_from=tuple(_variables(raw)),
        env_file=_text(raw, "envFile"),
        headers={**_map(raw, "headers"), **_map(raw, "http_headers"), **_bearer(raw)},
        header_variables=_map(raw, "env_http_headers"),
        bearer_variable=_text(raw, "bearer_token_env_var"),
        header_command=_text(raw, "headersHelper"),
        sign_in={key: raw[key] for key in ("auth", "oauth", "authProviderType") if raw.get(key)},
        enabled=raw.get("enabled", True) is not False and raw.get("disabled", False) is not True,
        problem="; ".join(problems),
    )


def _reach(client: Client, raw: Mapping[str, Any], url: str, command: tuple[str, ...]) -> Reach:
    if command:
        return Reach.STDIO
    if not url:
        return Reach.UNKNOWN
    said = _text(raw, "type") or _text(raw, "transport")
    if said == "sse":
        return Reach.SSE
    gemini_events = client is GEMINI and not _text(raw, "httpUrl") and not said
    return Reach.SSE if gemini_events else Reach.HTTP


def _problems(raw: Mapping[str, Any]) -> Iterator[str]:
    for key in ("command", "url", "serverUrl", "httpUrl", "cwd", "envFile"):
        if raw.get(key) is not None and not isinstance(raw[key], str):
            yield f"{key} is not a text"
    for key in ("env", "headers", "http_headers", "env_http_headers"):
        if raw.get(key) is not None and not isinstance(raw[key], Mapping):
            yield f"{key} is not an object"
    args = raw.get("args")
    if args is not None and not (isinstance(args, list) and all(isinstance(a, str) for a in args)):
        yield "args is not a list of texts"


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def _texts(raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = raw.get(key)
    return tuple(map(_word, value)) if isinstance(value, list) else ()


def _map(raw: Mapping[str, Any], key: str) -> dict[str, str]:
    value = raw.get(key)
    return {k: _word(v) for k, v in value.items()} if isinstance(value, Mapping) else {}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _variables(raw: Mapping[str, Any]) -> Iterator[str]:
    """Codex: ``env_vars`` holds names, or tables with a name."""
    listed = raw.get("env_vars")
    for each in listed if isinstance(listed, list) else ():
        name = each.get("name") if isinstance(each, Mapping) else each
        if isinstance(name, str):
            yield name


def _bearer(raw: Mapping[str, Any]) -> dict[str, str]:
    token = _text(raw, "bearer_token")  # Codex refuses it, but the secret is there all the same
    return {"Authorization": f"Bearer {token}"} if token else {}
