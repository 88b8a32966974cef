"""SignInStore on SQLite and PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from exeat.core.ids import PersonId
from exeat.identity.signin.model import Challenge, Link, Method, Passkey, Session
from exeat.storage.authorization import SqlAuthorizationChange, SqlAuthorizationRead
from exeat.storage.engine import changing, reading
from exeat.storage.schema import state
from exeat.storage.schema_authorization import challenges, passkeys, sessions, sign_in_links


class SqlSignIn:
    """What lies behind ``State.sign_in``."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def read(self) -> Iterator["SqlSignInRead"]:
        with reading(self._engine) as connection:
            yield SqlSignInRead(connection)

    @contextmanager
    def change(self) -> Iterator["SqlSignInChange"]:
        with changing(self._engine) as tx:
            tx.execute(sa.select(state.c.epoch).with_for_update())
            yield SqlSignInChange(tx)


class SqlSignInRead(SqlAuthorizationRead):
    def passkeys_of(self, person: PersonId) -> tuple[Passkey, ...]:
        query = sa.select(passkeys).where(passkeys.c.person == person).order_by(passkeys.c.made_at)
        return tuple(_passkey(row) for row in self._tx.execute(query))

    def passkey_by(self, credential: bytes) -> Passkey | None:
        row = self._first(passkeys, passkeys.c.credential == credential)
        return None if row is None else _passkey(row)

    def any_passkey(self) -> bool:
        return self._tx.execute(sa.select(passkeys.c.id).limit(1)).first() is not None

    def session(self, digest: bytes) -> Session | None:
        row = self._first(sessions, sessions.c.digest == digest)
        if row is None:
            return None
        return Session(
            bytes(row.digest), PersonId(row.person), Method(row.method), row.made_at, row.seen_at,
            row.ends_at,
        )  # fmt: skip

    def link(self, digest: bytes) -> Link | None:
        row = self._first(sign_in_links, sign_in_links.c.digest == digest)
        if row is None:
            return None
        return Link(bytes(row.digest), PersonId(row.person), row.ends_at, bool(row.used))


class SqlSignInChange(SqlSignInRead, SqlAuthorizationChange):
    def add_link(self, link: Link) -> None:
        of = (sign_in_links.c.person == link.person) & sign_in_links.c.used.is_(False)
        self._tx.execute(sign_in_links.delete().where(of))
        self._tx.execute(
            sign_in_links.insert().values(
                digest=link.digest, person=link.person, ends_at=link.ends_at, used=link.used
            )
        )

    def use_link(self, digest: bytes) -> None:
        self._use(sign_in_links, digest)

    def add_passkey(self, passkey: Passkey) -> None:
        self._tx.execute(
            passkeys.insert().values(
                id=passkey.id,
                person=passkey.person,
                credential=passkey.credential,
                public_key=passkey.public_key,
                sign_count=passkey.sign_count,
                made_at=passkey.made_at,
                used_at=passkey.used_at,
                synced=passkey.synced,
            )
        )

    def used_passkey(self, passkey: str, sign_count: int, now: int) -> None:
        values = {"sign_count": sign_count, "used_at": now}
        self._tx.execute(passkeys.update().where(passkeys.c.id == passkey).values(values))

    def remove_passkey(self, passkey: str) -> None:
        self._tx.execute(passkeys.delete().where(passkeys.c.id == passkey))

    def add_session(self, session: Session) -> None:
        self._tx.execute(
            sessions.insert().values(
                digest=session.digest,
                person=session.person,
                method=session.method.value,
                made_at=session.made_at,
                seen_at=session.seen_at,
                ends_at=session.ends_at,
            )
        )

    def seen(self, digest: bytes, now: int) -> None:
        self._tx.execute(sessions.update().where(sessions.c.digest == digest).values(seen_at=now))

    def end_session(self, digest: bytes) -> None:
        self._tx.execute(sessions.delete().where(sessions.c.digest == digest))

    def end_sessions_of(self, person: PersonId) -> None:
        self._tx.execute(sessions.delete().where(sessions.c.person == person))

    def put_challenge(self, challenge: Challenge) -> None:
        values = {
            "digest": challenge.digest,
            "challenge": challenge.challenge,
            "person": challenge.person,
            "ends_at": challenge.ends_at,
        }
        self._put(challenges, challenges.c.digest == challenge.digest, values)

    def take_challenge(self, digest: bytes) -> Challenge | None:
        row = self._first(challenges, challenges.c.digest == digest)
        if row is None:
            return None
        self._tx.execute(challenges.delete().where(challenges.c.digest == digest))
        person = None if row.person is None else PersonId(row.person)
        return Challenge(bytes(row.digest), bytes(row.challenge), person, row.ends_at)

    def sweep(self, now: int) -> None:
        for table in (sign_in_links, sessions, challenges):
            self._tx.execute(table.delete().where(table.c.ends_at < now))


def _passkey(row: Any) -> Passkey:
    return Passkey(
        row.id,
        PersonId(row.person),
        bytes(row.credential),
        bytes(row.public_key),
        row.sign_count,
        row.made_at,
        row.used_at,
        bool(row.synced),
    )
