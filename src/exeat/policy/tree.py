"""Reads one parsed policy (Cedar's PST): its scope, what it may read, what it compares."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

import cedarpy
from cedarpy import pst

from exeat.policy.limits import chain, limits
from exeat.policy.model import Limit, Match, Path, Policy, ScopePart, Statement, narrow_names
from exeat.policy.source import too_deep

_COMPARES: Final = frozenset({"eq", "not_eq", "contains", "contains_all", "contains_any"})


class Unreadable(ValueError):
    """The text is not one static Cedar policy; the message says why, for people."""


def read(statement: Statement) -> Policy:
    """Parse one statement.  Raises Unreadable."""
    if too_deep(statement.text):
        raise Unreadable("it is nested too deeply, or too long; make it several policies")
    try:
        parsed = cedarpy.policies_to_pst(statement.text)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    if parsed.templates or len(parsed.static_policies) != 1:
        raise Unreadable("templates (?principal, ?resource) are not used here; name the principal")
    (policy,) = parsed.static_policies.values()
    walk = _Walk()
    constants = []
    for clause in policy.clauses:
        for conjunct in conjuncts(clause.expr):
            if not any(isinstance(node, pst.Var) for node in nodes(conjunct)):
                constants.append(type(clause).__name__.lower())
        walk.visit(clause.expr)
    bare = replace(parsed, static_policies={policy.id: replace(policy, clauses=())})
    return Policy(
        id=policy.annotations.get("id", ""),
        permit=policy.effect == "permit",
        principal=_part(policy.principal),
        action=_part(policy.action),
        resource=_part(policy.resource),
        conditional=bool(policy.clauses),
        values=frozenset(walk.values),
        presence=frozenset(walk.presence),
        matches=frozenset(walk.matches),
        entities=frozenset((str(uid.type), uid.id) for uid in pst.entity_uids(policy)),
        annotations=tuple(sorted(policy.annotations.items())),
        constants=tuple(constants),
        bare=str(cedarpy.PolicySet.from_pst(bare)) if policy.clauses else statement.text,
        source=statement,
        limits=_limits(policy),
    )


def _limits(policy: Any) -> tuple[Limit, ...]:
    names = narrow_names(policy.annotations.get("narrow", ""))
    if not names:
        return ()
    found = [
        limit for clause in policy.clauses for node in nodes(clause.expr) for limit in limits(node)
    ]
    return tuple(dict.fromkeys(limit for limit in found if limit.path[-1] in names))


def conjuncts(expr: pst.Expr) -> Iterator[pst.Expr]:
    """The parts of a condition that must all hold."""
    if isinstance(expr, pst.BinaryOp) and expr.op == "and":
        yield from conjuncts(expr.left)
        yield from conjuncts(expr.right)
    else:
        yield expr


def nodes(expr: Any) -> Iterator[Any]:
    """Every node at or below ``expr``."""
    stack: list[Any] = [expr]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(_below(node))


def _below(node: Any) -> Iterable[Any]:
    if isinstance(node, tuple):
        return node
    if isinstance(node, pst.Record):
        return list(node.fields.values())
    if is_dataclass(node):
        return [getattr(node, part.name) for part in fields(node)]
    return ()


def _part(scope: Any) -> ScopePart:
    if isinstance(scope, pst.ActionIn):
        return ScopePart(tuple((str(uid.type), uid.id) for uid in scope.entities))
    kind = str(scope.entity_type) if isinstance(scope, pst.ScopeIs | pst.ScopeIsIn) else ""
    uid = getattr(scope, "entity", None)
    if isinstance(uid, pst.EntityUid):
        exact = isinstance(scope, pst.ScopeEq | pst.ActionEq)
        return ScopePart(((str(uid.type), uid.id),), exact, kind)
    return ScopePart(entity_type=kind)


class _Walk:
    """Collects the reads of an expression.  What is not plainly an attribute chain counts as a
    read of the whole value below it, so the result never misses a read."""

    def __init__(self) -> None:
        self.values: set[Path] = set()
        self.presence: set[Path] = set()
        self.matches: set[Match] = set()

    def visit(self, expr: Any) -> None:
        path = chain(expr)
        if path is not None:
            self.values.add(path)
            return
        if isinstance(expr, pst.HasAttr):
            base = chain(expr.base)
            if base is not None:
                self.presence.add((*base, *expr.attrs))
                return
        self._compare(expr)
        for child in _below(expr):
            self.visit(child)

    def _compare(self, expr: Any) -> None:
        if isinstance(expr, pst.Like):
            path = chain(expr.base)
            if path is not None:
                pattern = "".join(
                    "*" if isinstance(part, pst.Wildcard) else part.value for part in expr.pattern
                )
                self.matches.add(Match(path, pattern, like=True))
        elif isinstance(expr, pst.BinaryOp) and expr.op in _COMPARES:
            for one, other in ((expr.left, expr.right), (expr.right, expr.left)):
                path = chain(one)
                if path is not None:
                    for node in nodes(other):
                        if isinstance(node, pst.StringLit):
                            self.matches.add(Match(path, node.value, like=False))
