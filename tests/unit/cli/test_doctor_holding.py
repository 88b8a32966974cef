"""Where no call can be held, doctor and gateway say so before the first one is denied for it (APP-4)."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from faulting.database import Database
from gateways import Gateway, denied, running, text
from offices import Office
from requirements import requirement

from exeat.app.doctor.check import Finding, Status
from exeat.app.doctor.examine import examine
from exeat.identity.vault.model import VaultKey

WORDS = "calls that wait for people are denied (approvals_unavailable)"


def look(home: Path) -> Finding:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXEAT_")}
    return {each.id: each for each in examine(home, kept)}["approvals"]


@requirement("APP-4")
@pytest.mark.long
def test_holding_on_a_shared_database_needs_a_key_that_somebody_makes(
    database: Database, tmp_path: Path
) -> None:
    with closing(Office(tmp_path, database.url)) as office:
        home = office.home.path
        settings = f'port = 0\nhold_wait_s = 0\ndatabase_url = "{database.url}"\n'
        (home / "exeat.toml").write_text(settings)

        def pays() -> tuple[dict[str, Any], str]:
            with running(Gateway(home)) as gateway:
                answer = office.wire(gateway).call("pay", amount=500, to="bob")
                assert gateway.stop() == 0
                return answer, gateway.output

        found = look(home)
        assert found.status is Status.WARN and "approvals_unavailable" in found.says
        assert "approved_by_owner" in found.says and "no key in the file" in found.says
        assert "openssl rand -base64 32" in found.remedy and "vault_key_env" in found.remedy
        answer, said = pays()
        assert denied(answer) == "approvals_unavailable"
        assert said.count(WORDS) == 1 and "vault_key_command" in said
        (home / "keys" / "vault.key").touch(0o600)
        (home / "keys" / "vault.key").write_text(VaultKey(os.urandom(32)).text())
        assert look(home).status is Status.OK
        answer, said = pays()
        assert "Held by exeat" in text(answer) and WORDS not in said
        office.apply('@id("all") permit(principal, action, resource);')
        (home / "keys" / "vault.key").unlink()
        assert "asks people" in look(home).says
        with running(Gateway(home)) as gateway:
            assert gateway.stop() == 0 and WORDS not in gateway.output
