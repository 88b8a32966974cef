"""The fuzzing targets under hypothesis; and under atheris, for EXEAT_FUZZ_S seconds, if it is there."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from fuzz.fuzz_edge import TARGETS, one
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

_WORDS = st.sampled_from(
    [b"POST /mcp HTTP/1.1\r\n", b"Host: a\r\n", b"content-length: 3\r\n", b"\r\n", b"abc", b"{", b"}", b":",
     b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b'"id"', b"1", b",", b'"result"',
     b'"jsonrpc":"2.0"', b'"method":"tools/call"', b'"params"', b'"_meta"', b"[", b"]", b'"\\u', b"\\",
     b"data: ", b"\n", b"\r", b"\xff", b"id: 1", b"HTTP/1.1 200 OK\r\n", b'"resultType":"complete"']
)  # fmt: skip


@requirement("GW-14", "GW-2", "GW-11")
@given(
    st.integers(0, len(TARGETS) - 1),
    st.lists(_WORDS | st.binary(max_size=4), max_size=14).map(b"".join),
)
def test_no_bytes_from_outside_make_it_fail(target: int, data: bytes) -> None:
    one(bytes([target]) + b"\x07" + data)


@requirement("GW-14")
def test_atheris_finds_nothing() -> None:
    seconds = os.environ.get("EXEAT_FUZZ_S", "")
    if not seconds or importlib.util.find_spec("atheris") is None:
        one(b"\x00\x07GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n")
        return
    script = Path(__file__).with_name("fuzz_edge.py")
    run = subprocess.run(
        [sys.executable, str(script), f"-max_total_time={seconds}"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
