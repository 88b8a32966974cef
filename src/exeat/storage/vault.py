"""VaultStore on SQLite and PostgreSQL.  Changes share the registry's lock, outbox and epoch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa

from exeat.core.event import Event
from exeat.core.facts import SecretMark
from exeat.core.ids import PersonId
from exeat.core.secret import OWN_MARK, SecretId
from exeat.identity.vault.model import Sealed, Secret
from exeat.storage.engine import reading
from exeat.storage.registry import SqlChange, SqlRegistry
from exeat.storage.rows import Row, Values
from exeat.storage.schema import state
from exeat.storage.schema_vault import secrets, vault


class SqlVault:
    """What lies behind ``State.vault``."""

    def __init__(self, engine: sa.Engine, registry: SqlRegistry) -> None:
        self._engine = engine
        self._registry = registry

    @contextmanager
    def read(self) -> Iterator["SqlVaultRead"]:
        with reading(self._engine) as connection:
            yield SqlVaultRead(connection)

    @contextmanager
    def change(self) -> Iterator["SqlVaultChange"]:
        with self._registry.change() as tx:
            yield SqlVaultChange(tx)


class SqlVaultRead:
    """VaultRead inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def current_key(self) -> str:
        return str(self._connection.execute(sa.select(vault.c.key)).scalar_one_or_none() or "")

    def secret(self, id: SecretId) -> Secret | None:
        row = self._connection.execute(sa.select(secrets).where(_is(id))).one_or_none()
        return None if row is None else _secret(row)

    def secrets(self) -> tuple[Secret, ...]:
        found = map(_secret, self._connection.execute(sa.select(secrets)))
        return tuple(sorted(found, key=lambda each: each.id))


class SqlVaultChange(SqlVaultRead):
    """VaultChange.  ``registry``: the same transaction, for what is registered.  What exeat keeps for
    itself moves no epoch: no snapshot speaks of it."""

    def __init__(self, registry: SqlChange) -> None:
        super().__init__(registry.connection)
        self.registry = registry

    def save_secret(self, secret: Secret, event: Event) -> None:
        values = _values(secret, self.registry.epoch)
        if self.secret(secret.id) is None:
            self._connection.execute(secrets.insert().values(values))
        else:
            self._connection.execute(secrets.update().where(_is(secret.id)).values(values))
        self._told(secret.id, event)

    def remove_secret(self, secret: Secret, event: Event) -> None:
        self._connection.execute(secrets.delete().where(_is(secret.id)))
        if not secret.id.own:
            self._connection.execute(state.update().values(removed_epoch=self.registry.epoch))
        self._told(secret.id, event)

    def _told(self, id: SecretId, event: Event) -> None:
        if id.own:
            self.tell(event)
        else:
            self.registry.tell(event)

    def use_key(self, key: str, event: Event) -> None:
        if self.current_key():
            self._connection.execute(vault.update().values(key=key))
        else:
            self._connection.execute(vault.insert().values(id=1, key=key))
        self.tell(event)

    def under_other_keys(self, key: str, limit: int) -> tuple[Secret, ...]:
        query = sa.select(secrets).where(secrets.c.key != key).limit(limit)
        return tuple(map(_secret, self._connection.execute(query)))

    def rewrapped(self, secret: Secret) -> None:
        sealed = secret.sealed
        where = _is(secret.id) & (secrets.c.version == secret.version)
        self._connection.execute(
            secrets.update().where(where).values(key=sealed.key, wrapped=sealed.wrapped)
        )

    def tell(self, event: Event) -> None:
        self.registry.tell_beside(event)


def marks(
    connection: sa.Connection, before: Mapping[SecretId, SecretMark], since: int
) -> Mapping[SecretId, SecretMark]:
    """Which value of each secret is in force.  ``before``: as of the epoch ``since``."""
    s = secrets.c
    query = sa.select(s.tenant, s.agent, s.upstream, s.name, s.version, s.set_at)
    query = query.where((s.epoch > since) & ~s.name.contains(OWN_MARK))
    changed = {
        SecretId(row.tenant, row.agent, row.upstream, row.name): (row.version, row.set_at)
        for row in connection.execute(query)
    }
    return {**before, **changed} if changed else before


def _is(id: SecretId) -> sa.ColumnElement[bool]:
    s = secrets.c
    return (
        (s.tenant == id.tenant)
        & (s.agent == id.agent)
        & (s.upstream == id.upstream)
        & (s.name == id.name)
    )


def _values(secret: Secret, epoch: int) -> Values:
    id, sealed = secret.id, secret.sealed
    return {
        "tenant": id.tenant,
        "agent": id.agent,
        "upstream": id.upstream,
        "name": id.name,
        "version": secret.version,
        "key": sealed.key,
        "wrapped": sealed.wrapped,
        "body": sealed.body,
        "set_by": secret.by,
        "set_at": secret.at,
        "epoch": epoch,
    }


def _secret(row: Row) -> Secret:
    return Secret(
        SecretId(row.tenant, row.agent, row.upstream, row.name),
        row.version,
        Sealed(row.key, bytes(row.wrapped), bytes(row.body)),
        PersonId(row.set_by),
        row.set_at,
    )
