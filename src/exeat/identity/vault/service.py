"""The vault's verbs (ID-10).  All block: call them in a thread where waiting hurts."""

from collections.abc import Callable
from typing import Final, Generic

from exeat.core.errors import Conflict, NotFound, VaultFailed
from exeat.core.secret import TENANT, SecretId, places
from exeat.identity.vault import rules
from exeat.identity.vault.model import (
    KEY_BYTES,
    Rotation,
    Secret,
    VaultKey,
    check_id,
    check_value,
)
from exeat.identity.vault.store import By, Change, KeySource, VaultChange, VaultStore

REWRAP_BATCH: Final = 100
VAULT: Final = "vault"


class Vault(Generic[Change]):
    """Safe to share between threads.  The keys are read at first use, and again when a secret
    names one that is not among them: after a rotation nobody needs to be restarted."""

    def __init__(self, store: VaultStore[Change], keys: KeySource, draw: rules.Draw) -> None:
        self.store = store
        self._keys = keys
        self._draw = draw
        self._known: dict[str, VaultKey] = {}

    # ---- secrets

    def put(self, id: SecretId, value: bytes, by: By) -> Secret:
        """Seal a value; durable with its event once it returns.  Raises Invalid, VaultFailed."""
        with self.store.change() as tx:
            return self.put_in(tx, id, value, by)

    def put_in(self, tx: VaultChange, id: SecretId, value: bytes, by: By) -> Secret:
        check_id(id)
        check_value(id.name, value)
        key = self._sealing_key(tx, by)
        old = tx.secret(id)
        version = 1 if old is None else old.version + 1
        sealed = rules.seal(id, version, value, key, self._draw)
        new = Secret(id, version, sealed, by.actor, by.at)
        before = None if old is None else old.as_json()
        tx.save_secret(new, by.event("secret.set", id.subject, before, new.as_json()))
        return new

    def get(self, id: SecretId) -> bytes:
        """The value.  Raises NotFound, VaultFailed."""
        with self.store.read() as read:
            found = read.secret(id)
        if found is None:
            raise _missing(id)
        return self._open(found)

    def find(self, agent: str, upstream: str, name: str) -> bytes:
        """The value that a server names, the most particular there is (``core.secret.places``).
        Raises NotFound, VaultFailed."""
        with self.store.read() as read:
            found = next(filter(None, map(read.secret, places(agent, upstream, name))), None)
        if found is None:
            raise _missing(SecretId(TENANT, "", "", name))
        return self._open(found)

    def opens(self, secret: Secret) -> None:
        """Raises VaultFailed unless it does."""
        self._open(secret)

    def names(self) -> tuple[Secret, ...]:
        """All secrets, sealed, by id."""
        with self.store.read() as read:
            return read.secrets()

    def remove(self, id: SecretId, by: By) -> None:
        """Raises NotFound."""
        with self.store.change() as tx:
            self.remove_in(tx, id, by)

    def remove_in(self, tx: VaultChange, id: SecretId, by: By) -> None:
        old = tx.secret(id)
        if old is None:
            raise NotFound(
                f"There is no secret {id.shown}.",
                remedy="See `exeat secret list` for those there are.",
            )
        tx.remove_secret(old, by.event("secret.removed", id.subject, old.as_json(), None))

    def _open(self, secret: Secret) -> bytes:
        key = self._key(secret.sealed.key)
        return rules.unseal(secret.id, secret.version, secret.sealed, key)

    # ---- keys

    def _key(self, key: str) -> VaultKey:
        if key not in self._known:
            self._known = {each.id: each for each in self._keys.read()}
        found = self._known.get(key)
        if found is None:
            raise VaultFailed(
                f"The vault's key {key} is not in {self._keys.name}.",
                remedy="Put back the key that was there, or copy it from where it is; "
                "docs/how-to/keep-secrets.md says where keys are kept.",
            )
        return found

    def _sealing_key(self, tx: VaultChange, by: By) -> VaultKey:
        """The one that the database names, so that all gateways seal under the same; the first
        secret decides it."""
        if current := tx.current_key():
            return self._key(current)
        held = self._keys.read()
        key = held[0] if held else self._made()
        tx.use_key(key.id, by.event("vault.key_made", VAULT, None, {"key": key.id}))
        return key

    def _made(self) -> VaultKey:
        key = VaultKey(self._draw(KEY_BYTES))
        self._keys.add(key)
        return key

    def rotate(self, by: By, allow: Callable[[Change], None]) -> Rotation:
        """All data keys under another key.  It may be stopped at any moment and called again.

        1. under the writers' lock: the new key is durable beside the old one, then named current
        2. in batches: data keys are wrapped anew; both keys are there, so every secret opens
        3. when no secret is left under an old key: the event, and only then the old keys go

        ``allow`` raises if the actor may not.  Raises Conflict if there is nothing to do, VaultFailed
        if a secret does not open.
        """
        new = self._begin(by, allow)
        before, rewrapped = set[str](), 0
        while True:
            with self.store.change() as tx:
                some = tx.under_other_keys(new.id, REWRAP_BATCH)
                for each in some:
                    old = self._key(each.sealed.key)
                    sealed = rules.rewrap(each.id, each.version, each.sealed, old, new, self._draw)
                    tx.rewrapped(Secret(each.id, each.version, sealed, each.by, each.at))
                    before.add(old.id)
                rewrapped += len(some)
                if not some:
                    after = {"key": new.id, "secrets": rewrapped}
                    tx.tell(by.event("vault.rewrapped", VAULT, None, after))
                    break
        self._retire()
        return Rotation(tuple(sorted(before)), new.id, rewrapped)

    def _begin(self, by: By, allow: Callable[[Change], None]) -> VaultKey:
        with self.store.change() as tx:
            allow(tx)
            current = tx.current_key()
            if not current:
                raise Conflict(
                    "The vault holds no secret yet, so there is no key to rotate.",
                    remedy="exeat secret set NAME",
                )
            self._key(current)
            held = self._keys.read()
            new = held[0]
            if new.id == current:
                if tx.under_other_keys(current, 1):
                    return new  # a rotation that was stopped
                new = self._made()
            self._known = {key.id: key for key in (new, *held)}
            told = by.event("vault.key_rotated", VAULT, {"key": current}, {"key": new.id})
            tx.use_key(new.id, told)
            return new

    def _retire(self) -> None:
        """Under the writers' lock, so that no key goes that somebody has just begun to use."""
        with self.store.change() as tx:
            current = tx.current_key()
            if not tx.under_other_keys(current, 1):
                held = frozenset(key.id for key in self._keys.read())
                self._keys.drop(held - {current})


def _missing(id: SecretId) -> NotFound:
    return NotFound(f"There is no secret {id.shown}.", remedy=f"exeat secret set {id.shown}")
