"""The container's recipe: linted, and what can run without an engine is run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from certificates import Authority
from gateways import Gateway, environ, running
from homes import Home
from requirements import requirement

ROOT = Path(__file__).parents[2]
FILE = ROOT / "packaging" / "container" / "Containerfile"
HADOLINT = ROOT / ".tools" / "packaging" / "bin" / "hadolint"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", FILE.read_text()))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]


@requirement("GW-12")
def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    if not HADOLINT.exists():
        pytest.skip("hadolint is not installed: make packaging")

    def lint(file: Path) -> subprocess.CompletedProcess[str]:
        argv = [HADOLINT, "--no-color", "--failure-threshold", "style", file]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    done = lint(FILE)
    assert done.returncode == 0, done.stdout + done.stderr
    bent = tmp_path / "Containerfile"
    bent.write_text(FILE.read_text().replace("USER 10001:10001", "USER root"))
    assert "DL3002" in lint(bent).stdout


@requirement("GW-12")
def test_stages_user_hashes_and_health() -> None:
    lines = instructions()
    stages = [n for n, (word, _) in enumerate(lines) if word == "FROM"]
    assert len(stages) == 2
    last = lines[stages[-1] :]
    words = [word for word, _ in last]
    assert ("USER", "10001:10001") in last and "HEALTHCHECK" in words and "ADD" not in words
    assert words.index("USER") > max(n for n, word in enumerate(words) if word == "RUN")
    (labels,) = [rest for word, rest in last if word == "LABEL"]
    for name in ("title", "description", "version", "licenses"):
        assert f"org.opencontainers.image.{name}=" in labels
    installs = [rest for word, rest in lines if word == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert "--require-hashes" in installs[0] and "--only-binary :all:" in installs[0]
    assert "--no-deps --no-index" in installs[1]
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = {
        w
        for word, rest in lines
        if word == "COPY" and "--from" not in rest
        for w in rest.split()[:-1]
    }
    assert copied == {line[1:] for line in ignored if line.startswith("!")}


@requirement("GW-12")
def test_the_health_check_tells_a_gateway_from_none(tmp_path: Path) -> None:
    (check,) = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    _, *argv = json.loads(check[check.index("[") :])

    def healthy(port: int, **more: str) -> bool:
        done = subprocess.run(
            [sys.executable, *argv],
            env=environ(EXEAT_PORT=str(port), **more),
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    Home(tmp_path / "home").state.close()
    with running(Gateway(tmp_path / "home")) as gateway:
        assert healthy(gateway.port)
        assert gateway.stop() == 0
        assert not healthy(gateway.port)
    certificate, key = map(str, Authority(tmp_path, "authority").issue("server"))
    with running(Gateway(tmp_path / "home", tls_certificate=certificate, tls_key=key)) as gateway:
        assert healthy(gateway.port, EXEAT_TLS_CERTIFICATE=certificate)
        assert not healthy(gateway.port)


@requirement("GW-12")
def test_the_compose_file_keeps_the_root_read_only() -> None:
    service = yaml.safe_load((FILE.parent / "compose.yaml").read_text())["services"]["exeat"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@requirement("GW-12")
def test_every_locked_package_has_a_hash_and_no_registry_is_named() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        text = lock.read_text()
        assert "://" not in text, lock.name
        for block in re.split(r"\n(?=\S)", text.strip()):
            assert re.match(r"[a-z0-9._-]+==", block) and "--hash=sha256:" in block, block
