"""The key that seals held calls lies in the vault: one for all gateways, made once (ID-10, APP-1)."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from registry_world import World, act
from requirements import requirement

from exeat.adapters.approval_seals import KEY, VaultSeals
from exeat.adapters.vault_keys import FileKeys, SharedFileKeys
from exeat.core.errors import Conflict, VaultFailed
from exeat.governance.secrets import rotate_key
from exeat.identity.vault.service import Vault
from exeat.storage.state import State
from exeat.storage.vault import SqlVaultChange

Reopen = Callable[[], State]


def vault_of(state: State, path: Path) -> Vault[SqlVaultChange]:
    return Vault(state.vault, FileKeys(path), os.urandom)


def seals_of(state: State, path: Path) -> VaultSeals:
    return VaultSeals(vault_of(state, path), os.urandom, act)


@requirement("ID-10", "APP-1")
def test_gateways_that_start_at_once_seal_under_one_key(reopen: Reopen, tmp_path: Path) -> None:
    states = [reopen() for _ in range(4)]
    World(states[0])
    path, start = tmp_path / "vault.key", Barrier(4)

    def seal(state: State) -> tuple[VaultSeals, bytes]:
        made = seals_of(state, path)
        start.wait()
        made.ready()
        return made, made.seal("hold:h-1", b"what is shown")

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(seal, states))
    assert len({sealed for _, sealed in made}) == 4
    for seals, _ in made:
        assert {seals.open("hold:h-1", sealed) for _, sealed in made} == {b"what is shown"}
    kinds = [each.event.kind for each in states[0].outbox.take(100)]
    assert kinds.count("secret.set") == 1
    assert kinds.count("vault.key_made") == 1


@requirement("ID-10", "APP-1")
def test_after_a_rotation_what_was_sealed_opens(state: State, tmp_path: Path) -> None:
    World(state)
    path = tmp_path / "vault.key"
    before = seals_of(state, path)
    before.ready()
    sealed = before.seal("hold:h-1", b"x")
    rotate_key(vault_of(state, path), act())
    again = seals_of(state, path)
    again.ready()
    assert again.open("hold:h-1", sealed) == b"x"


@requirement("ID-10", "APP-1")
def test_elsewhere_or_altered_it_does_not_open(state: State, tmp_path: Path) -> None:
    World(state)
    seals = seals_of(state, tmp_path / "vault.key")
    with pytest.raises(VaultFailed):
        seals.seal("hold:h-1", b"x")
    seals.ready()
    sealed = seals.seal("hold:h-1", b"x")
    for place, bad in (
        ("hold:h-2", sealed),
        ("grant:h-1", sealed),
        ("hold:h-1", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        ("hold:h-1", b""),
        ("hold:h-1", sealed[:10]),
    ):
        with pytest.raises(VaultFailed, match="do not open"):
            seals.open(place, bad)


@requirement("ID-10")
def test_without_the_vaults_key_nothing_is_held_and_the_reason_is_said(
    state: State, tmp_path: Path
) -> None:
    World(state)
    shared = SharedFileKeys(tmp_path / "vault.key")
    seals = VaultSeals(Vault(state.vault, shared, os.urandom), os.urandom, act)
    with pytest.raises(Conflict, match="cannot put a new key into"):
        seals.ready()
    with state.vault.read() as read:
        assert read.secret(KEY) is None
    made = seals_of(state, tmp_path / "other.key")
    made.ready()
    with pytest.raises(VaultFailed, match="is not in"):
        seals.ready()
