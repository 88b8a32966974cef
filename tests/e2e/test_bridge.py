"""GW-6: `exeat bridge`, driven by the official SDK against an official SDK server, and through
every kind of trouble against a scripted gateway."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.client.stdio import StdioServerParameters
from mcp_types import ElicitRequestParams, ElicitResult
from requirements import requirement

from exeat.core.errors import Invalid
from exeat.gateway.bridge import Bridge
from exeat.gateway.bridge_door import Address, Door, check_address
from exeat.gateway.bridge_stdio import LineWriter

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent
MODERN = "2026-07-28"


@pytest.fixture(scope="module", params=["events", "json"])
def reference(request: pytest.FixtureRequest) -> Iterator[str]:
    argv = [sys.executable, str(HERE / "bridge_reference_server.py"), f"--{request.param}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/mcp"
        process.kill()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.key"
    path.touch(0o600)
    path.write_text("k-123\n")
    return path


def command(url: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "exeat.cli.bridge", url, *options]


def through(url: str, key_file: Path, mode: str, **options: Any) -> Client:
    argv = command(url, "--key-file", str(key_file))
    return Client(StdioServerParameters(command=argv[0], args=argv[1:]), mode=mode, **options)


async def _ada(_: ClientRequestContext, __: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept", content={"name": "Ada"})


@requirement("GW-4", "GW-6", "GW-9")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_official_client_does_its_work(reference: str, key_file: Path, mode: str) -> None:
    async with through(reference, key_file, mode, elicitation_callback=_ada) as client:
        assert (client.protocol_version == MODERN) == (mode == "auto")
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"add", "place", "greet"} <= names
        added = await client.call_tool("add", {"a": 2, "b": 3})
        assert added.content[0].text == "5"  # type: ignore[union-attr]
        placed = await client.call_tool("place", {"region": "Zürich, süd"})
        assert placed.content[0].text == "placed in Zürich, süd"  # type: ignore[union-attr]
        long = await client.call_tool("text", {"size": 3_000_000})
        assert len(long.content[0].text) == 3_000_000  # type: ignore[union-attr]
        read = await client.read_resource("note://b%C3%A4r")
        assert read.contents[0].text.startswith("note b")  # type: ignore[union-attr]
        prompt = await client.get_prompt("ask", {"topic": "MCP"})
        assert prompt.messages[0].content.text == "tell me about MCP"  # type: ignore[union-attr]
        with pytest.raises(MCPError):
            await client.read_resource("nothing://there")


@requirement("GW-6")
@pytest.mark.parametrize("reference", ["events"], indirect=True)
async def test_a_legacy_server_can_ask_the_person(reference: str, key_file: Path) -> None:
    async with through(reference, key_file, "legacy", elicitation_callback=_ada) as client:
        greeted = await client.call_tool("greet", {})
        assert greeted.content[0].text == "hello Ada"  # type: ignore[union-attr]


@requirement("GW-6", "GW-9")
@pytest.mark.parametrize("reference", ["events"], indirect=True)  # JSON: it notices no closing
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_cancelling_reaches_the_server(reference: str, key_file: Path, mode: str) -> None:
    async with through(reference, key_file, mode) as client:
        before = int((await client.call_tool("waits_ended", {})).content[0].text)  # type: ignore[union-attr]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.call_tool("wait", {})
        async with asyncio.timeout(5):
            while True:
                ended = await client.call_tool("waits_ended", {})
                if int(ended.content[0].text) > before:  # type: ignore[union-attr]
                    break


@requirement("GW-6")
async def test_a_wrong_key_is_said_so_and_never_shown(reference: str, tmp_path: Path) -> None:
    environ = {**os.environ, "EXEAT_KEY": "k-wrong-key"}
    done = await asyncio.to_thread(
        subprocess.run,
        command(reference),
        input=b'{"jsonrpc":"2.0","id":"a","method":"initialize","params":{}}\n',
        capture_output=True,
        env=environ,
        timeout=20,
    )
    answer = json.loads(done.stdout)
    assert answer["id"] == "a" and "HTTP 401" in answer["error"]["message"]
    assert b"k-wrong-key" not in done.stdout + done.stderr


# A scripted gateway, and a client that is two queues.


class Asked:
    """One HTTP request as the scripted gateway saw it."""

    def __init__(self, verb: str, headers: dict[str, str], body: bytes, to: asyncio.StreamWriter):
        self.verb, self.headers, self.to = verb, headers, to
        self.message: dict[str, Any] = json.loads(body) if body else {}
        self.method: str = self.message.get("method", "")

    async def say(
        self, status: int, body: bytes = b"", media: str = "application/json", **more: str
    ) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", f"Content-Type: {media}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
        self.to.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        await self.to.drain()

    async def result(self, result: object, **more: str) -> None:
        answer = {"jsonrpc": "2.0", "id": self.message["id"], "result": result}
        await self.say(200, json.dumps(answer).encode(), **more)


Script = Callable[[Asked], Awaitable[None]]


class Gateway:
    def __init__(self, script: Script) -> None:
        self.script, self.asked = script, list[Asked]()
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def methods(self) -> list[str]:
        return [asked.method or asked.verb for asked in self.asked]

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = (line.partition(": ") for line in head[1:] if line)
            headers = {name.lower(): value for name, _, value in fields}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            asked = Asked(head[0].split(" ")[0], headers, body, writer)
            self.asked.append(asked)
            await self.script(asked)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Sink:
    """Stands for the client's end of stdout."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._held = b""

    def write(self, data: memoryview) -> int:
        *lines, self._held = (self._held + bytes(data)).split(b"\n")
        for line in lines:
            self.loop.call_soon_threadsafe(self.lines.put_nowait, line)
        return len(data)


class World:
    """A bridge between a scripted gateway and a client of two queues."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.said: list[str] = []
        self.sink = Sink()
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def _lines(self) -> AsyncIterator[bytes]:
        while (line := await self._input.get()) is not None:
            yield line

    def send(self, method: str, request_id: object = None, **params: Any) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if request_id is not None:
            message["id"] = request_id
        self._input.put_nowait(json.dumps(message).encode())

    async def heard(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            answer: dict[str, Any] = json.loads(await self.sink.lines.get())
        return answer

    async def shake_hands(self) -> None:
        self.send("initialize", 0, protocolVersion="2025-11-25")
        assert "result" in await self.heard()
        self.send("notifications/initialized")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        bridge = Bridge(
            Door(Address(self.gateway.url, "k")),
            LineWriter(self.sink),  # type: ignore[arg-type]
            self.said.append,
        )
        task = asyncio.create_task(bridge.run(self._lines()))
        try:
            yield self
        finally:
            self._input.put_nowait(None)
            await task


@asynccontextmanager
async def world(script: Script) -> AsyncIterator[World]:
    gateway = Gateway(script)
    await gateway.open()
    try:
        async with World(gateway).running() as running:
            yield running
    finally:
        await gateway.close()


class LegacyScript:
    """Sessions s1, s2, …; only the newest is known.  ``forget`` = the gateway was restarted."""

    def __init__(self) -> None:
        self.session = 0

    def forget(self) -> None:
        self.session += 100

    async def __call__(self, asked: Asked) -> None:
        if asked.method == "initialize":
            self.session += 1
            await asked.result({"protocolVersion": "2025-11-25"}, Mcp_Session_Id=f"s{self.session}")
        elif asked.headers.get("mcp-session-id") != f"s{self.session}":
            await asked.say(404)
        elif asked.verb != "POST":
            await asked.say(405)
        elif asked.method == "tools/call" and asked.message["params"]["name"] == "break":
            asked.to.close()
        elif "id" in asked.message and asked.method:
            await asked.result({"session": self.session})
        else:
            await asked.say(202)


@requirement("GW-6", "GW-13")
async def test_the_session_and_the_version_go_with_every_message_and_end_with_it() -> None:
    async with world(LegacyScript()) as w:
        await w.shake_hands()
        w.send("ping", 1)
        await w.heard()
    later = [asked for asked in w.gateway.asked if asked.method != "initialize"]
    assert {asked.headers["mcp-session-id"] for asked in later} == {"s1"}
    assert {asked.headers["mcp-protocol-version"] for asked in later} == {"2025-11-25"}
    assert {asked.headers["authorization"] for asked in w.gateway.asked} == {"Bearer k"}
    assert "mcp-session-id" not in w.gateway.asked[0].headers
    assert w.gateway.asked[-1].verb == "DELETE"


@requirement("GW-6")
async def test_a_lost_session_is_renewed_unseen_but_a_call_is_never_sent_twice() -> None:
    script = LegacyScript()
    async with world(script) as w:
        await w.shake_hands()
        script.forget()
        w.send("tools/list", 1)
        assert (await w.heard())["result"] == {"session": 102}
        script.forget()
        w.send("tools/call", 2, name="pay")
        refused = await w.heard()
        assert "was not carried out" in refused["error"]["message"]
        w.send("tools/call", 3, name="pay")
        assert (await w.heard())["result"] == {"session": 203}
    calls = [asked.message["id"] for asked in w.gateway.asked if asked.method == "tools/call"]
    assert calls == [2, 3]
    assert w.gateway.methods().count("notifications/initialized") == 3
    assert w.sink.lines.empty()


@requirement("GW-6", "GW-11")
async def test_a_call_whose_answer_breaks_off_is_called_unknown_and_not_repeated() -> None:
    async with world(LegacyScript()) as w:
        await w.shake_hands()
        w.send("tools/call", 1, name="break")
        assert "not known" in (await w.heard())["error"]["message"]
        w.send("ping", 2)
        assert (await w.heard())["id"] == 2
    assert w.gateway.methods().count("tools/call") == 1


@requirement("GW-6", "GW-11")
async def test_a_gateway_that_is_away_is_said_so_and_found_again() -> None:
    async with world(LegacyScript()) as w:
        await w.shake_hands()
        w.send("ping", 0)
        await w.heard()
        await w.gateway.close()
        w.send("tools/call", 1, name="pay")
        message = (await w.heard())["error"]["message"]
        assert "cannot be reached" in message and "exeat up" in message
        await w.gateway.open()
        w.send("ping", 2)
        assert (await w.heard())["id"] == 2
    assert len([said for said in w.said if "is away" in said]) == 1
    assert w.said[-1].endswith("is back.")


@requirement("GW-6")
async def test_a_client_that_starts_before_the_gateway_just_waits() -> None:
    gateway = Gateway(LegacyScript())
    await gateway.open()
    await gateway.close()
    async with World(gateway).running() as w:
        w.send("initialize", 0, protocolVersion="2025-11-25")
        while not w.gateway.asked:
            await asyncio.sleep(0)
            if gateway._server is None or not gateway._server.is_serving():
                await gateway.open()
        assert "result" in await w.heard()
    await gateway.close()


@requirement("GW-6")
async def test_no_redirect_is_followed() -> None:
    async with world(lambda asked: asked.say(307, Location="http://127.0.0.1:1/mcp")) as w:
        w.send("ping", 1)
        assert "follows no redirect" in (await w.heard())["error"]["message"]
    assert len(w.gateway.asked) == 1


@requirement("GW-6")
async def test_a_json_rpc_error_in_a_refusal_is_passed_on_under_the_clients_id() -> None:
    body = b'{"jsonrpc":"2.0","id":null,\n"error":{"code":-32022,"message":"no","data":{"x":1}}}'
    async with world(lambda asked: asked.say(400, body)) as w:
        w.send("server/discover", "q", _meta={"io.modelcontextprotocol/protocolVersion": MODERN})
        heard = await w.heard()
    assert (heard["id"], heard["error"]["code"], heard["error"]["data"]) == ("q", -32022, {"x": 1})


@requirement("GW-6")
@pytest.mark.parametrize(
    "answer",
    [
        b"<html>hello</html>",
        b'{"jsonrpc":"2.0","id":99,"result":{}}',
        b'{"jsonrpc":"2.0","id":"1","result":{}}',
        b"",
    ],
)
async def test_nonsense_and_somebody_elses_answer_become_an_error(answer: bytes) -> None:
    async with world(lambda asked: asked.say(200, answer)) as w:
        w.send("ping", 1)
        heard = await w.heard()
    assert heard["id"] == 1 and heard["error"]["code"] == -31502


@requirement("GW-6")
async def test_modern_requests_carry_their_routing_headers_and_no_session() -> None:
    schema = {"type": "object", "properties": {"to": {"type": "string", "x-mcp-header": "To"}}}

    async def script(asked: Asked) -> None:
        tools = [{"name": "sénd", "inputSchema": schema}]
        await asked.result({"tools": tools} if asked.method == "tools/list" else {})

    meta = {"io.modelcontextprotocol/protocolVersion": MODERN}
    async with world(script) as w:
        w.send("tools/list", 1, _meta=meta)
        await w.heard()
        w.send("tools/call", 2, name="sénd", arguments={"to": " ada"}, _meta=meta)
        await w.heard()
        w.send("notifications/cancelled", requestId=2)
    called = w.gateway.asked[1].headers
    assert called["mcp-protocol-version"] == MODERN
    assert called["mcp-method"] == "tools/call"
    assert called["mcp-name"] == "=?base64?c8OpbmQ=?="
    assert called["mcp-param-to"] == "=?base64?IGFkYQ==?="
    assert "mcp-session-id" not in called
    assert w.gateway.methods() == ["tools/list", "tools/call"]


@requirement("GW-6", "GW-9")
async def test_cancelling_a_modern_request_closes_its_stream_within_a_second() -> None:
    closed = asyncio.Event()

    async def script(asked: Asked) -> None:
        asked.to.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
        asked.to.write(b"data: %b\n\n" % json.dumps(note).encode())
        await asked.to.drain()
        await _until_closed(asked)
        closed.set()

    async with world(script) as w:
        w.send("tools/call", 7, name="x", _meta={"io.modelcontextprotocol/protocolVersion": MODERN})
        assert (await w.heard())["method"] == "notifications/progress"
        w.send("notifications/cancelled", requestId=7)
        async with asyncio.timeout(5):
            await closed.wait()
    assert w.sink.lines.empty()
    assert w.gateway.methods() == ["tools/call"]


async def _until_closed(asked: Asked) -> None:
    try:
        while True:
            asked.to.write(b": keep-alive\n\n")
            await asked.to.drain()
            await asyncio.sleep(0.01)
    except ConnectionError:
        return


@requirement("GW-6")
async def test_a_legacy_stream_that_breaks_is_resumed_where_it_stopped() -> None:
    async def script(asked: Asked) -> None:
        if asked.method == "initialize":
            await asked.result({"protocolVersion": "2025-11-25"}, Mcp_Session_Id="s")
        elif asked.verb == "GET" and asked.headers.get("last-event-id") == "e1":
            answer = b'data: {"jsonrpc":"2.0","id":1,"result":{"resumed":true}}\n\n'
            await asked.say(200, answer, "text/event-stream")
        elif asked.verb == "GET":
            await asked.say(405)
        elif asked.method == "tools/call":
            await asked.say(200, b"id: e1\nretry: 1\ndata: \n\n", "text/event-stream")
        else:
            await asked.say(202)

    async with world(script) as w:
        await w.shake_hands()
        w.send("tools/call", 1, name="x")
        assert (await w.heard())["result"] == {"resumed": True}
    assert w.gateway.methods().count("tools/call") == 1


@requirement("GW-6")
async def test_what_the_server_says_unasked_arrives_and_the_clients_answer_goes_back() -> None:
    async def script(asked: Asked) -> None:
        if asked.method == "initialize":
            await asked.result({"protocolVersion": "2025-11-25"}, Mcp_Session_Id="s")
        elif asked.verb == "GET" and not asked.headers.get("last-event-id"):
            event = b'id: 5\ndata: {"jsonrpc":"2.0",\ndata: "id":"q","method":"roots/list"}\n\n'
            await asked.say(200, event, "text/event-stream")
        elif asked.verb == "GET":
            await asked.say(405)
        else:
            await asked.say(202)

    async with world(script) as w:
        await w.shake_hands()
        assert (await w.heard())["method"] == "roots/list"
        w._input.put_nowait(b'{"jsonrpc":"2.0","id":"q","result":{"roots":[]}}')
    answers = [asked.message for asked in w.gateway.asked if "result" in asked.message]
    assert answers == [{"jsonrpc": "2.0", "id": "q", "result": {"roots": []}}]


@requirement("GW-6")
async def test_what_the_client_garbles_gets_an_error_and_goes_nowhere() -> None:
    async with world(LegacyScript()) as w:
        for line in (b"nonsense", b"[]", b'{"jsonrpc":"2.0","id":null,"method":"ping"}', b"\0"):
            w._input.put_nowait(line)
            assert (await w.heard())["error"]["code"] == -32700
    assert w.gateway.asked == []


@requirement("GW-6", "GW-9")
async def test_a_huge_result_passes_in_bounded_memory() -> None:
    size = 96 * 1024 * 1024

    async def script(asked: Asked) -> None:
        head = b'{"jsonrpc":"2.0","id":1,\n"result":{"text":"'
        total = len(head) + size + len(b'"}}')
        asked.to.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % total
        )
        asked.to.write(head)
        for _ in range(size // 65536):
            asked.to.write(b"x" * 65536)
            await asked.to.drain()
        asked.to.write(b'"}}')
        await asked.to.drain()

    gateway = Gateway(script)
    await gateway.open()
    process = await asyncio.create_subprocess_exec(
        *command(gateway.url), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{}}\n')
    taken, last, peak = 0, b"", 0
    while not last.endswith(b"\n"):
        last = await process.stdout.read(1 << 20)
        taken += len(last)
        peak = max(peak, psutil.Process(process.pid).memory_info().rss)
    process.stdin.close()
    assert await process.wait() == 0
    await gateway.close()
    assert taken > size and peak < 100 * 1024 * 1024


@requirement("GW-6")
@pytest.mark.parametrize("end", ["eof", "sigterm"])
async def test_it_leaves_when_the_client_does(end: str) -> None:
    gateway = Gateway(LegacyScript())
    await gateway.open()
    process = await asyncio.create_subprocess_exec(
        *command(gateway.url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n')
    await process.stdout.readline()
    if end == "eof":
        process.stdin.close()
    else:
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        out, err = await process.communicate()
    await gateway.close()
    assert (process.returncode, out, err) == (0, b"", b"")
    assert gateway.methods() == ["initialize", "DELETE"]


@requirement("GW-6")
@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("http://gateway.example/mcp", "k", "unencrypted"),
        ("http://u:p@127.0.0.1/mcp", "k", "user name or password"),
        ("ftp://127.0.0.1/mcp", "k", "not an http or https URL"),
        ("https://gateway.example/mcp", "k\r\nX: y", "characters that no key has"),
    ],
)
def test_a_key_does_not_travel_where_it_should_not(url: str, key: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        check_address(Address(url, key))
    assert caught.value.remedy and "X: y" not in str(caught.value)
    assert key not in repr(Address(url, key)).replace("gateway", "")


@requirement("GW-6")
async def test_a_missing_key_file_is_one_plain_sentence(tmp_path: Path) -> None:
    argv = command("http://127.0.0.1:1/mcp", "--key-file", str(tmp_path / "none"))
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read" in done.stderr and "Traceback" not in done.stderr
