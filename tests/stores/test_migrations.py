"""From any version of the tables to any other, with data in them, on both databases (REG-3, EVD-3)."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa
from ledger_places import Place
from registry_world import BOT, World, act
from requirements import requirement

from exeat.core.errors import Invalid, StateUnavailable
from exeat.evidence.note import Checkpoint, Signer
from exeat.evidence.roots import sign_root
from exeat.evidence.store import Row, pack_leaves
from exeat.storage.migrations import LATEST, MIGRATIONS
from exeat.storage.state import _engine, move_schema, open_state

FIRST_TABLES = ("agents", "keys", "outbox", "people", "policies", "servers", "tools")


def contents(state: Any) -> dict[str, list[Any]]:
    with state._engine.connect() as connection:
        return {
            name: sorted(map(repr, connection.execute(sa.text(f"SELECT * FROM {name}"))))
            for name in FIRST_TABLES
        }


def filled(place: Place) -> Any:
    state = open_state(place.folder, place.url)
    world = World(state)
    world.active()
    world.registry.issue_key(BOT, None, 60, act())
    world.registry.apply_policy({"a.cedar": "permit(principal,action,resource);"}, "ada", act())
    return state


@requirement("REG-3")
@pytest.mark.parametrize("back_to", range(1, LATEST))
def test_back_and_forth_loses_no_change(place: Place, back_to: int) -> None:
    state = filled(place)
    before, snapshot = contents(state), state.snapshot()
    state.close()
    url = place.url
    assert move_schema(place.folder, url, back_to) == (LATEST, back_to)
    assert move_schema(place.folder, url, None) == (back_to, back_to)
    again = open_state(place.folder, url)
    assert contents(again) == before
    assert again.snapshot() == snapshot
    assert move_schema(place.folder, url, None) == (LATEST, LATEST)
    again.close()


@requirement("EVD-3", "EVD-1")
def test_going_back_drops_no_evidence(place: Place) -> None:
    state, url = filled(place), place.url
    root = sign_root(
        None, (Checkpoint("exeat/gw1", 1, b"r" * 32),), 1, Signer("exeat/gw1", b"s" * 32)
    )
    state.roots.keep(root)
    store = place.store()
    rows = [
        Row(0, 1, pack_leaves([b"a"]), b"s", b"f" * 32),
        Row(1, 1, pack_leaves([b"b"]), b"s", b"f" * 32),
    ]
    store.open()
    for row in rows:
        store.append(row, (), None)
    store.close()
    move_schema(place.folder, url, 1)
    move_schema(place.folder, url, LATEST)
    assert list(state.roots.all()) == [root]
    assert list(place.reader().rows()) == rows
    state.close()


@requirement("EVD-3")
def test_going_back_waits_for_what_is_just_being_written(shared: Place) -> None:
    """A row that is not committed when it looks is committed when it would drop the table."""
    import psycopg

    assert shared.url is not None
    filled(shared).close()
    with (
        psycopg.connect(shared.url) as writer,
        psycopg.connect(shared.url, autocommit=True) as watch,
        ThreadPoolExecutor(1) as aside,
    ):
        writer.execute("INSERT INTO ledger_batches VALUES ('exeat/gw1', 0, 1, 'l', 's', 'f')")
        back = aside.submit(move_schema, shared.folder, shared.url, 1)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while not back.done() and watch.execute(waits).fetchone() == (0,):
            time.sleep(0.005)
        writer.commit()
        back.result(30)
        found = watch.execute("SELECT count(*) FROM ledger_batches").fetchone()
    assert found == (1,)


@requirement("REG-3")
def test_going_back_leaves_only_the_tables_of_that_version(place: Place) -> None:
    filled(place).close()
    url = place.url
    move_schema(place.folder, url, 1)
    engine = _engine(place.folder, url)
    tables = set(sa.inspect(engine).get_table_names()) - {"sqlite_sequence"}
    engine.dispose()
    assert tables == {*FIRST_TABLES, "state"}


@requirement("REG-3")
def test_a_version_that_is_none_is_refused_and_changes_nothing(place: Place) -> None:
    filled(place).close()
    url = place.url
    for wanted in (0, LATEST + 1):
        with pytest.raises(Invalid, match="no schema version"):
            move_schema(place.folder, url, wanted)
    assert move_schema(place.folder, url, None) == (LATEST, LATEST)


@requirement("REG-3")
def test_a_step_that_fails_leaves_the_version_before(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(place).close()
    url = place.url
    move_schema(place.folder, url, 1)

    class Broken:
        def __getitem__(self, wanted: slice) -> Any:
            steps = MIGRATIONS[wanted]
            return (
                (
                    *steps[:-1],
                    type(steps[-1])(
                        lambda tx: tx.execute(sa.text("SELECT 1/0, no")), steps[-1].down
                    ),
                )
                if steps
                else ()
            )

    monkeypatch.setattr("exeat.storage.migrations.MIGRATIONS", Broken())
    with pytest.raises(StateUnavailable):
        open_state(place.folder, url)
    monkeypatch.undo()
    assert move_schema(place.folder, url, None) == (1, 1)
    open_state(place.folder, url).close()


@requirement("REG-3")
def test_gateways_that_start_together_migrate_once(place: Place) -> None:
    filled(place).close()
    url = place.url
    move_schema(place.folder, url, 1)
    said: list[Any] = []

    def start() -> None:
        try:
            open_state(place.folder, url).close()
            said.append(None)
        except Exception as error:
            said.append(error)

    threads = [Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [None] * 4


@requirement("REG-3")
def test_a_home_that_the_first_release_made_goes_on(place: Place) -> None:
    """Its tables, statement by statement as that release wrote them."""
    url = place.url
    engine = _engine(place.folder, url)
    frozen = Path(__file__).with_name(f"schema_1.{engine.dialect.name}.sql").read_text()
    with engine.begin() as tx:
        if place.url is not None:  # the place made newer ones
            tx.execute(sa.text("DROP SCHEMA public CASCADE"))
            tx.execute(sa.text("CREATE SCHEMA public"))
        for statement in frozen.partition("\n")[2].split(";\n"):
            if statement.strip():
                tx.execute(sa.text(statement))
    engine.dispose()
    assert move_schema(place.folder, url, None) == (1, 1)
    state = filled(place)
    assert state.snapshot().agents[BOT].lifecycle == "active"
    before = contents(state)
    state.close()
    assert move_schema(place.folder, url, 1) == (LATEST, 1)
    old = _engine(place.folder, url)
    with old.connect() as connection:
        for table in FIRST_TABLES:
            found = connection.execute(sa.text(f"SELECT * FROM {table}"))
            assert sorted(map(repr, found)) == before[table]
    old.dispose()
