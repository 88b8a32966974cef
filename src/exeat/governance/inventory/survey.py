"""What the entries found come to: which go through a gateway, which bypass it, which stand twice."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from exeat.governance.inventory.entries import Entry, Reach
from exeat.governance.inventory.hardcoded import Secret, secrets_of

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
RUNNERS: Final = frozenset({"npx", "bunx", "uvx", "pipx"})
_SERVER: Final = re.compile(r"(?:/([a-z0-9][a-z0-9-]{0,30}))?/?")
_VERSION: Final = re.compile(r"(?<=.)(?:@|==)[\w.*^~<>=-]+$")
_HIDDEN: Final = "[secret]"


@dataclass(frozen=True, slots=True)
class Gateways:
    """Addresses of exeat gateways, as ``http://127.0.0.1:8717/mcp``."""

    urls: tuple[str, ...]

    def leads_to(self, url: str) -> str | None:
        """The server behind the gateway, "" for all of them, None if it is no known gateway."""
        target = _split(url)
        if target is None or target.query or target.username:
            return None
        for each in self.urls:
            known = _split(each)
            if known is not None and _origin(known) == _origin(target):
                base = known.path.rstrip("/")
                rest = _SERVER.fullmatch(target.path[len(base) :])
                if target.path.startswith(base) and rest is not None:
                    return rest[1] or ""
        return None


@dataclass(frozen=True, slots=True)
class Seen:
    """``behind``: the server behind the gateway, "" for all, None if it bypasses the gateway.
    ``twins``: other entries that are the same server."""

    entry: Entry
    secrets: tuple[Secret, ...]
    behind: str | None
    twins: tuple[Entry, ...] = ()

    @property
    def bypasses(self) -> bool:
        return self.behind is None

    @property
    def where(self) -> str:
        """The command or the address, without what is secret."""
        return shown_target(self.entry, self.secrets)

    def as_json(self) -> dict[str, Any]:
        entry = self.entry
        return {
            "name": entry.name,
            "client": entry.client.id,
            "scope": entry.scope.value,
            "file": entry.file,
            "project": entry.project,
            "transport": entry.reach.value,
            "target": self.where,
            "enabled": entry.enabled,
            "bypasses_gateway": self.bypasses,
            "behind": self.behind,
            "secrets": [{"where": s.where, "rule": s.rule, "shown": s.shown} for s in self.secrets],
            "same_server_in": [f"{t.client.id}:{t.file}:{t.name}" for t in self.twins],
            "problem": entry.problem,
        }


def survey(found: Iterable[Entry], gateways: Gateways) -> tuple[Seen, ...]:
    groups: dict[Any, list[Entry]] = defaultdict(list)
    entries = list(found)
    for entry in entries:
        groups[identity(entry)].append(entry)
    return tuple(
        Seen(
            entry,
            secrets_of(entry),
            gateways.leads_to(target_url(entry)),
            tuple(each for each in groups[identity(entry)] if each is not entry),
        )
        for entry in entries
    )


def target_url(entry: Entry) -> str:
    """The address that the client reaches in the end: also through `exeat bridge` or mcp-remote."""
    if entry.url:
        return entry.url
    words = entry.command
    if not words:
        return ""
    program = _program(words[0])
    bridged = program == "exeat" or "exeat.cli.main" in words[:3]
    if bridged and "bridge" in words:
        return next(iter(words[words.index("bridge") + 1 :]), "")
    if any(_VERSION.sub("", word) == "mcp-remote" for word in words[:3]):
        return next((word for word in words if re.match(r"https?://", word)), "")
    return ""


def identity(entry: Entry) -> tuple[object, ...]:
    """Equal for entries that are the same server, whatever its version and its secrets."""
    parts = _split(target_url(entry))
    if parts is not None:
        return "url", _origin(parts), parts.path.rstrip("/")
    if entry.reach is not Reach.STDIO:
        return "entry", entry.file, entry.path
    hidden = hide(entry.command, secrets_of(entry))
    words = [_program(hidden[0]), *hidden[1:]]
    if words[0] in RUNNERS:
        words = [_VERSION.sub("", w) for w in words[1:] if w not in ("-y", "--yes", "-q", "run")]
    return ("command", *words)


def shown_target(entry: Entry, secrets: tuple[Secret, ...]) -> str:
    if entry.command:
        return " ".join(hide(entry.command, secrets))
    parts = _split(entry.url)
    if parts is None:
        return hide((entry.url,), secrets)[0]
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    shown += f"?{parts.query}" if parts.query else ""
    return hide((shown,), secrets)[0]


def hide(words: tuple[str, ...], secrets: Iterable[Secret]) -> tuple[str, ...]:
    values = sorted({s.value for s in secrets if s.value}, key=len, reverse=True)
    return tuple(_hidden(word, values) for word in words)


def _hidden(word: str, values: list[str]) -> str:
    for value in values:
        word = word.replace(value, _HIDDEN)
    return word


def summary(seen: Iterable[Seen]) -> Mapping[str, int]:
    listed = list(seen)
    return {
        "servers": len(listed),
        "files": len({each.entry.file for each in listed}),
        "bypassing": sum(each.bypasses for each in listed),
        "secrets": sum(len(each.secrets) for each in listed),
        "twice": len({identity(each.entry) for each in listed if each.twins}),
    }


def named(seen: Iterable[Seen], words: Iterable[str]) -> Iterator[Seen]:
    """Those whose client or name is among the words; ``client/name`` means one."""
    wanted = set(words)
    for each in seen:
        entry = each.entry
        if wanted & {entry.client.id, entry.name, f"{entry.client.id}/{entry.name}"}:
            yield each


def _program(command: str) -> str:
    name = posixpath.basename(command.replace("\\", "/"))
    return re.sub(r"\.(?:exe|cmd|bat)$", "", name, flags=re.IGNORECASE)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, "localhost" if host in LOOPBACK else host, port
