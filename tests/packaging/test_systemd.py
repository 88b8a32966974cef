"""The systemd unit, and the word that the gateway gives to systemd."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gateways import Gateway, running
from homes import Home
from requirements import requirement

from exeat.app.doctor.reach import ask
from exeat.app.notify import notify

UNIT = Path(__file__).parents[2] / "packaging" / "systemd" / "exeat.service"
EXPOSURE_MAX = 25
"""In tenths, as `systemd-analyze security` counts; a unit without hardening has 96."""


@requirement("GW-1")
@pytest.mark.parametrize("abstract", [False, True])
def test_the_gateway_tells_when_it_is_ready_and_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"@exeat-test-{os.getpid()}" if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind("\0" + name[1:] if abstract else name)
        door.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        Home(tmp_path / "home").state.close()
        with running(Gateway(tmp_path / "home")) as gateway:
            assert door.recv(100) == b"READY=1"
            assert ask("127.0.0.1", gateway.port) == ("ok", "ready")
            assert gateway.stop() == 0
            assert door.recv(100) == b"STOPPING=1"


@requirement("GW-1")
def test_without_systemd_or_with_a_dead_socket_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("", "relative", str(tmp_path / "nobody"), "@nobody-listens-here"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """With a program that exists here, which is what `verify` looks for."""
    program = Path(sys.executable).with_name("exeat")
    text, count = re.subn(r"(?m)^ExecStart=\S+ up$", f"ExecStart={program} up", UNIT.read_text())
    assert count == 1
    path = tmp_path / "exeat.service"
    path.write_text(text)
    return path


@requirement("GW-12")
def test_systemd_understands_every_line(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "exeat" in line]
    assert done.returncode == 0 and ours == [], done.stderr
    unit.write_text(unit.read_text().replace("ProtectClock=yes", "ProtectKlock=yes"))
    assert "ProtectKlock" in analyze("verify", "--man=no", str(unit)).stderr


@requirement("GW-12")
def test_the_service_is_confined(unit: Path) -> None:
    done = analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", str(unit))
    assert done.returncode == 0, done.stdout[-600:] + done.stderr
    bare = unit.with_name("bare.service")
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", str(bare)).returncode
