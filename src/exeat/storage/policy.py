"""Policy versions: append-only, and one of them (or none) in force."""

import sqlalchemy as sa

from exeat.core.errors import Conflict, NotFound
from exeat.registry.model.policy import PolicyVersion
from exeat.storage import rows
from exeat.storage.engine import reading
from exeat.storage.schema import policies, state


class Policies:
    """What lies behind ``State.policies``: the history, for reading."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def versions(self) -> tuple[PolicyVersion, ...]:
        with reading(self._engine) as connection:
            return versions(connection)

    def in_force(self) -> PolicyVersion | None:
        with reading(self._engine) as connection:
            return in_force(connection)


def version(connection: sa.Connection, number: int) -> PolicyVersion:
    found = connection.execute(sa.select(policies).where(policies.c.number == number)).one_or_none()
    if found is None:
        raise NotFound(
            f"There is no policy version {number}.", remedy="See `exeat policy versions`."
        )
    return rows.to_policy(found)


def versions(connection: sa.Connection) -> tuple[PolicyVersion, ...]:
    query = sa.select(policies).order_by(policies.c.number)
    return tuple(rows.to_policy(row) for row in connection.execute(query))


def in_force(connection: sa.Connection) -> PolicyVersion | None:
    number = connection.execute(sa.select(state.c.policy_number)).scalar_one()
    return None if number is None else version(connection, number)


def add(tx: sa.Connection, new: PolicyVersion) -> None:
    """Raises Conflict unless its number follows the greatest one."""
    last = tx.execute(sa.select(sa.func.max(policies.c.number))).scalar() or 0
    if new.number != last + 1:
        raise Conflict(f"Policy version {new.number} does not follow version {last}.")
    tx.execute(policies.insert().values(rows.policy_values(new)))


def enforce(tx: sa.Connection, number: int) -> None:
    version(tx, number)
    tx.execute(state.update().values(policy_number=number))
