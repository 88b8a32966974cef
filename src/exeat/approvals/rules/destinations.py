"""Where a call goes: values of arguments that name a place or a party (APP-1).  Pure; it only shows, and
decides nothing."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

SHOWN_MAX: Final = 50
DEPTH_MAX: Final = 8
_NAMED: Final = re.compile(
    r"(?i)(?:^|[_.-])(?:to|cc|bcc|recipients?|payee|account|iban|host|hostname|domain|url|uri|href|path|"
    r"file|filename|directory|folder|repo|repository|channel|bucket|e-?mail|address|destination|target)"
    r"(?:$|[_.-])"
)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S")
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?::\d+)?\Z|\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\Z"
)
_PATH: Final = re.compile(r"(?:/|~|\.{1,2}/|[A-Za-z]:[\\/])\S*\Z")
_IBAN: Final = re.compile(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\Z")
_SHAPES: Final = (_URL, _EMAIL, _HOST, _PATH, _IBAN)


def destinations(arguments: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(where it stands, value), in the order of the arguments."""
    return listed(arguments)[0]


def listed(arguments: Mapping[str, Any]) -> tuple[tuple[tuple[str, str], ...], bool]:
    """The same, and whether there may be more than are listed: whoever decides is told so."""
    found: list[tuple[str, str]] = []
    for where, name, value in _texts(arguments, "", "", 0):
        if value is None:
            return tuple(found), True
        if _NAMED.search(name) or any(shape.match(value) for shape in _SHAPES):
            if len(found) == SHOWN_MAX:
                return tuple(found), True
            found.append((where, value))
    return tuple(found), False


def _texts(node: Any, where: str, name: str, depth: int) -> Iterator[tuple[str, str, str | None]]:
    """None: too deep to look."""
    if isinstance(node, str):
        yield where, name, node
    elif depth > DEPTH_MAX and isinstance(node, Mapping | Sequence) and node:
        yield where, name, None
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, f"{where}.{key}" if where else str(key), str(key), depth + 1)
    elif isinstance(node, Sequence):
        for n, value in enumerate(node):
            yield from _texts(value, f"{where}[{n}]", name, depth + 1)
