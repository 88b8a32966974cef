"""All tables; ``migrations`` leads from one version of them to another.

Every entity row carries the ``epoch`` at which it was last written, so that a reader who knows an
older epoch loads only what changed.  Times: nanoseconds.  JSON is canonical text.
"""

from typing import Any, Final

import sqlalchemy as sa

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

FIRST: Final = (people, policies, state, agents, servers, tools, keys, outbox)
"""The tables of the first version."""

leases = sa.Table(
    "leases",
    metadata,
    _key("name"),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("until", sa.Float(53), nullable=False),
)
"""Work that one gateway does for all, such as writing roots.  ``until``: seconds since 1970, by the
database's clock."""
roots = sa.Table(
    "roots",
    metadata,
    sa.Column("number", _BIG, primary_key=True, autoincrement=False),
    sa.Column("note", sa.LargeBinary, nullable=False),
    _text("heads"),
)
"""EVD-1: signed roots over the latest checkpoints of all logs."""

LEDGER_NAMES: Final = (
    "ledger_writers", "ledger_batches", "ledger_checkpoints", "ledger_keys", "ledger_open_state",
)  # fmt: skip
LEDGER_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS ledger_writers (origin text PRIMARY KEY, epoch bigint NOT NULL,
    holder text NOT NULL, token text NOT NULL, backend int NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS ledger_batches (origin text NOT NULL, first bigint NOT NULL,
    count int NOT NULL, leaves bytea NOT NULL, sealed bytea NOT NULL, frontier bytea NOT NULL,
    PRIMARY KEY (origin, first))""",
    """CREATE TABLE IF NOT EXISTS ledger_checkpoints (origin text NOT NULL, size bigint NOT NULL,
    note bytea NOT NULL, PRIMARY KEY (origin, size))""",
    """CREATE TABLE IF NOT EXISTS ledger_keys (n bigserial, origin text NOT NULL, id bigint NOT NULL,
    subject text NOT NULL, wrapped bytea NOT NULL, PRIMARY KEY (origin, id))""",
    "CREATE INDEX IF NOT EXISTS ledger_keys_by_subject ON ledger_keys (origin, subject)",
    """CREATE TABLE IF NOT EXISTS ledger_open_state (origin text PRIMARY KEY, size bigint NOT NULL,
    packed bytea NOT NULL)""",
)
"""Only in PostgreSQL, read and written by ``ledger_postgres``; on SQLite a log is a file of its own."""
