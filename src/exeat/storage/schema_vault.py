"""Tables of the vault (ID-10): sealed rows, and which key seals."""

from typing import Final

import sqlalchemy as sa

from exeat.storage.schema import metadata

secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("agent", sa.String, primary_key=True),
    sa.Column("upstream", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("key", sa.String, nullable=False, index=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("set_by", sa.String, nullable=False),
    sa.Column("set_at", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False, index=True),
)
"""``agent`` and ``upstream`` empty: any.  ``key``: id of the key under which the data key lies."""
vault = sa.Table(
    "vault",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String, nullable=False),
    sa.CheckConstraint("id = 1", name="only_one_vault"),
)
"""One row once there is a secret: the id of the key that seals."""

VAULT: Final = (secrets, vault)
