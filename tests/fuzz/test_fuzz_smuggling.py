"""A short run of `make fuzz-edge`: mutated HTTP against the edge and the pool, two readers beside them."""

import os
import sys
from pathlib import Path

import pytest
from fuzz.oracle import CHECKS, Found
from requirements import requirement

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from fuzz_edge import Run

EXECUTIONS = int(os.environ.get("EXEAT_FUZZ_EXECUTIONS", "15000"))


@requirement("GW-14", "GW-13", "GW-2")
def test_a_run_of_mutations_finds_nothing(tmp_path: Path) -> None:
    run = Run(seed=20_261_124, folder=tmp_path)
    for _ in range(EXECUTIONS):
        run.one()
    assert run.findings == {}


@requirement("GW-14")
def test_the_readers_see_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An edge that believes the length where chunks are announced too is found out, and kept."""
    import exeat.gateway.http1 as http1

    honest = http1._framing

    def lenient(fields: dict[str, str], absent: int) -> int:
        return honest({k: v for k, v in fields.items() if k != "transfer-encoding"}, absent)

    monkeypatch.setattr(http1, "_framing", lenient)
    with pytest.raises(Found):
        CHECKS["responses"](
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n"
        )
    run = Run(seed=1, folder=tmp_path)
    for _ in range(3000):
        run.one()
    assert run.findings
    assert {path.suffix for path in tmp_path.iterdir()} == {".bin", ".txt"}


@requirement("GW-14")
def test_an_execution_is_always_the_same(tmp_path: Path) -> None:
    pools = [Run(seed=7, folder=tmp_path) for _ in range(2)]
    for run in pools:
        for _ in range(500):
            run.one()
    assert pools[0].pools == pools[1].pools
