"""All tables of the state, and the way from any older version of them to this one.

Every entity row carries the ``epoch`` at which it was last written, so that a reader who knows an
older epoch loads only what changed.  Times: nanoseconds.  JSON is canonical text.
"""

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from exeat.core.errors import StateUnavailable

metadata = sa.MetaData()
_BIG = sa.BigInteger
_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _entity(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        *columns,
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("epoch", _BIG, nullable=False, index=True),
    )


def _key(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.String, primary_key=True)


def _person(name: str, *, nullable: bool) -> sa.Column[Any]:
    return sa.Column(name, sa.String, sa.ForeignKey("people.id"), nullable=nullable)


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=False)


state = sa.Table(
    "state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("epoch", _BIG, nullable=False),
    sa.Column("removed_epoch", _BIG, nullable=False),
    sa.Column("policy_number", sa.Integer, sa.ForeignKey("policies.number"), nullable=True),
    sa.CheckConstraint("id = 1", name="only_one_state"),
)
"""One row.  ``removed_epoch``: the last epoch at which a row was removed."""

people = _entity(
    "people",
    _key("id"),
    sa.Column("live", sa.Boolean, nullable=False),
    _text("roles"),
)
agents = _entity(
    "agents",
    _key("id"),
    _text("name"),
    _text("purpose"),
    _person("owner", nullable=True),
    _person("deputy", nullable=True),
    _person("sponsor", nullable=True),
    _text("groups"),
    _text("environment"),
    _text("model"),
    _text("prompt_digest"),
    _text("servers"),
    _text("effects"),
    _text("actions"),
    sa.Column("ends_at", _BIG, nullable=True),
    sa.Column("scope_digest", sa.String, nullable=False),
    sa.Column("accepted_digest", sa.String, nullable=True),
    _person("accepted_by", nullable=True),
    sa.Column("accepted_at", _BIG, nullable=True),
    sa.Column("accepted_event", sa.String, nullable=True),
    sa.Column("lifecycle", sa.String, nullable=False),
    sa.CheckConstraint("owner <> deputy", name="owner_is_not_deputy"),
)
servers = _entity(
    "servers",
    _key("id"),
    _text("spec"),
    _person("owner", nullable=False),
    sa.Column("trust", sa.Integer, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    _text("extra_methods"),
)
tools = _entity(
    "tools",
    _key("action"),
    sa.Column("server", sa.String, sa.ForeignKey("servers.id"), nullable=False, index=True),
    _text("name"),
    sa.Column("pinned_digest", sa.String, nullable=True),
    sa.Column("pinned_body", sa.Text, nullable=True),
    sa.Column("pending_digest", sa.String, nullable=True),
    sa.Column("pending_body", sa.Text, nullable=True),
    sa.Column("profile", sa.Text, nullable=True),
    sa.UniqueConstraint("server", "name", name="one_tool_of_a_name"),
)
keys = _entity(
    "keys",
    _key("id"),
    sa.Column("agent", sa.String, sa.ForeignKey("agents.id"), nullable=False, index=True),
    _person("user", nullable=True),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("expires_at", _BIG, nullable=False),
    sa.Column("revoked", sa.Boolean, nullable=False),
)
policies = sa.Table(
    "policies",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String, nullable=False),
    _text("files"),
    _person("author", nullable=False),
    _person("approver", nullable=False),
    _text("reason"),
    sa.Column("at", _BIG, nullable=False),
)
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("n", _SERIAL, primary_key=True, autoincrement=True),
    _text("body"),
    sqlite_autoincrement=True,
)


def _first(tx: sa.Connection) -> None:
    metadata.create_all(tx)
    tx.execute(state.insert().values(id=1, schema_version=0, epoch=1, removed_epoch=0))


MIGRATIONS: Final[tuple[Callable[[sa.Connection], None], ...]] = (_first,)
"""Forward only, numbered from 1.  A published one is never edited."""


def migrate(tx: sa.Connection) -> None:
    """Bring the tables to this version, in the caller's transaction.

    Raises StateUnavailable if they were written by a newer exeat: an old reader must not decide on
    tables that it does not understand.
    """
    present = 0
    if sa.inspect(tx).has_table("state"):
        present = tx.execute(sa.select(state.c.schema_version)).scalar_one()
    if present > len(MIGRATIONS):
        raise StateUnavailable(
            f"A newer exeat wrote this state (schema {present}, not {len(MIGRATIONS)}).",
            remedy="Run the newer exeat.",
        )
    for step in MIGRATIONS[present:]:
        step(tx)
    if present < len(MIGRATIONS):
        tx.execute(state.update().values(schema_version=len(MIGRATIONS)))
