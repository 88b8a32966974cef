"""`database_url`, in the environment or in exeat.toml: every verb works on that database."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from faulting.database import Database
from homes import Home
from ledger_world import World
from requirements import requirement

from exeat.storage.state import open_state

Run = Callable[..., tuple[int, str, str]]
DEFINITION = {"name": "get_time", "description": "The time.", "inputSchema": {"type": "object"}}
POLICY = '@id("may") permit(principal, action == Action::"time/get_time", resource);'
CASE = """
description: Time
cases:
  - description: the clock asks for the time
    given: {agent: clock, tool: time/get_time, arguments: {}}
    expect: {verdict: permit}
"""
READ = (
    "person list", "agent list", "agent show clock", "agent scope clock", "server list",
    "server show time", "tool list time", "tool show time/get_time", "tool diff time/get_time",
    "key list clock", "answer clock", "plan {registry}", "export", "policy versions", "policy show",
    "policy lint {policies}", "policy test {policies}",
)  # fmt: skip


@pytest.fixture(params=["exeat.toml", "EXEAT_DATABASE_URL", "exeat_database_url"])
def place(
    request: pytest.FixtureRequest, database: Database, run: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Path, str]:  # fmt: skip
    """A home without people whose setting names an empty database; and the database."""
    home, url = tmp_path / "home", database.another()
    if request.param == "exeat.toml":
        home.mkdir()
        (home / "exeat.toml").write_text(f'database_url = "{url}"\n')
    else:
        monkeypatch.setenv(request.param, url)
    monkeypatch.setenv("EXEAT_HOME", str(home))
    return home, url


@requirement("REG-1")
def test_init_founds_the_home_in_the_database(place: tuple[Path, str], run: Run) -> None:
    home, url = place
    code, _, err = run("init", "--me", "eve")
    assert code == 0, err
    assert not (home / "state.db").exists() and home.stat().st_mode & 0o777 == 0o700
    code, _, err = run("person", "add", "zoe")
    assert code == 0, err
    state = open_state(home, url)
    assert set(state.snapshot().people) == {"eve", "zoe"}
    state.close()


@requirement("REG-1", "POL-3", "REG-10")
def test_whoever_looks_sees_the_database_and_needs_no_name(
    place: tuple[Path, str], run: Run, tmp_path: Path
) -> None:
    """A second machine: a home that knows the address and nothing else."""
    home, url = place
    desk = Home(tmp_path / "desk", url)
    server = desk.server("time", command=["time-server"])
    desk.pin_all(server, [DEFINITION])
    desk.agent("clock", ["time"])
    desk.policy(POLICY)
    desk.state.close()
    policies, registry = tmp_path / "p", tmp_path / "registry.yaml"
    (policies / "cases").mkdir(parents=True)
    (policies / "time.cedar").write_text(POLICY)
    (policies / "cases" / "time.yaml").write_text(CASE)
    code, text, err = run("export")
    assert code == 0, err
    registry.write_text(text)
    for line in READ:
        code, out, err = run(*line.format(policies=policies, registry=registry).split())
        assert code == 0 and out, f"{line}: {err}"
    assert run("policy", "show")[1].startswith("version  1\n")
    assert "1 cases, 0 failed" in run("policy", "test", policies)[1]
    code, out, err = run(
        "policy", "explain", "--directory", policies, "--case", "the clock asks for the time"
    )
    assert code == 0 and "verdict  permit" in out, err
    code, _, err = run("person", "add", "zoe")
    assert code == 1 and "not known who acts" in err and "--as PERSON" in err
    assert run("person", "add", "zoe", "--as", "ada")[0] == 0
    assert not (home / "state.db").exists()


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, Callable[[], bool]]]:
    """The address of a database that a stranger names, and whether anybody came."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(0)

        def came() -> bool:
            try:
                door.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield f"postgresql://x:y@127.0.0.1:{door.getsockname()[1]}/x?connect_timeout=1", came


@requirement("EVD-4")
@pytest.mark.parametrize("verb", ["verify", "audit", "checkpoint", "show 1"])
def test_a_folder_that_somebody_gave_is_read_for_its_files_only(
    elsewhere: tuple[str, Callable[[], bool]], run: Run, tmp_path: Path, verb: str
) -> None:
    """Neither does its own setting lead anywhere …"""
    url, came = elsewhere
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "exeat.toml").write_text(f'database_url = "{url}"\n')
    code, out, err = run("evidence", *verb.split(), folder)
    assert code == 1 and not came(), out + err
    assert "Only files are read" in err and f"--home {folder}" in err


@requirement("EVD-4")
def test_the_database_in_use_says_nothing_of_a_folder(
    elsewhere: tuple[str, Callable[[], bool]],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """… nor is the database of the home in use asked about the folder's logs."""
    url, came = elsewhere
    Home(tmp_path / "theirs").state.close()
    path = tmp_path / "theirs" / "ledger" / "gw1.db"

    async def write() -> None:
        world = World(path).start()
        await world.settle(await world.decide())
        await world.ledger.close()

    anyio.run(write)
    monkeypatch.setenv("EXEAT_DATABASE_URL", url)
    code, out, err = run("evidence", "verify", tmp_path / "theirs")
    assert code == 0 and "gw1.db:" in out, out + err
    assert not came()
