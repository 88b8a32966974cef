"""Tables of the authorization server and of people's sign-in.  Of secrets only SHA-256 is kept.

No decision reads them, so they move no epoch.
"""

from typing import Any, Final

import sqlalchemy as sa

from exeat.storage.schema import _BIG, _key, _person, _text, metadata


def _digest() -> sa.Column[Any]:
    return sa.Column("digest", sa.LargeBinary, primary_key=True)


def _end() -> sa.Column[Any]:
    return sa.Column("ends_at", _BIG, nullable=False, index=True)


def _flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _grant() -> sa.Column[Any]:
    return sa.Column(
        "grant_id",
        sa.String,
        sa.ForeignKey("oauth_grants.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    )


oauth_clients = sa.Table(
    "oauth_clients",
    metadata,
    _key("id"),
    sa.Column("kind", sa.String, nullable=False),
    _text("name"),
    sa.Column("auth", sa.String, nullable=False),
    _text("redirects"),
    _text("grants"),
    _end(),
    sa.Column("agent", sa.String, sa.ForeignKey("agents.id"), nullable=True),
    sa.Column("secret_digest", sa.LargeBinary, nullable=True),
    _text("jwks"),
    _flag("revoked"),
)
oauth_window = sa.Table(
    "oauth_window",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("until", _BIG, nullable=False),
    sa.Column("left", sa.Integer, nullable=False),
)
"""At most one row."""
oauth_grants = sa.Table(
    "oauth_grants",
    metadata,
    _key("id"),
    sa.Column("client", sa.Text, nullable=False, index=True),
    sa.Column("person", sa.String, sa.ForeignKey("people.id"), nullable=True, index=True),
    sa.Column("agent", sa.String, sa.ForeignKey("agents.id"), nullable=True),
    _text("resource"),
    _text("scopes"),
    sa.Column("made_at", _BIG, nullable=False),
    _end(),
    _flag("revoked"),
)
oauth_codes = sa.Table(
    "oauth_codes",
    metadata,
    _digest(),
    _grant(),
    _text("redirect_uri"),
    sa.Column("challenge", sa.String, nullable=False),
    _end(),
    _flag("used"),
    sa.Column("jkt", sa.String, nullable=False),
)
oauth_refreshes = sa.Table(
    "oauth_refreshes",
    metadata,
    _digest(),
    _grant(),
    _end(),
    _flag("used"),
    sa.Column("jkt", sa.String, nullable=False),
)
oauth_consents = sa.Table(
    "oauth_consents",
    metadata,
    _digest(),
    _person("person", nullable=False),
    _text("client"),
    _end(),
)
used_once = sa.Table("used_once", metadata, _digest(), _end())
"""Assertions and proofs that were seen, until they have ended by themselves."""

sign_in_links = sa.Table(
    "sign_in_links", metadata, _digest(), _person("person", nullable=False), _end(), _flag("used")
)
passkeys = sa.Table(
    "passkeys",
    metadata,
    _key("id"),
    sa.Column("person", sa.String, sa.ForeignKey("people.id"), nullable=False, index=True),
    sa.Column("credential", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("sign_count", _BIG, nullable=False),
    sa.Column("made_at", _BIG, nullable=False),
    sa.Column("used_at", _BIG, nullable=False),
    _flag("synced"),
)
sessions = sa.Table(
    "sessions",
    metadata,
    _digest(),
    sa.Column("person", sa.String, sa.ForeignKey("people.id"), nullable=False, index=True),
    sa.Column("method", sa.String, nullable=False),
    sa.Column("made_at", _BIG, nullable=False),
    sa.Column("seen_at", _BIG, nullable=False),
    _end(),
)
challenges = sa.Table(
    "challenges",
    metadata,
    _digest(),
    sa.Column("challenge", sa.LargeBinary, nullable=False),
    _person("person", nullable=True),
    _end(),
)
"""Of ceremonies under way, each bound to one browser; ``person`` NULL: a sign-in."""

AUTHORIZATION: Final = (
    oauth_clients, oauth_window, oauth_grants, oauth_codes, oauth_refreshes, oauth_consents,
    used_once, sign_in_links, passkeys, sessions, challenges,
)  # fmt: skip
