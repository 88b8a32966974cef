"""REG-6: text in a definition that a person should see before a model reads it.

Transparent rules: characters that do not show, and sentences that speak to the model instead of
describing the tool.  A finding never proves malice and its absence proves nothing; it makes a
person look.  The patterns are linear (no nested repetition) and run over bounded text.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

TEXT_SCANNED_CHARS: Final = 64 * 1024
_QUOTED_CHARS: Final = 60
_TEXT_MEMBERS: Final = ("title", "description", "inputSchema", "outputSchema", "annotations")
_SPEAKS_TO_MODEL: Final = tuple(
    (re.compile(pattern, re.I), why)
    for pattern, why in (
        (
            r"\b(ignore|disregard|forget|override)\b.{0,40}\b(previous|prior|earlier|above|other|all|"
            r"any)\b.{0,40}\b(instructions?|rules?|prompts?|tools?|directions?)\b",
            "tells the model to ignore instructions",
        ),
        (
            r"<\s*/?\s*(important|system|secret|instructions?|admin|hidden)\b",
            "imitates a system tag",
        ),
        (
            r"\b(do not|don'?t|never|must not|without)\b.{0,20}\b(mention|tell(ing)?|inform(ing)?|"
            r"notify(ing)?|reveal|disclose|show|asking)\b.{0,30}\b(user|human|anyone|operator|this)\b",
            "asks to keep something from the user",
        ),
        (
            r"\b(before|after|instead of|prior to)\b.{0,25}\b(using|calling|invoking|running)\b"
            r".{0,25}\b(any|this|the|other|another|every)\b.{0,25}\btools?\b",
            "orders calls of tools",
        ),
        (
            r"\b(you|assistant|model|agent|llm)\b.{0,10}\b(must|should|have to|are required to|"
            r"need to)\b.{0,20}\b(always|first|also|call|read|send|include|pass|use)\b",
            "gives the model an order",
        ),
        (
            r"(\.ssh/|id_rsa|\.aws/|\.env\b|/etc/passwd|\bmcp\.json\b|authorized_keys|\.kube/config)",
            "names a file of secrets",
        ),
        (
            r"\b(your|the|its)\b.{0,15}\b(system prompt|chat history|conversation history|previous "
            r"messages|full conversation)\b",
            "asks for the conversation",
        ),
        (r"\b(you are now|act as|pretend to be|new instructions?:)", "assigns the model a role"),
    )
)
_UNSEEN: Final = frozenset({"Cf", "Co", "Cs", "Cn"})
_LINE: Final = frozenset("\n\r\t")


def texts(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text of a definition that a model may be shown, member names too, with its path."""
    stack: list[tuple[str, Any]] = [
        (member, body[member]) for member in reversed(_TEXT_MEMBERS) if member in body
    ]
    while stack:
        path, node = stack.pop()
        if isinstance(node, str):
            yield path, node
        elif isinstance(node, Mapping):
            for member, value in reversed(list(node.items())):
                if unseen(member):
                    yield f"{path} (a member's name)", member
                stack.append((f"{path}.{_ascii(member)}", value))
        elif isinstance(node, list):
            stack.extend((f"{path}[{i}]", value) for i, value in reversed(list(enumerate(node))))


def unseen(text: str) -> tuple[str, ...]:
    """The characters that do not show, by code point: format, private, unassigned, control."""
    found = {
        c
        for c in text
        if (not c.isascii() or not c.isprintable())
        and c not in _LINE
        and (unicodedata.category(c) in _UNSEEN or unicodedata.category(c) == "Cc")
    }
    return tuple(sorted(f"U+{ord(c):04X}" for c in found))


def suspicions(body: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(kind, sentence) for each finding: ``hidden_text`` or ``instruction``."""
    found: list[tuple[str, str]] = []
    budget = TEXT_SCANNED_CHARS
    for path, text in texts(body):
        if hidden := unseen(text):
            found.append(("hidden_text", f"{path} holds characters that do not show: {hidden[0]}"))
        for pattern, why in _SPEAKS_TO_MODEL:
            if match := pattern.search(" ".join(text[:budget].split())):
                found.append(("instruction", f"{path} {why}: {_ascii(match.group())}"))
        budget -= len(text)
        if budget <= 0:
            found.append(("instruction", f"more than {TEXT_SCANNED_CHARS} characters of text"))
            break
    return tuple(dict.fromkeys(found))


def _ascii(text: str) -> str:
    shown = text.encode("ascii", "backslashreplace").decode("ascii")
    return shown if len(shown) <= _QUOTED_CHARS else f"{shown[:_QUOTED_CHARS]}..."
