"""From any version of the tables to any other, forward and back, in one transaction.

Going back drops no evidence: a table that holds a record stays, and an older exeat does not look at it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from exeat.core.errors import Invalid, StateUnavailable
from exeat.storage import (
    schema,
    schema_approvals,
    schema_authorization,
    schema_budgets,
    schema_identity,
    schema_kills,
    schema_policy,
    schema_vault,
)
from exeat.storage.schema import state


@dataclass(frozen=True, slots=True)
class Step:
    """From the version before to this one, and back."""

    up: Callable[[sa.Connection], None]
    down: Callable[[sa.Connection], None]


def _first(tx: sa.Connection) -> None:
    _create(tx, schema.FIRST)
    tx.execute(state.insert().values(id=1, schema_version=0, epoch=1, removed_epoch=0))


def _never(tx: sa.Connection) -> None:
    raise Invalid("There is no version before the first.", remedy="Remove the home by hand.")


def _leases_and_roots(tx: sa.Connection) -> None:
    _create(tx, (schema.leases, schema.roots))


def _no_leases_and_roots(tx: sa.Connection) -> None:
    schema.leases.drop(tx)
    _drop_empty(tx, (schema.roots,))


def _ledger(tx: sa.Connection) -> None:
    if tx.dialect.name == "postgresql":
        for statement in schema.LEDGER_TABLES:
            tx.execute(sa.text(statement))


def _no_ledger(tx: sa.Connection) -> None:
    if tx.dialect.name == "postgresql":
        _drop_empty(tx, [sa.table(name) for name in schema.LEDGER_NAMES])


def _identity(tx: sa.Connection) -> None:
    _create(tx, schema_identity.IDENTITY)


def _no_identity(tx: sa.Connection) -> None:
    for table in reversed(schema_identity.IDENTITY):
        table.drop(tx)


def _vault(tx: sa.Connection) -> None:
    _create(tx, schema_vault.VAULT)


def _no_vault(tx: sa.Connection) -> None:
    """Sealed values are not lost by going back: an older exeat does not look at them."""
    _drop_empty(tx, schema_vault.VAULT)


def _authorization(tx: sa.Connection) -> None:
    _create(tx, schema_authorization.AUTHORIZATION)


def _no_authorization(tx: sa.Connection) -> None:
    """Passkeys and clients are not lost by going back: an older exeat does not look at them."""
    _drop_empty(tx, tuple(reversed(schema_authorization.AUTHORIZATION)))


def _approvals(tx: sa.Connection) -> None:
    _create(tx, schema_approvals.APPROVALS)


def _no_approvals(tx: sa.Connection) -> None:
    """Grants and what people answered are not lost by going back: an older exeat knows no hold."""
    _drop_empty(tx, tuple(reversed(schema_approvals.APPROVALS)))


def _budgets_and_kills(tx: sa.Connection) -> None:
    _create(tx, (*schema_kills.KILLS, *schema_budgets.BUDGETS))
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql(schema_budgets.RESERVE)


def _no_budgets_and_kills(tx: sa.Connection) -> None:
    """What was spent stays spent, and what was killed is killed, when this exeat comes back: an older one
    does not look at them."""
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql(schema_budgets.UNRESERVE)
    _drop_empty(tx, schema_budgets.BUDGETS)
    _drop_empty(tx, tuple(reversed(schema_kills.KILLS)))


def _policy(tx: sa.Connection) -> None:
    _create(tx, schema_policy.POLICY)


def _no_policy(tx: sa.Connection) -> None:
    """Proposals are not lost by going back; an older exeat observes nobody."""
    _drop_empty(tx, schema_policy.POLICY)


def _create(tx: sa.Connection, tables: Sequence[sa.Table]) -> None:
    """A table that was left standing is used again."""
    for table in tables:
        table.create(tx, checkfirst=True)


def _drop_empty(tx: sa.Connection, tables: Sequence[sa.TableClause]) -> None:
    """All of them, or none if one holds something, or is just being written to."""
    if tx.dialect.name == "postgresql":
        names = ", ".join(table.name for table in tables)
        tx.execute(sa.text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
    if not any(
        tx.execute(sa.select(sa.literal(1)).select_from(t).limit(1)).first() for t in tables
    ):
        for table in tables:
            tx.execute(sa.text(f"DROP TABLE {table.name}"))


MIGRATIONS: Final = (
    Step(_first, _never),
    Step(_leases_and_roots, _no_leases_and_roots),
    Step(_ledger, _no_ledger),
    Step(_identity, _no_identity),
    Step(_vault, _no_vault),
    Step(_authorization, _no_authorization),
    Step(_approvals, _no_approvals),
    Step(_budgets_and_kills, _no_budgets_and_kills),
    Step(_policy, _no_policy),
)
"""Numbered from 1.  A published one is never edited."""
LATEST: Final = len(MIGRATIONS)
_LOCK: Final = 0x65786561745F6D67


def version(tx: sa.Connection) -> int:
    """0: there are no tables."""
    if not sa.inspect(tx).has_table("state"):
        return 0
    return int(tx.execute(sa.select(state.c.schema_version)).scalar_one())


def migrate(tx: sa.Connection, wanted: int = LATEST) -> None:
    """Bring the tables to a version, in the caller's transaction.

    Raises StateUnavailable if they were written by a newer exeat: an old reader must not decide on
    tables that it does not understand.
    """
    if tx.dialect.name == "postgresql":  # gateways that start together take turns
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.literal(_LOCK, sa.BigInteger))))
    present = version(tx)
    if present > LATEST:
        raise StateUnavailable(
            f"A newer exeat wrote this state (schema {present}, not {LATEST}).",
            remedy=f"Run the newer exeat, or let it go back: exeat migrate --to {LATEST}.",
        )
    if not 0 < wanted <= LATEST:
        raise Invalid(
            f"There is no schema version {wanted}.", remedy=f"Versions are 1 to {LATEST}."
        )
    if present == wanted:
        return
    for step in MIGRATIONS[present:wanted]:
        step.up(tx)
    for step in reversed(MIGRATIONS[wanted:present]):
        step.down(tx)
    tx.execute(state.update().values(schema_version=wanted))
