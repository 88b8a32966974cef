"""What has to be done with a call that is permitted some other way than as it is.  Pure."""

import hashlib
from collections.abc import Sequence
from typing import Final

from exeat.core import obligations as kinds
from exeat.core.controls import Charge, Controls, Counts
from exeat.core.request import AccessRequest
from exeat.policy.narrow import changed
from exeat.policy.otherwise import Way
from exeat.policy.slices import Slice

_OF_RESULT: Final = {Counts.ROWS: kinds.ROWS, Counts.BYTES: kinds.BYTES}


def obligations(
    request: AccessRequest, way: Way, charges: Sequence[Charge], known: Controls
) -> tuple[str, ...]:
    """In the order in which a person would read them: evidence, narrowing, result, budgets."""
    found = [f"{kinds.CONTROL}:{name}" for name in sorted(request.controls)]
    dry = any(each.dry_run for each in way.fulfilled)
    for each in way.fulfilled:
        found.append(f"{kinds.CONTROL}:{each.name}")
    for name in changed(request.arguments, way.arguments):
        is_flag = dry and way.arguments[name] is True
        found.append(f"{kinds.DRY_RUN if is_flag else kinds.NARROW}:{name}")
    for each in way.fulfilled:
        found.extend(kinds.written(each))
    counts = {budget.id: budget.counts for budget in known.budgets}
    for charge in charges:
        found.append(f"{kinds.BUDGET}:{charge.budget}={charge.amount}")
        if (kind := _OF_RESULT.get(counts[charge.budget])) is not None:
            found.append(f"{kind}:{charge.amount}")
    return tuple(dict.fromkeys(found))


def slice_digest(parts: Sequence[Slice], known: Controls) -> str:
    """SHA-256 in hex over the policies that decided and the controls that they name, as declared: a
    policy version that changes neither leaves approvals standing (APP-2)."""
    named = sorted(frozenset().union(*(part.controls for part in parts)))
    declared = [(name, repr(_declared(name, known))) for name in named]
    text = repr((tuple(part.digest for part in parts), declared))
    return hashlib.sha256(text.encode()).hexdigest()


def _declared(name: str, known: Controls) -> object:
    role = known.approver(name)
    if role is None:
        own = known.fulfilled.get(name)
        if own is None:
            return None
        return (own.name, sorted(own.detectors), own.fields, own.rows, own.bytes, own.dry_run)
    people, roles = sorted(role.people), sorted(role.roles)
    through = sorted(map(str, role.channels))
    return (role.name, people, roles, role.owner, role.quorum, through, role.within_s)
