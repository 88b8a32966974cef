"""Tables of identity: who is who at which issuer, tokens that were ended, agents nobody registered."""

import sqlalchemy as sa

from exeat.storage.schema import _BIG, _entity, _key, _person, _text, metadata

bindings = _entity(
    "bindings",
    _key("id"),
    sa.Column("kind", sa.String, nullable=False),
    _text("issuer"),
    _text("name"),
    _person("user", nullable=True),
    _text("to"),
)
endings = sa.Table(
    "endings",
    metadata,
    _key("name"),
    sa.Column("until", _BIG, nullable=False),
    sa.Column("epoch", _BIG, nullable=False, index=True),
)
"""Tokens of that grant or with that id are refused.  ``until``: then the last of them has expired."""
proofs = sa.Table(
    "proofs",
    metadata,
    sa.Column("agent", sa.String, sa.ForeignKey("agents.id"), primary_key=True),
    sa.Column("method", sa.String, nullable=False),
    sa.Column("epoch", _BIG, nullable=False, index=True),
)
"""ID-4: how an agent must prove possession; empty: not at all."""
strangers = sa.Table(
    "strangers",
    metadata,
    _key("id"),
    _text("issuer"),
    _text("client"),
    _person("user", nullable=True),
    sa.Column("first_seen", _BIG, nullable=False),
    sa.Column("last_seen", _BIG, nullable=False, index=True),
    sa.Column("attempts", _BIG, nullable=False),
    _text("tried"),
)
"""Read by people, by no decision; so it moves no epoch."""

IDENTITY = (bindings, endings, proofs, strangers)
