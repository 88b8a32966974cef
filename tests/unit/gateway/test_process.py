"""GW-5, GW-11, GW-12: a real child, supervised."""

import asyncio
import os
import re
import sys
from collections.abc import Mapping

import psutil
import pytest
from requirements import requirement

from exeat.core.errors import UpstreamFailed
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.gateway.isolation import NONE
from exeat.gateway.lines import LineFlood, LineSplitter, StderrRing
from exeat.gateway.process import StdioProcess, child_environ
from exeat.gateway.restarts import Backoff, RestartPolicy

pytestmark = pytest.mark.anyio
SECOND = 1_000_000_000
ECHO = "import sys\nfor line in sys.stdin:\n sys.stdout.write(line); sys.stdout.flush()\n"


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


class SmallProcess(StdioProcess):
    line_max_bytes = 1000
    send_buffer_max_bytes = 200_000


class Child:
    """A process with its lines and its end as awaitables."""

    def __init__(
        self,
        code: str,
        *,
        environ: Mapping[str, str] | None = None,
        kind: type[StdioProcess] = StdioProcess,
        secrets: Mapping[str, str] | None = None,
        **spec: object,
    ) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.ends: list[str] = []
        self.ended = asyncio.Event()
        command = spec.pop("command", (sys.executable, "-I", "-S", "-u", "-c", code))
        self.process = kind(
            ServerSpec(ServerId("echo"), Transport.STDIO, command=command, **spec),  # type: ignore[arg-type]
            isolation=NONE,
            environ=os.environ if environ is None else environ,
            secrets=secrets or {},
            on_line=self.lines.put_nowait,
            on_exit=self._end,
        )

    def _end(self, reason: str) -> None:
        self.ends.append(reason)
        self.ended.set()

    async def __aenter__(self) -> "Child":
        await self.process.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.process.stop(0.2)

    async def end(self) -> str:
        async with asyncio.timeout(10):
            await self.ended.wait()
        return self.ends[0]


@requirement("GW-5")
async def test_lines_go_both_ways_and_stop_says_so() -> None:
    async with Child(ECHO) as child:
        child.process.send(b'{"a":1}')
        child.process.send(b"garbage")
        assert [await child.lines.get(), await child.lines.get()] == [b'{"a":1}', b"garbage"]
        assert child.process.alive and child.process.exit_reason == ""
        assert (child.process.lines, child.process.garbage_lines) == (2, 1)
    assert not child.process.alive
    assert child.ends == ["was stopped by exeat"]


@requirement("GW-5", "GW-11")
async def test_an_exit_is_told_once_after_the_last_line_and_sends_fail_with_the_reason() -> None:
    async with Child("print('{}'); print('{1}'); raise SystemExit(3)") as child:
        assert await child.end() == "exited with status 3"
        assert child.lines.qsize() == 2
        with pytest.raises(UpstreamFailed, match="server echo is not running: it exited with stat"):
            child.process.send(b"{}")
    assert child.ends == ["exited with status 3"]


@requirement("GW-5")
async def test_death_by_signal_is_named() -> None:
    async with Child("import os; os.kill(os.getpid(), 9)") as child:
        assert await child.end() == "was ended by SIGKILL"


@requirement("GW-5")
async def test_one_that_ignores_everything_is_killed_with_what_it_started() -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(p.pid)\n"
        "while True: time.sleep(600)\n"
    )
    async with Child(code) as child:
        grandchild = int(await child.lines.get())
    assert child.ends == ["was stopped by exeat"]
    async with asyncio.timeout(10):
        while psutil.pid_exists(grandchild) and psutil.Process(grandchild).status() != "zombie":
            await asyncio.sleep(0)


@requirement("GW-5")
async def test_a_line_without_end_is_a_flood() -> None:
    code = "import sys\nprint('{}')\nwhile True: sys.stdout.write('x' * 4096)"
    async with Child(code, kind=SmallProcess) as child:
        assert await child.end() == "sent a line of more than 1000 bytes"
        assert child.lines.qsize() == 1


@requirement("GW-11")
async def test_a_child_that_does_not_read_makes_sends_fail_not_memory_grow() -> None:
    async with Child("import time; time.sleep(600)", kind=SmallProcess) as child:
        with pytest.raises(UpstreamFailed, match="server echo does not read what it is sent"):
            for _ in range(100):
                child.process.send(b"x" * 50_000)
        assert child.process.unsent_bytes <= SmallProcess.send_buffer_max_bytes


@requirement("GW-2", "GW-5")
@pytest.mark.parametrize("line", [b"{}\n{}", b"{}\n", b"{}\r{}"])
async def test_no_second_message_can_hide_in_a_line(line: bytes) -> None:
    async with Child(ECHO) as child:
        with pytest.raises(UpstreamFailed, match="holds a line end"):
            child.process.send(line)


@requirement("GW-9")
async def test_reading_can_pause_until_the_client_catches_up() -> None:
    async with Child(ECHO) as child:
        child.process.pause_reading()
        child.process.send(b"{}")
        await asyncio.sleep(0)
        assert child.lines.empty()
        child.process.resume_reading()
        assert await child.lines.get() == b"{}"


@requirement("GW-12")
async def test_the_environment_is_the_list_and_nothing_else() -> None:
    environ = {**os.environ, "SECRET_OF_GATEWAY": "x", "TOKEN": "t-1", "LC_ALL": "C", "TZ": "UTC"}
    code = "import os\nfor name in os.environ: print(name)\nprint(os.environ['TOKEN'])"
    async with Child(code, environ=environ, env={"PLAIN": "p"}, env_from=("TOKEN",)) as child:
        await child.end()
    lines = [child.lines.get_nowait().decode() for _ in range(child.lines.qsize())]
    allowed = {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "PLAIN", "TOKEN"}
    assert set(lines) - allowed == {"t-1"}
    assert {"PATH", "PLAIN", "TOKEN", "TZ"} <= set(lines)


@requirement("GW-12")
async def test_no_descriptor_is_inherited() -> None:
    readable, writable = os.pipe()
    os.set_inheritable(readable, True)
    os.set_inheritable(writable, True)
    try:
        code = "import os\nfor fd in os.listdir('/proc/self/fd'): print(fd)"
        async with Child(code) as child:
            await child.end()
    finally:
        os.close(readable)
        os.close(writable)
    seen = {int(child.lines.get_nowait()) for _ in range(child.lines.qsize())}
    assert seen <= {0, 1, 2, 3}  # 3: the listing itself


@requirement("GW-12")
async def test_stderr_is_kept_bounded_and_without_secrets() -> None:
    code = (
        "import os, sys\n"
        "for n in range(20000): print('noise', n, file=sys.stderr)\n"
        "print('key is', os.environ['TOKEN'], file=sys.stderr)\n"
    )
    environ = {**os.environ, "TOKEN": "very-secret"}
    async with Child(code, environ=environ, env_from=("TOKEN",)) as child:
        await child.end()
    tail = child.process.stderr_tail()
    assert tail.endswith("key is [redacted]") and "very-secret" not in tail
    assert 60_000 < len(tail) <= 65_536


@requirement("GW-5")
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"command": ("no-such-program",)}, "the command no-such-program was not found"),
        ({"command": ("./no/such",)}, "the command ./no/such was not found"),
        ({"command": ()}, "has no command"),
        ({"cwd": "/no/such/place"}, "which is not a directory"),
        ({"env_from": ("NOT_SET_ANYWHERE",)}, "environment variable NOT_SET_ANYWHERE"),
    ],
)
async def test_what_cannot_start_says_why_and_what_to_do(
    spec: dict[str, object], said: str
) -> None:
    child = Child(ECHO, **spec)
    with pytest.raises(UpstreamFailed, match=re.escape(said)) as caught:
        await child.process.start()
    assert caught.value.remedy
    await child.process.stop()
    assert child.ends == []


@requirement("GW-12")
def test_another_user_gets_its_own_home_and_not_the_gateways_tmpdir() -> None:
    spec = ServerSpec(ServerId("s"), Transport.STDIO)
    environ = {"HOME": "/gateway", "TMPDIR": "/gateway/tmp"}
    isolation = type(NONE)("user:bob", "", uid=1001, user_home="/home/bob")
    assert child_environ(spec, environ, isolation) == {"HOME": "/home/bob"}


@requirement("GW-5")
def test_lines_are_the_same_however_the_bytes_arrive() -> None:
    data = b'{"a":1}\r\n\n{"b":2}\nrest'
    wanted = [b'{"a":1}', b"", b'{"b":2}']
    for size in range(1, len(data)):
        splitter = LineSplitter(100)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert [line for piece in pieces for line in splitter.feed(piece)] == wanted


@requirement("GW-5")
def test_a_splitter_holds_one_line_at_most() -> None:
    splitter = LineSplitter(4)
    assert list(splitter.feed(b"1234\n12")) == [b"1234"]
    with pytest.raises(LineFlood):
        list(splitter.feed(b"345"))
    assert list(splitter.feed(b"\nnever\n")) == []


@requirement("GW-12")
def test_no_part_of_a_secret_survives_at_the_edge_of_a_long_line() -> None:
    secret = "s3cr3t-" * 8
    for offset in range(4000, 4200):
        ring = StderrRing((secret,))
        ring.feed(b"x" * offset + secret.encode() + b"y" * 9000 + b"\n", 0.0)
        assert "s3cr3t" not in ring.tail()


@requirement("GW-12")
def test_stderr_goes_to_the_log_in_a_trickle() -> None:
    ring = StderrRing(())
    assert len(ring.feed(b"line\n" * 5000, 0.0)) == 100
    assert ring.unlogged == 4900
    assert ring.feed(b"later\n", 11.0) == ["later"]


@requirement("GW-5")
def test_pauses_double_with_jitter_up_to_the_longest() -> None:
    backoff = Backoff(first_s=1, longest_s=8)
    assert [backoff.pause_ns(n, 0.0) / SECOND for n in (1, 2, 3, 4, 9)] == [0.5, 1, 2, 4, 4]
    assert backoff.pause_ns(3, 0.999) <= 4 * SECOND
    assert backoff.pause_ns(10**9, 0.5) <= 8 * SECOND


@requirement("GW-5", "GW-11")
def test_between_restarts_calls_fail_at_once_and_a_healthy_minute_forgets() -> None:
    policy = RestartPolicy(ServerId("git"), Backoff(first_s=4))
    policy.check(0)
    policy = policy.started(0).exited(SECOND, 0.0)
    with pytest.raises(
        UpstreamFailed, match="server git ended 1 time in a row and is restarting i"
    ):
        policy.check(SECOND)
    assert policy.wait_ns(SECOND) == 2 * SECOND
    policy.check(3 * SECOND)
    policy = policy.started(3 * SECOND).exited(4 * SECOND, 0.0)
    assert policy.failures == 2
    policy = policy.started(10 * SECOND).exited(71 * SECOND, 0.0)
    assert policy.failures == 1


@requirement("ID-10")
async def test_a_secret_of_the_vault_is_in_the_childs_environment_and_nowhere_else() -> None:
    code = "import os,sys; print('{}'); print('it is', os.environ['TOKEN'], file=sys.stderr)"
    async with Child(code, secrets={"TOKEN": "hush-41"}) as child:
        assert await child.end() == "exited with status 0"
        assert child.process.stderr_tail().endswith("it is [redacted]")
    assert "TOKEN" not in os.environ
