"""Signed roots over all logs, in the database of the state."""

from collections.abc import Iterator

import sqlalchemy as sa

from exeat.core.errors import Conflict
from exeat.evidence.roots import SignedRoot, pack_heads, read_heads
from exeat.storage.engine import changing, reading
from exeat.storage.schema import roots


class Roots:
    """Every method raises StateUnavailable if the database cannot be reached."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def all(self) -> Iterator[SignedRoot]:
        """In order; none from tables of a version that had no roots."""
        with reading(self._engine) as connection:
            if not sa.inspect(connection).has_table(roots.name):
                return
            for row in connection.execute(sa.select(roots).order_by(roots.c.number)):
                yield SignedRoot(row.number, bytes(row.note), read_heads(row.heads))

    def last(self) -> SignedRoot | None:
        query = sa.select(roots).order_by(roots.c.number.desc()).limit(1)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return SignedRoot(row.number, bytes(row.note), read_heads(row.heads))

    def keep(self, root: SignedRoot) -> None:
        """Raises Conflict if another gateway has written this number meanwhile."""
        with changing(self._engine) as tx:
            last = tx.execute(sa.select(sa.func.max(roots.c.number))).scalar() or 0
            if root.number != last + 1:
                raise Conflict(f"Root {root.number} does not follow root {last}.")
            tx.execute(
                roots.insert().values(
                    number=root.number, note=root.note, heads=pack_heads(root.heads)
                )
            )
