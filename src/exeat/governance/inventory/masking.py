"""A configuration file, and its change, as they may be shown: no secret is in what comes out.

Masked is too much rather than too little: every value of an environment, a header or sign-in settings,
every value whose name or shape says *secret*, and every known secret wherever it stands, also in comments.
"""

import difflib
from collections.abc import Collection
from typing import Final

from exeat.governance.inventory.hardcoded import (
    SHAPES,
    in_address,
    is_reference,
    names_a_secret,
    shaped,
)
from exeat.governance.inventory.text import Document, Edit, Scalar, apply

MASK: Final = "[masked]"
CONTEXT_LINES: Final = 2
SHOWN_MIN_CHARS: Final = 4
"""A shorter value is looked for only where its place says that it is secret."""
_CLOSED: Final = frozenset(
    {"env", "headers", "http_headers", "auth", "oauth", "bearer_token", "oauthAccount"}
)


def masked(document: Document, secrets: Collection[str]) -> str:
    """The text, each line where it was."""
    known = [each for each in secrets if len(each) >= SHOWN_MIN_CHARS]
    text = apply(
        document.text,
        (
            Edit(each.start, each.end, _in_place(document.text[each.start : each.end]))
            for each in document.scalars
            if _closed(each, known)
        ),
    )
    for value in sorted(known, key=len, reverse=True):  # comments and keys
        text = text.replace(value, MASK)
    for _, shape in SHAPES:
        text = shape.sub(MASK, text)
    return text


def _closed(scalar: Scalar, known: Collection[str]) -> bool:
    value = scalar.value if isinstance(scalar.value, str) else str(scalar.value)
    if not value or is_reference(value):
        return False
    if _CLOSED & set(scalar.path[:-1]) or scalar.path[-1] in _CLOSED:
        return True
    if isinstance(scalar.value, bool) or scalar.value is None:
        return False
    return (
        names_a_secret(scalar.path[-1])
        or any(each in value for each in known)
        or any(shaped("", value))
        or any(in_address("", value))
    )


def _in_place(token: str) -> str:
    """As many lines as before, so that the two sides of a difference stay side by side."""
    return f'"{MASK}"' + "\n" * token.count("\n")


def difference(old: str, new: str, file: str) -> str:
    """A unified diff of two masked texts; empty if they are the same."""
    lines = difflib.unified_diff(
        _lines(old), _lines(new), f"{file} (now)", f"{file} (then)", n=CONTEXT_LINES, lineterm=""
    )
    return "\n".join(lines)


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").split("\n") if text else []
