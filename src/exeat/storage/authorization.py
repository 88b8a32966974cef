"""AuthorizationStore on SQLite and PostgreSQL."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from exeat.core.event import Event
from exeat.core.facts import Lifecycle
from exeat.core.ids import AgentId, PersonId, ServerId
from exeat.identity.authorization.model.client import Client, ClientAuth, ClientKind, Window
from exeat.identity.authorization.model.grant import Code, Grant, Refresh
from exeat.identity.authorization.store import AgentStanding
from exeat.registry.model.canonical import canonical
from exeat.registry.model.person import ADMIN
from exeat.storage import outbox
from exeat.storage.engine import changing, reading
from exeat.storage.rows import texts
from exeat.storage.schema import agents, people, servers, state
from exeat.storage.schema_authorization import (
    oauth_clients,
    oauth_codes,
    oauth_consents,
    oauth_grants,
    oauth_refreshes,
    oauth_window,
    used_once,
)
from exeat.storage.schema_identity import endings

KEPT_NS: Final = 86_400 * 1_000_000_000
"""A code that has ended is still known so long, so that its second use is seen as one."""
CLIENTS_KEPT_NS: Final = 30 * KEPT_NS


class SqlAuthorization:
    """What lies behind ``State.authorization``."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def read(self) -> Iterator["SqlAuthorizationRead"]:
        with reading(self._engine) as connection:
            yield SqlAuthorizationRead(connection)

    @contextmanager
    def change(self) -> Iterator["SqlAuthorizationChange"]:
        with changing(self._engine) as tx:
            # writers take turns, as those of the registry do; events stay in order of commit
            tx.execute(sa.select(state.c.epoch).with_for_update())
            yield SqlAuthorizationChange(tx)


class SqlAuthorizationRead:
    def __init__(self, connection: sa.Connection) -> None:
        self._tx = connection

    def person_live(self, person: PersonId) -> bool:
        found = self._tx.execute(sa.select(people.c.live).where(people.c.id == person)).scalar()
        return bool(found)

    def is_admin(self, person: PersonId) -> bool:
        row = self._first(people, people.c.id == person)
        return row is not None and bool(row.live) and ADMIN in texts(row.roles)

    def agent(self, agent: AgentId) -> AgentStanding | None:
        row = self._first(agents, agents.c.id == agent)
        return None if row is None else _standing(row)

    def agents_of(self, person: PersonId) -> tuple[AgentStanding, ...]:
        theirs = (agents.c.owner == person) | (agents.c.deputy == person)
        kept = agents.c.lifecycle != Lifecycle.RETIRED.value
        query = sa.select(agents).where(theirs & kept)
        found = [_standing(row) for row in self._tx.execute(query)]
        return tuple(sorted(found, key=lambda each: each.id))

    def servers(self) -> frozenset[ServerId]:
        return frozenset(ServerId(row.id) for row in self._tx.execute(sa.select(servers.c.id)))

    def client(self, client: str) -> Client | None:
        row = self._first(oauth_clients, oauth_clients.c.id == client)
        return None if row is None else _client(row)

    def clients(self) -> tuple[Client, ...]:
        found = [_client(row) for row in self._tx.execute(sa.select(oauth_clients))]
        return tuple(sorted(found, key=lambda each: each.id))

    def window(self) -> Window | None:
        row = self._first(oauth_window, oauth_window.c.id == 1)
        return None if row is None else Window(row.until, row.left)

    def grant(self, grant: str) -> Grant | None:
        row = self._first(oauth_grants, oauth_grants.c.id == grant)
        return None if row is None else _grant(row)

    def grants_of(self, person: PersonId) -> tuple[Grant, ...]:
        return self._grants(oauth_grants.c.person == person)

    def grants_to(self, client: str) -> tuple[Grant, ...]:
        return self._grants(oauth_grants.c.client == client)

    def ended(self, name: str) -> bool:
        return self._first(endings, endings.c.name == name) is not None

    def refresh(self, digest: bytes) -> Refresh | None:
        row = self._first(oauth_refreshes, oauth_refreshes.c.digest == digest)
        if row is None:
            return None
        return Refresh(bytes(row.digest), row.grant_id, row.ends_at, bool(row.used), row.jkt)

    def consented(self, key: bytes, now: int) -> bool:
        row = self._first(oauth_consents, oauth_consents.c.digest == key)
        return row is not None and row.ends_at > now

    def _grants(self, which: sa.ColumnElement[bool]) -> tuple[Grant, ...]:
        query = sa.select(oauth_grants).where(which).order_by(oauth_grants.c.made_at.desc())
        return tuple(_grant(row) for row in self._tx.execute(query))

    def _first(self, table: sa.Table, which: sa.ColumnElement[bool]) -> Any:
        return self._tx.execute(sa.select(table).where(which)).one_or_none()


class SqlAuthorizationChange(SqlAuthorizationRead):
    def tell(self, event: Event) -> None:
        outbox.put(self._tx, event)

    def save_client(self, client: Client) -> None:
        values = {
            "id": client.id,
            "kind": client.kind.value,
            "name": client.name,
            "auth": client.auth.value,
            "redirects": canonical(list(client.redirects)),
            "grants": canonical(sorted(client.grants)),
            "ends_at": client.ends_at,
            "agent": client.agent,
            "secret_digest": client.secret_digest,
            "jwks": client.jwks,
            "revoked": client.revoked,
        }
        self._put(oauth_clients, oauth_clients.c.id == client.id, values)

    def save_window(self, window: Window) -> None:
        values = {"id": 1, "until": window.until, "left": window.left}
        self._put(oauth_window, oauth_window.c.id == 1, values)

    def save_grant(self, grant: Grant) -> None:
        values = {
            "id": grant.id,
            "client": grant.client,
            "person": grant.person,
            "agent": grant.agent,
            "resource": grant.resource,
            "scopes": " ".join(grant.scopes),
            "made_at": grant.made_at,
            "ends_at": grant.ends_at,
            "revoked": grant.revoked,
        }
        self._put(oauth_grants, oauth_grants.c.id == grant.id, values)

    def add_code(self, code: Code) -> None:
        self._tx.execute(
            oauth_codes.insert().values(
                digest=code.digest,
                grant_id=code.grant,
                redirect_uri=code.redirect_uri,
                challenge=code.challenge,
                ends_at=code.ends_at,
                used=code.used,
                jkt=code.jkt,
            )
        )

    def take_code(self, digest: bytes) -> Code | None:
        row = self._first(oauth_codes, oauth_codes.c.digest == digest)
        if row is None:
            return None
        self._use(oauth_codes, digest)
        return Code(
            bytes(row.digest), row.grant_id, row.redirect_uri, row.challenge, row.ends_at,
            bool(row.used), row.jkt,
        )  # fmt: skip

    def add_refresh(self, refresh: Refresh) -> None:
        self._tx.execute(
            oauth_refreshes.insert().values(
                digest=refresh.digest,
                grant_id=refresh.grant,
                ends_at=refresh.ends_at,
                used=refresh.used,
                jkt=refresh.jkt,
            )
        )

    def take_refresh(self, digest: bytes) -> Refresh | None:
        found = self.refresh(digest)
        self._use(oauth_refreshes, digest)
        return found

    def consent(self, key: bytes, person: PersonId, client: str, until: int) -> None:
        values = {"digest": key, "person": person, "client": client, "ends_at": until}
        self._put(oauth_consents, oauth_consents.c.digest == key, values)

    def forget_consents(self, person: PersonId, client: str) -> None:
        theirs = (oauth_consents.c.person == person) & (oauth_consents.c.client == client)
        self._tx.execute(oauth_consents.delete().where(theirs))

    def first_use(self, key: bytes, until: int) -> bool:
        if self._first(used_once, used_once.c.digest == key) is not None:
            return False
        self._tx.execute(used_once.insert().values(digest=key, ends_at=until))
        return True

    def sweep(self, now: int) -> None:
        for table, kept in (
            (oauth_codes, KEPT_NS),
            (oauth_refreshes, 0),
            (oauth_consents, 0),
            (used_once, 0),
            (oauth_grants, KEPT_NS),
            (oauth_clients, CLIENTS_KEPT_NS),
        ):
            self._tx.execute(table.delete().where(table.c.ends_at < now - kept))

    def _use(self, table: sa.Table, digest: bytes) -> None:
        self._tx.execute(table.update().where(table.c.digest == digest).values(used=True))

    def _put(self, table: sa.Table, which: sa.ColumnElement[bool], values: dict[str, Any]) -> None:
        if self._tx.execute(table.update().where(which).values(values)).rowcount == 0:
            self._tx.execute(table.insert().values(values))


def _standing(row: Any) -> AgentStanding:
    owner = None if row.owner is None else PersonId(row.owner)
    deputy = None if row.deputy is None else PersonId(row.deputy)
    return AgentStanding(
        AgentId(row.id), row.name, owner, deputy, Lifecycle(row.lifecycle), row.ends_at
    )


def _client(row: Any) -> Client:
    return Client(
        row.id,
        ClientKind(row.kind),
        row.name,
        ClientAuth(row.auth),
        tuple(json.loads(row.redirects)),
        frozenset(json.loads(row.grants)),
        row.ends_at,
        agent=None if row.agent is None else AgentId(row.agent),
        secret_digest=None if row.secret_digest is None else bytes(row.secret_digest),
        jwks=row.jwks,
        revoked=bool(row.revoked),
    )


def _grant(row: Any) -> Grant:
    return Grant(
        row.id,
        row.client,
        None if row.person is None else PersonId(row.person),
        None if row.agent is None else AgentId(row.agent),
        row.resource,
        tuple(row.scopes.split(" ")) if row.scopes else (),
        row.made_at,
        row.ends_at,
        bool(row.revoked),
    )
