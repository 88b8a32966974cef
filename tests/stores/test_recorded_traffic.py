"""Traffic of several gateways is replayed from files and from PostgreSQL alike (POL-6)."""

import pytest
from ledger_places import Place
from recorded_home import ALL, RecordedHome
from requirements import requirement

from exeat.cli.traffic import Traffic
from exeat.policy.bundle import compile_bundle
from exeat.policy.replay import replay

READS = '@id("reads") permit(principal, action in Action::"effect:read", resource);'


@requirement("POL-6")
def test_every_gateways_log_is_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXEAT_HOME", raising=False)
    if place.url is not None:
        monkeypatch.setenv("EXEAT_DATABASE_URL", place.url)
    home = RecordedHome(place.folder, ALL, place.url)
    write = ("fs/write", {"path": "/w/a", "content": "x"})
    for instance in ("gw1", "gw2"):
        home.record(
            [("bank/balance", {}), write], instance=instance, store=place.store(f"exeat/{instance}")
        )
    known = home.state.snapshot()
    home.policy(READS)
    policy = home.state.snapshot().policy
    pdp = compile_bundle(policy, known.tools, known.servers, people=known.people)
    traffic = Traffic(place.folder, known, 0, None)
    found = replay(pdp, traffic.decisions())
    assert (found.decided, dict(found.moves)) == (4, {"permit → deny": 2})
    assert {change.before.id.rpartition("-")[0] for change in found.changes} == {"gw1", "gw2"}
    assert len(list(Traffic(place.folder, known, 0, "bot").used())) == 4
    assert [told.verdict for told in traffic.told()] == ["permit"] * 4
    home.state.close()
