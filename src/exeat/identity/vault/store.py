"""What the vault needs: rows in a database, and keys from somewhere else."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from exeat.core.event import Event
from exeat.core.ids import PersonId
from exeat.core.secret import SecretId
from exeat.identity.vault.model import Secret, VaultKey


class VaultRead(Protocol):
    """One consistent view."""

    def current_key(self) -> str:
        """Id of the key that seals; empty before the first secret."""
        ...

    def secret(self, id: SecretId) -> Secret | None: ...

    def secrets(self) -> tuple[Secret, ...]:
        """All, by id."""
        ...


class VaultChange(VaultRead, Protocol):
    """A transaction; writers take turns.  What is saved and its event are there together."""

    def save_secret(self, secret: Secret, event: Event) -> None: ...
    def remove_secret(self, secret: Secret, event: Event) -> None: ...
    def use_key(self, key: str, event: Event) -> None: ...

    def under_other_keys(self, key: str, limit: int) -> tuple[Secret, ...]:
        """Secrets, at most ``limit``, whose data key is not wrapped under ``key``."""
        ...

    def rewrapped(self, secret: Secret) -> None:
        """The same secret and version under another key.  No event of its own."""
        ...

    def tell(self, event: Event) -> None: ...


Change = TypeVar("Change", bound=VaultChange, covariant=True)


class VaultStore(Protocol[Change]):
    def read(self) -> AbstractContextManager[VaultRead]: ...
    def change(self) -> AbstractContextManager[Change]: ...


class KeySource(Protocol):
    """Where keys come from.  ``name``: for sentences, such as ``the file keys/vault.key``."""

    @property
    def name(self) -> str: ...

    def read(self) -> tuple[VaultKey, ...]:
        """The first seals, the others only open; empty if there is none yet.  Blocks.  Raises
        Invalid or VaultFailed if the keys are there and cannot be used."""
        ...

    def add(self, key: VaultKey) -> None:
        """From now on the first.  Durable once it returns.  Raises Conflict where keys are made by
        somebody else."""
        ...

    def drop(self, keys: frozenset[str]) -> None:
        """Nothing needs the keys with these ids; nothing happens where they are not ours."""
        ...


class By(Protocol):
    """Who does it, when, and how that becomes an event: the registry's ``Act`` is one."""

    @property
    def actor(self) -> PersonId: ...
    @property
    def at(self) -> int: ...
    def event(
        self,
        kind: str,
        subject: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> Event: ...
