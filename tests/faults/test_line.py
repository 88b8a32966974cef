"""The line that the tests cut: it ends in every state without a word, and hides no error."""

import logging
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulting.database import Line, open_to_all
from requirements import requirement


@contextmanager
def talking(line: Line, server: socket.socket) -> Iterator[socket.socket]:
    """A client with one answer, and one more request under way."""
    with socket.create_connection(("127.0.0.1", line.port), timeout=10) as client:
        client.sendall(b"a")
        there, _ = server.accept()
        with there:
            there.sendall(there.recv(1))
            assert client.recv(1) == b"a"
            yield client


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{place}/s")
        server.listen()
        server.settimeout(10)
        yield server


@requirement("EVD-3")
@pytest.mark.parametrize("state", ["open", "hang", "silence", "cut"])
def test_a_line_ends_without_a_word(
    state: str, server: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line(Path(server.getsockname()))
    with talking(line, server) as client:
        if state != "open":
            getattr(line, state)()
        if state != "cut":
            client.sendall(b"b")
        line.close()
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@requirement("EVD-3")
def test_an_error_of_the_line_is_shown(
    server: socket.socket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(Path(server.getsockname()))

    async def broken(*_: object) -> None:
        raise ValueError("a mistake in the relay")

    monkeypatch.setattr(line, "_copy", broken)
    with socket.create_connection(("127.0.0.1", line.port), timeout=10):
        server.accept()[0].close()
        try:
            line.close()
        except ValueError as error:
            assert "a mistake in the relay" in str(error)
            return
    assert "a mistake in the relay" in caplog.text


@requirement("EVD-3")
def test_programs_in_a_private_folder_are_known_to_be_out_of_reach(tmp_path: Path) -> None:
    """A clone in root's own home: PostgreSQL runs as another user and could not be started."""
    (tmp_path / "private" / "bin").mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    assert not open_to_all(tmp_path / "private" / "bin")
    assert open_to_all(Path("/"))
