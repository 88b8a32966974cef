"""The wheel, as a stranger gets it: built, installed into an empty environment, used."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from gateways import Server, environ, running
from requirements import requirement

from exeat.app.doctor.reach import ask

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
SOURCES = (
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "requirements-runtime.lock", "src", "tests",
)  # fmt: skip


def shell(argv: Sequence[object], **more: str) -> str:
    done = subprocess.run(
        [str(each) for each in argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**environ(), **more},
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what `make wheel` builds: sources, and the wheel from them; made from a copy
    with two more files of the console."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    shutil.copy(ROOT / ".gitignore", source / ".gitignore")
    static = source / "src" / "exeat" / "console" / "static"
    (static / "fonts").mkdir(parents=True, exist_ok=True)
    (static / "probe.css").write_text("body {}\n")
    (static / "fonts" / "probe.woff2").write_bytes(b"\0font")
    shell([UV, "build", "--quiet", "--no-build-isolation", "--python", sys.executable,
           "--out-dir", source / "dist", source])  # fmt: skip
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (made,) = built.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [UV, "pip", "install", "--quiet", "--python", python]
    locked = [*pip, "--require-hashes", "--requirement", ROOT / "requirements-runtime.lock"]
    more = {} if os.environ.get("SSL_CERT_FILE") else {"UV_SYSTEM_CERTS": "true"}
    try:
        shell([*locked, "--offline"])  # what bootstrap has fetched is enough
    except AssertionError:
        shell(locked, **more)
    shell([*pip, "--offline", "--no-deps", wheel])
    shell([UV, "pip", "check", "--python", python])  # the lock holds all that the wheel wants
    return folder / "bin"


@requirement("REG-1")
def test_the_wheel_holds_all_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    wanted = {
        path.relative_to(source).as_posix()
        for path in (source / "exeat").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(wanted) > 100 and wanted <= names
    assert {"exeat/console/static/probe.css", "exeat/console/static/fonts/probe.woff2"} <= names
    assert "exeat/console/static/README.txt" in wanted  # the place of the console's files
    assert not [name for name in names if name.startswith(("tests", "bench", "demo"))]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


@requirement("REG-1")
def test_the_sources_hold_what_a_wheel_is_built_from(built: Path) -> None:
    (made,) = built.glob("*.tar.gz")
    with tarfile.open(made) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "requirements-runtime.lock"} <= names
    assert "src/exeat/console/static/probe.css" in names
    assert not [name for name in names if name.startswith("tests")]


@requirement("REG-1")
def test_it_depends_on_nothing_of_the_development_tools(installed: Path) -> None:
    listed = json.loads(
        shell([UV, "pip", "list", "--python", installed / "python", "--format", "json"])
    )
    names = {each["name"] for each in listed}
    assert "exeat" in names and not names & {"pytest", "mcp", "ruff", "hypothesis"}


@requirement("REG-1")
def test_help_init_up_and_healthz(installed: Path, tmp_path: Path) -> None:
    program, home = installed / "exeat", tmp_path / "home"
    said = shell([program, "--help"])
    assert "exeat init" in said and "exeat doctor" in said
    assert "ada" in shell([program, "init", "--me", "ada", "--home", home])
    with running(Server([program, "up", "--home", home, "--port", "0"], "exeat is up: ")) as up:
        port = int(up.line.split(":")[-1].split("/")[0])
        assert ask("127.0.0.1", port) == ("ok", "ready")  # /healthz, /readyz
        assert up.stop() == 0
    asset = "importlib.resources.files('exeat.console').joinpath('static/fonts/probe.woff2')"
    said = shell(
        [installed / "python", "-c", f"import importlib.resources; print({asset}.read_bytes())"]
    )
    assert said.strip() == r"b'\x00font'"
    where = shell([installed / "python", "-c", "import exeat; print(exeat.__file__)"])
    assert str(installed.parent) in where  # the wheel's, not the sources'
    assert "0 problems" in shell([program, "doctor", "--home", home], EXEAT_PORT="0")
