"""The vault on every database: sealed rows, who may change them, and rotation that may be stopped (ID-10)."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from registry_world import ADA, BOB, World, act
from requirements import requirement

from exeat.core.errors import Conflict, Invalid, NotFound, VaultFailed
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.core.secret import TENANT, SecretId
from exeat.governance.secrets import remove_secret, rotate_key, set_secret
from exeat.identity.vault import service
from exeat.identity.vault.model import VaultKey
from exeat.identity.vault.service import Vault
from exeat.storage.schema_vault import secrets as rows
from exeat.storage.state import State
from exeat.storage.vault import SqlVaultChange

Reopen = Callable[[], State]
VALUE = b"hush-hush, this is a value"


class Keys:
    """Keys in memory that outlive the process, as a file does."""

    name = "the test's keys"

    def __init__(self) -> None:
        self.held: tuple[VaultKey, ...] = ()

    def read(self) -> tuple[VaultKey, ...]:
        return self.held

    def add(self, key: VaultKey) -> None:
        self.held = (key, *self.held)

    def drop(self, keys: frozenset[str]) -> None:
        self.held = tuple(key for key in self.held if key.id not in keys)


def draw() -> Callable[[int], bytes]:
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def named(name: str = "github", server: str = "", agent: str = "") -> SecretId:
    return SecretId(TENANT, agent, server, name)


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def vault(state: State, keys: Keys) -> Vault[SqlVaultChange]:
    World(state)
    return Vault(state.vault, keys, draw())


def raw(state: State) -> list[tuple[object, ...]]:
    with state._engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(rows).order_by(rows.c.name))]


def events(state: State) -> list[str]:
    return [each.event.kind for each in state.outbox.take(1000)]


@requirement("ID-10")
def test_another_process_opens_what_was_set(reopen: Reopen, keys: Keys) -> None:
    first = reopen()
    World(first)
    set_secret(Vault(first.vault, keys, draw()), named(), VALUE, act())
    assert Vault(reopen().vault, keys, draw()).get(named()) == VALUE


@requirement("ID-10")
def test_the_event_names_the_secret_and_says_nothing_of_its_value(
    state: State, keys: Keys, vault: Vault[SqlVaultChange]
) -> None:
    kept = set_secret(vault, named(), VALUE, act())
    told = {each.event.kind: each.event for each in state.outbox.take(1000)}
    assert told["vault.key_made"].after == {"key": keys.held[0].id}
    assert told["secret.set"].subject == "secret:github"
    assert told["secret.set"].after == {
        "name": "github", "server": "", "agent": "", "version": 1, "key": kept.sealed.key,
    }  # fmt: skip
    assert b"hush" not in repr(raw(state)).encode() and "hush" not in repr(kept)


@requirement("ID-10", "REG-3")
def test_no_event_no_secret(state: State, vault: Vault[SqlVaultChange]) -> None:
    before = events(state)
    with pytest.raises(NotFound):
        set_secret(vault, named(server="nowhere"), VALUE, act())
    with pytest.raises(Invalid):
        set_secret(vault, named(), b"", act())
    with pytest.raises(RuntimeError), vault.store.change() as tx:
        vault.put_in(tx, named(), VALUE, act())
        raise RuntimeError
    assert raw(state) == [] and events(state) == before


@requirement("ID-10")
@pytest.mark.parametrize(
    ("verb", "says"), [("set", "set secrets"), ("remove", "remove"), ("rotate", "rotate")]
)
def test_it_takes_an_admin(vault: Vault[SqlVaultChange], verb: str, says: str) -> None:
    set_secret(vault, named(), VALUE, act())
    with pytest.raises(Conflict, match=f"bob may not {says}"):
        if verb == "set":
            set_secret(vault, named(), b"other", act(BOB))
        elif verb == "remove":
            remove_secret(vault, named(), act(BOB))
        else:
            rotate_key(vault, act(BOB))
    assert vault.get(named()) == VALUE


@requirement("ID-10")
@pytest.mark.parametrize("moved", ["name", "agent", "upstream", "tenant", "version"])
def test_a_row_that_was_copied_to_another_place_does_not_open(
    state: State, vault: Vault[SqlVaultChange], moved: str
) -> None:
    vault.put(named(), VALUE, act())
    to = 2 if moved == "version" else "git"
    with state._engine.begin() as connection:
        connection.execute(rows.update().values({moved: to}))
    there = named() if moved == "version" else replace(named(), **{moved: "git"})
    with pytest.raises(VaultFailed, match="does not open"):
        vault.get(there)


@requirement("ID-10")
def test_parts_of_two_rows_do_not_make_a_third(state: State, vault: Vault[SqlVaultChange]) -> None:
    vault.put(named("one"), b"first", act())
    vault.put(named("two"), b"second", act())
    body = rows.c.body
    with state._engine.begin() as connection:
        one = connection.execute(sa.select(body).where(rows.c.name == "one")).scalar_one()
        connection.execute(rows.update().where(rows.c.name == "two").values(body=one))
    with pytest.raises(VaultFailed):
        vault.get(named("two"))


@requirement("ID-10")
def test_the_most_particular_counts(state: State, vault: Vault[SqlVaultChange]) -> None:
    World.active(_world(state))
    set_secret(vault, named(), b"any", act())
    set_secret(vault, named(server="git"), b"git", act())
    assert vault.find("bot", "git", "github") == b"git"
    set_secret(vault, named(agent="bot"), b"bot", act())
    set_secret(vault, named(server="git", agent="bot"), b"bot at git", act())
    found = [
        vault.find(*at, "github") for at in (("bot", "git"), ("bot", "x"), ("", "git"), ("", "x"))
    ]
    assert found == [b"bot at git", b"bot", b"git", b"any"]
    with pytest.raises(NotFound, match="There is no secret gitlab"):
        vault.find("bot", "git", "gitlab")


def _world(state: State) -> World:
    world = World.__new__(World)
    world.state = state
    from exeat.registry.service import Registry

    world.registry = Registry(state.registry, draw())
    return world


@requirement("ID-10")
def test_a_secret_that_a_server_needs_stays(state: State, vault: Vault[SqlVaultChange]) -> None:
    spec = ServerSpec(
        ServerId("web"), Transport.HTTP, url="http://h/", headers_secret={"X-Key": "github"}
    )
    _world(state).registry.add_server(spec, ADA, 0, [], act())
    set_secret(vault, named(), VALUE, act())
    with pytest.raises(Conflict, match="Server web needs secret github"):
        remove_secret(vault, named(), act())
    set_secret(vault, named(server="web"), VALUE, act())
    remove_secret(vault, named(), act())
    with pytest.raises(Conflict):
        remove_secret(vault, named(server="web"), act())
    with pytest.raises(Invalid, match="cannot be sent in a header"):
        set_secret(vault, named(server="web"), b"two\r\nX-Other: lines", act())
    assert vault.find("", "web", "github") == VALUE


@requirement("ID-10")
def test_the_snapshot_tells_of_every_new_value_and_of_none_that_exeat_keeps(
    reopen: Reopen, keys: Keys
) -> None:
    state, other = reopen(), reopen()
    World(state)
    vault = Vault(state.vault, keys, draw())
    assert other.snapshot().secrets == {}
    set_secret(vault, named(), VALUE, act(at=5))
    first = other.snapshot()
    assert first.secrets == {named(): (1, 5)}
    vault.put(named("oauth:git/refresh"), VALUE, act())
    assert other.snapshot() is first
    set_secret(vault, named(), VALUE, act(at=6))
    assert other.snapshot().secrets == {named(): (2, 6)}
    rotate_key(vault, act())
    assert other.snapshot().secrets == {named(): (2, 6)}
    remove_secret(vault, named(), act())
    assert other.snapshot().secrets == {}
    set_secret(vault, named(), VALUE, act(at=7))
    assert other.snapshot().secrets == {named(): (1, 7)}
    with pytest.raises(Conflict, match="kept by exeat itself"):
        set_secret(vault, named("oauth:git/refresh"), VALUE, act())


@requirement("ID-10")
def test_rotation_wraps_anew_and_leaves_every_ciphertext(
    state: State, keys: Keys, vault: Vault[SqlVaultChange]
) -> None:
    for number in range(service.REWRAP_BATCH + 5):
        vault.put(named(f"s{number}"), b"%d" % number, act())
    before, old = vault.names(), keys.held[0]
    done = rotate_key(vault, act())
    after = vault.names()
    assert (done.before, done.rewrapped) == ((old.id,), len(before))
    assert [each.sealed.body for each in after] == [each.sealed.body for each in before]
    assert {each.sealed.key for each in after} == {done.after}
    assert not {e.sealed.wrapped for e in after} & {e.sealed.wrapped for e in before}
    assert [key.id for key in keys.held] == [done.after]
    assert Vault(state.vault, keys, draw()).get(named("s7")) == b"7"
    told = [each.event for each in state.outbox.take(1000) if "vault." in each.event.kind]
    assert [each.kind for each in told][1:] == ["vault.key_rotated", "vault.rewrapped"]
    assert told[1].before == {"key": old.id} and told[1].after == {"key": done.after}
    assert told[2].after == {"key": done.after, "secrets": len(before)}


@requirement("ID-10")
def test_two_rotations_at_once_lose_no_key(state: State, keys: Keys) -> None:
    """The second begins when the first has wrapped everything and not yet dropped the old key."""
    World(state)
    random = draw()
    vault, other = (Vault(state.vault, keys, random) for _ in range(2))
    vault.put(named(), VALUE, act())
    drop = vault._retire

    def late() -> None:
        other._begin(act(), lambda tx: None)
        drop()

    vault._retire = late  # type: ignore[method-assign]
    rotate_key(vault, act())
    assert Vault(state.vault, keys, draw()).get(named()) == VALUE
    done = rotate_key(other, act())
    assert [key.id for key in keys.held] == [done.after]
    assert Vault(state.vault, keys, draw()).get(named()) == VALUE


class Stopped(Exception):
    pass


@requirement("ID-10")
@pytest.mark.parametrize("step", range(1, 8))
def test_rotation_that_is_stopped_anywhere_opens_everything_and_goes_on(
    state: State, keys: Keys, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Stopped before or after any transaction, or between the key file and the database."""
    World(state)
    monkeypatch.setattr(service, "REWRAP_BATCH", 2)
    vault = Vault(state.vault, keys, draw())
    for number in range(5):
        vault.put(named(f"s{number}"), b"%d" % number, act())
    left = itertools.count(1)
    wrapped = keys.add, keys.drop, state.vault.change

    def stop() -> None:
        if next(left) == step:
            raise Stopped

    def add(key: VaultKey) -> None:
        wrapped[0](key)
        stop()  # the file is written, the transaction does not end

    def change():  # type: ignore[no-untyped-def]
        stop()
        return wrapped[2]()

    monkeypatch.setattr(keys, "add", add)
    monkeypatch.setattr(state.vault, "change", change)
    with pytest.raises(Stopped):
        rotate_key(vault, act())
    monkeypatch.setattr(keys, "add", wrapped[0])
    monkeypatch.setattr(state.vault, "change", wrapped[2])
    fresh = Vault(state.vault, keys, draw())
    assert [fresh.get(named(f"s{n}")) for n in range(5)] == [b"%d" % n for n in range(5)]
    fresh.put(named("s9"), b"meanwhile", act())
    done = rotate_key(fresh, act())
    again = Vault(state.vault, keys, draw())
    assert {each.sealed.key for each in again.names()} == {done.after}
    assert [again.get(named(f"s{n}")) for n in (0, 4, 9)] == [b"0", b"4", b"meanwhile"]
    assert [key.id for key in keys.held] == [done.after]


@requirement("ID-10")
def test_a_gateway_that_knew_the_old_key_seals_under_the_new_one(
    reopen: Reopen, keys: Keys
) -> None:
    state = reopen()
    World(state)
    gateway, desk = Vault(reopen().vault, keys, draw()), Vault(state.vault, keys, draw())
    gateway.put(named("oauth:a"), b"old", act())
    assert gateway.get(named("oauth:a")) == b"old"
    done = rotate_key(desk, act())
    assert gateway.put(named("oauth:b"), b"new", act()).sealed.key == done.after
    assert [gateway.get(named(f"oauth:{n}")) for n in "ab"] == [b"old", b"new"]


@requirement("ID-10")
def test_without_its_key_nothing_opens_and_none_is_made(
    state: State, keys: Keys, vault: Vault[SqlVaultChange]
) -> None:
    vault.put(named(), VALUE, act())
    key, keys.held = keys.held[0], ()
    fresh = Vault(state.vault, keys, draw())
    for verb in (
        lambda: fresh.get(named()),
        lambda: fresh.put(named("other"), b"x", act()),
        lambda: rotate_key(fresh, act()),
    ):
        with pytest.raises(VaultFailed, match=f"{key.id} is not in the test's keys"):
            verb()
    assert keys.held == ()


@requirement("ID-10")
def test_there_is_nothing_to_rotate(vault: Vault[SqlVaultChange]) -> None:
    with pytest.raises(Conflict, match="no secret yet"):
        rotate_key(vault, act())
