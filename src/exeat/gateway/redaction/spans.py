"""Places in a text."""

from typing import Final, Protocol

Span = tuple[int, int]
"""Start and end, in characters."""


class Match(Protocol):
    """What of a match of re2 the rules use (the package has no types)."""

    def span(self, group: int = 0) -> Span: ...
    def start(self, group: int = 0) -> int: ...
    def end(self, group: int = 0) -> int: ...
    def group(self, group: int = 0) -> str | None: ...


MARK: Final = "[redacted:"


def marked(text: str, start: int) -> bool:
    """Whether the word there is part of our own mark, which names nothing that follows."""
    return text.endswith(MARK, 0, start)
