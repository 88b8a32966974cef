"""Fields that are hidden by their place: JSON pointers (RFC 6901), where ``*`` is any one key or index."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from exeat.gateway.redaction.detectors import FIELD, mark
from exeat.gateway.redaction.texts import Embedded

HIDDEN: Final = mark(FIELD)
ANY: Final = "*"


def parts(pointer: str) -> tuple[str, ...]:
    return tuple(each.replace("~1", "/").replace("~0", "~") for each in pointer.split("/")[1:])


def hide(tree: Any, path: Sequence[str]) -> Iterator[Any]:
    """Replaces in an expanded tree, in place; yields what stood there."""
    if not path:
        return
    if type(tree) is Embedded:
        for value in hide(tree.tree, path):
            tree.again = True
            yield value
        return
    first, rest = path[0], path[1:]
    for key in _members(tree, first):
        if rest:
            yield from hide(tree[key], rest)
        elif tree[key] != HIDDEN:
            value, tree[key] = tree[key], HIDDEN
            yield value


def _members(tree: Any, name: str) -> list[Any]:
    if type(tree) is dict:
        return list(tree) if name == ANY else [name] if name in tree else []
    if type(tree) is list:
        if name == ANY:
            return list(range(len(tree)))
        if name.isascii() and name.isdecimal() and int(name[:9]) < len(tree):
            return [int(name[:9])]
    return []


def mirrored(tree: Any, text_tree: Any, path: Sequence[str]) -> Iterator[Sequence[str]]:
    """Pointers into a text that has the same JSON as the structured content, or as a part of it that
    the pointer passes: servers often write a wrapped list again as a bare one, or each row apart."""
    yield path
    here = [tree]
    for depth, name in enumerate(path[:-1]):
        here = [node[key] for node in here for key in _members(node, name)]
        if text_tree in here:
            yield path[depth + 1 :]
