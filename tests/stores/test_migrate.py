"""``exeat migrate``: what a rollout runs before gateways of a new version start."""

import sys
from pathlib import Path

import pytest
from requirements import requirement

from exeat.app.doctor.check import Patient, Status
from exeat.app.doctor.governed import state as state_check
from exeat.app.settings import load_settings
from exeat.cli import main as command_line
from exeat.storage.state import open_state


@requirement("REG-3")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_migrate_is_safe_to_repeat_and_founds_once(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    url, home = None, tmp_path / "home"
    monkeypatch.delenv("EXEAT_DATABASE_URL", raising=False)
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").another()
        monkeypatch.setenv("EXEAT_DATABASE_URL", url)

    def migrate(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["exeat", "migrate", "--home", str(home), *arguments])
        with pytest.raises(SystemExit) as end:
            command_line.main()
        shown = capsys.readouterr()
        assert end.value.code in (0, None), shown.err
        return shown.out

    def examined() -> Status:
        (found,) = state_check(Patient(home, load_settings(home), {}))
        return found.status

    assert examined() is (Status.PROBLEM if url is None else Status.WARN)  # an empty database
    assert "first person" not in migrate()
    assert "ada is its first person" in migrate("--me", "ada")
    assert "first person" not in migrate("--me", "eve")
    assert examined() is Status.OK
    state = open_state(home, url)
    with state.registry.read() as read:
        assert [person.id for person in read.people()] == ["ada"]
    state.close()
