"""Tables of what takes two people, and of agents that are observed (POL-7, POL-10)."""

import sqlalchemy as sa

from exeat.storage.schema import _BIG, _person, _text, metadata

proposals = sa.Table(
    "proposals",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String, nullable=False),
    _text("body"),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("base", sa.Integer, nullable=False),
    _person("author", nullable=False),
    _person("by", nullable=False),
    _text("reason"),
    sa.Column("at", _BIG, nullable=False),
    sa.Column("standing", sa.String, nullable=False),
    _person("decided_by", nullable=True),
)
"""Read by people, by no decision; so it moves no epoch."""
observations = sa.Table(
    "observations",
    metadata,
    sa.Column("agent", sa.String, sa.ForeignKey("agents.id"), primary_key=True),
    sa.Column("until", _BIG, nullable=False),
)
"""``until``: nanoseconds; in the past, or 0: policy binds the agent."""

POLICY = (proposals, observations)
