"""What the comparisons of a condition say an argument may at most be (POL-9).

Only candidates: whatever is tried is authorized again, so one too many costs time and opens nothing.
"""

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from cedarpy import pst

from exeat.core.controls import Order
from exeat.policy.model import Kind, Limit, Path

_WHOLE: Final = frozenset({"less", "less_eq", "greater", "greater_eq"})
_EXACT: Final = frozenset(f"decimal_{name}" for name in _WHOLE)
_PLACE: Final = Decimal("0.0001")


def chain(expr: Any) -> Path | None:
    """``context.input.amount`` → its path; None for what is not a variable and attributes."""
    names: list[str] = []
    while isinstance(expr, pst.GetAttr):
        names.append(expr.attr)
        expr = expr.base
    if not isinstance(expr, pst.Var):
        return None
    return (expr.name, *reversed(names))


def limits(node: Any) -> Iterator[Limit]:
    """Of one node of an expression.  A strict comparison gives the value before as well."""
    if isinstance(node, pst.Like):
        path, text = chain(node.base), _prefix(node.pattern)
        if path is not None and text is not None and (name := _argument(path)) is not None:
            yield Limit((name,), Order.BELOW, text)
    if not isinstance(node, pst.BinaryOp):
        return
    for one, other in ((node.left, node.right), (node.right, node.left)):
        path = chain(one)
        name = None if path is None else _argument(path)
        if name is None:
            continue
        if node.op in _WHOLE and isinstance(other, pst.LongLit):
            yield Limit((name,), Order.LESS, other.value)
            yield Limit((name,), Order.LESS, other.value - 1)
        elif node.op in _EXACT and (value := _decimal(other)) is not None:
            yield Limit((name,), Order.LESS, value)
            yield Limit((name,), Order.LESS, value - _PLACE)
        elif node.op == "eq" and isinstance(other, pst.StringLit):
            yield Limit((name,), Order.BELOW, other.value)
        elif node.op == "contains_all" and isinstance(other, pst.Set) and one is node.right:
            yield Limit((name,), Order.SUBSET, _words(other))


def _argument(path: Path) -> str | None:
    """The top-level argument that a path into the context reads."""
    if len(path) == 3 and path[:2] == ("context", "input"):
        return path[2]
    if len(path) == 4 and path[:2] == ("context", Kind.PATH) and path[3] == "canonical":
        return path[2]
    return None


def _prefix(pattern: Any) -> str | None:
    """``/workspace/*`` → ``/workspace``: the place below which all of it lies."""
    *head, last = pattern
    if not isinstance(last, pst.Wildcard) or any(isinstance(p, pst.Wildcard) for p in head):
        return None
    text = "".join(part.value for part in head)
    return text[:-1] if len(text) > 1 and text.endswith("/") else None


def _decimal(expr: Any) -> Decimal | None:
    if (
        isinstance(expr, pst.UnaryOp)
        and expr.op == "decimal"
        and isinstance(expr.arg, pst.StringLit)
    ):
        try:
            return Decimal(expr.arg.value)
        except InvalidOperation:
            return None
    return None


def _words(found: pst.Set) -> tuple[str, ...]:
    return tuple(each.value for each in found.elements if isinstance(each, pst.StringLit))
