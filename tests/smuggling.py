"""The corpus of ambiguous requests and responses (tests/assets/smuggling), read into bytes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent / "assets" / "smuggling"
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
_TIMES: Final = re.compile(r"\{([0-9]+) x ([^}]*)\}", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """Bytes from a client, and what must come of them."""

    name: str
    raw: bytes
    statuses: tuple[int, ...]
    bodies: tuple[bytes, ...]
    second: bool
    closes: bool

    @property
    def paths(self) -> list[str]:
        """Of the requests that are served, in order."""
        served = ["/mcp"] * len(self.bodies)
        return [*served[:-1], "/smuggled"] if self.second else served


def _text(text: str, smuggled: bytes) -> bytes:
    text = _TIMES.sub(lambda found: found[2] * int(found[1]), text)
    text = text.replace("{n}", str(len(smuggled))).replace("{x}", f"{len(smuggled):x}")
    return text.encode("latin-1").replace(b"{smuggled}", smuggled)


def _raw(entry: dict[str, Any], smuggled: bytes) -> bytes:
    if "raw" in entry:
        return _text(entry["raw"], smuggled)
    lines = [entry.get("line", "POST /mcp HTTP/1.1"), "Host: localhost", *entry.get("fields", [])]
    head = "".join(f"{line}\r\n" for line in lines)
    return _text(f"{head}\r\n{entry.get('body', '')}", smuggled)


def requests(smuggled: bytes = SMUGGLED) -> list[Case]:
    """``smuggled``: the whole request that an attacker tries to get in."""
    cases = []
    for entry in yaml.safe_load((FOLDER / "requests.yaml").read_text(encoding="utf-8")):
        statuses = tuple(entry["want"])
        served = sum(status == 200 for status in statuses)
        bodies = [_text(body, smuggled) for body in entry.get("bodies", [])]
        bodies += [b""] * (served - len(bodies))
        closes = entry.get("closes", any(status >= 400 for status in statuses))
        raw = _raw(entry, smuggled)
        second = entry.get("second", False)
        cases.append(Case(entry["name"], raw, statuses, tuple(bodies), second, closes))
    return cases


@dataclass(frozen=True)
class Reply:
    """Bytes from an upstream; ``ok``: the one answer in them is taken; ``reused``: and the
    connection serves again."""

    name: str
    raw: bytes
    ok: bool
    reused: bool


def responses() -> list[Reply]:
    entries = yaml.safe_load((FOLDER / "responses.yaml").read_text(encoding="utf-8"))
    return [
        Reply(
            entry["name"],
            _text(entry["raw"], b""),
            entry.get("ok", False),
            entry.get("reused", False),
        )
        for entry in entries
    ]


def splits(raw: bytes) -> Iterator[Sequence[bytes]]:
    """Whole, at every boundary, and byte by byte; long ones at 200 boundaries."""
    yield [raw]
    for at in range(1, len(raw), max(1, len(raw) // 200)):
        yield [raw[:at], raw[at:]]
    step = max(1, len(raw) // 2000)
    yield [raw[at : at + step] for at in range(0, len(raw), step)]
