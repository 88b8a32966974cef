"""WWW-Authenticate, read strictly (RFC 9110 section 11.6.1, RFC 6750 section 3).  Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

HEADER_MAX_CHARS: Final = 8192
PARAMETERS_MAX: Final = 32
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PART: Final = re.compile(
    rf"""[ \t]*(?:
        (?P<name>{_WORD})[ \t]*=[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s",]+))[ \t]*(?=,|$)
      | (?P<scheme>{_WORD})(?:[ ]+(?P<token68>[A-Za-z0-9\-._~+/]+=*)[ \t]*(?=,|$)|(?=[ \t,]|$))
    )""",
    re.X,
)
_ESCAPED: Final = re.compile(r"\\(.)")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
SCOPES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Challenge:
    """The Bearer challenge of an answer.  Empty where the server says nothing."""

    error: str = ""
    scopes: tuple[str, ...] = ()
    resource_metadata: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


NO_CHALLENGE: Final = Challenge()


def read_challenge(header: str) -> Challenge:
    """The first Bearer challenge; an empty one if there is none, or the header cannot be read."""
    found = _bearer(header[:HEADER_MAX_CHARS])
    if found is None:
        return NO_CHALLENGE
    return Challenge(
        error=found.get("error", ""),
        scopes=scopes_of(found.get("scope", "")),
        resource_metadata=found.get("resource_metadata", ""),
        parameters=found,
    )


def _bearer(header: str) -> dict[str, str] | None:
    at, current = 0, ""
    found: dict[str, str] | None = None
    while at < len(header):
        if header[at] in ", \t":
            at += 1
            continue
        part = _PART.match(header, at)
        if part is None:
            return found
        at = part.end()
        if part["scheme"]:
            if found is not None:
                return found
            current = part["scheme"].lower()
            if current == "bearer":
                found = {}
        elif found is not None and len(found) < PARAMETERS_MAX:
            value = part["bare"] or _ESCAPED.sub(r"\1", part["quoted"] or "")
            if part["name"].lower() in found:
                return None  # said twice: which is meant, nobody knows
            found[part["name"].lower()] = value
    return found


def scopes_of(text: str) -> tuple[str, ...]:
    """Scope tokens in order, each once; what is no scope token is left out (RFC 6749 section 3.3)."""
    words = dict.fromkeys(word for word in text.split(" ") if _SCOPE.fullmatch(word))
    return tuple(words)[:SCOPES_MAX]
