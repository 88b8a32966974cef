"""Tables of the kill switch (APP-9): what was switched off, and when it took effect where."""

from typing import Final

import sqlalchemy as sa

from exeat.storage.schema import _BIG, _entity, _key, _person, _text, metadata

kills = _entity(
    "kills",
    _key("id"),
    sa.Column("target", sa.String, nullable=False),
    _text("name"),
    _person("ordered_by", nullable=False),
    _text("reason"),
    sa.Column("at", _BIG, nullable=False),
    _person("ended_by", nullable=True),
    sa.Column("ended_at", _BIG, nullable=True),
)
"""``name``: id of the agent, person, server, tool or run; empty: everything.  No row is removed."""
kill_effects = sa.Table(
    "kill_effects",
    metadata,
    sa.Column("kill", sa.String, sa.ForeignKey("kills.id"), primary_key=True),
    sa.Column("instance", sa.String, primary_key=True),
    sa.Column("at", _BIG, nullable=False),
    sa.Column("cancelled", sa.Integer, nullable=False),
)
"""Written by each gateway that met the kill; read by people, by no decision, so it moves no epoch."""

KILLS: Final = (kills, kill_effects)
