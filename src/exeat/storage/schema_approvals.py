"""Tables of approvals (APP-1 … APP-12).  No snapshot speaks of them, so they move no epoch.

``sealed`` holds what people are shown, and bounds of grants; it is emptied some time after the decision.
"""

from typing import Any, Final

import sqlalchemy as sa

from exeat.storage.schema import _BIG, _key, _text, metadata


def _named(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.String, nullable=False)


def _moment(name: str) -> sa.Column[Any]:
    """Nanoseconds; 0: not yet."""
    return sa.Column(name, _BIG, nullable=False)


def _binding() -> tuple[sa.Column[Any], ...]:
    """``core.grant.Binding``; ``principal``: the user, empty if there is none."""
    return (
        _named("agent"),
        _named("principal"),
        _named("run"),
        _named("server"),
        _named("method"),
        _named("action"),
        _named("pin"),
        _named("arguments"),
        _named("slice"),
        _named("owner"),
        _text("labels"),
    )


def _sealed() -> sa.Column[Any]:
    return sa.Column("sealed", sa.LargeBinary, nullable=False)


holds = sa.Table(
    "approval_holds",
    metadata,
    _key("id"),
    sa.Column("binding", sa.String, nullable=False, index=True),
    *_binding(),
    _text("alternatives"),
    _text("why"),
    _named("effect"),
    _named("sink"),
    _sealed(),
    _text("asked"),
    _moment("asked_at"),
    _moment("expires_at"),
    _named("commitment"),
    _named("state"),
    sa.Column("attempts", _BIG, nullable=False),
    _moment("decided_at"),
    _moment("use_by"),
    _named("grant_id"),
    _moment("notify_at"),
    sa.Column("notify_tries", sa.Integer, nullable=False),
    _named("notified"),
    sa.Index("approval_holds_by_state", "state", "expires_at"),
    sa.Index("approval_holds_by_agent", "agent", "asked_at"),
    sa.Index("approval_holds_by_notice", "notify_at"),
)
"""``binding``: its digest.  ``notify_at``: when others are next told of it; 0: never again.
``notified``: those who know, apart by a space."""
answers = sa.Table(
    "approval_answers",
    metadata,
    sa.Column(
        "hold",
        sa.String,
        sa.ForeignKey("approval_holds.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("person", sa.String, primary_key=True),
    _named("word"),
    _named("channel"),
    _moment("at"),
    _text("reason"),
    _text("controls"),
    _named("bounds"),
    _sealed(),
)
grants = sa.Table(
    "approval_grants",
    metadata,
    _key("id"),
    sa.Column("scope", sa.String, nullable=False, index=True),
    *_binding(),
    _text("controls"),
    sa.Column("hold", sa.String, sa.ForeignKey("approval_holds.id"), nullable=False, index=True),
    _named("bounds"),
    _sealed(),
    sa.Column("any_run", sa.Boolean, nullable=False),
    sa.Column("uses", sa.Integer, nullable=False),
    sa.Column("left", sa.Integer, nullable=False),
    _moment("made_at"),
    sa.Column("until", _BIG, nullable=False, index=True),
    _moment("last_used"),
    _moment("revoked_at"),
    _named("revoked_by"),
    sa.CheckConstraint('"left" >= 0', name="no_grant_is_overused"),
)
messages = sa.Table(
    "approval_messages",
    metadata,
    _key("id"),
    sa.Column("ends_at", _BIG, nullable=False, index=True),
)
"""Ids of webhook messages that were taken, so that none is taken twice (APP-5)."""

APPROVALS: Final = (holds, answers, grants, messages)
