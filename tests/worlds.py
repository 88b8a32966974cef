"""Small whole worlds for the gateway: real edge, front, pipeline and PDP in one process, a ledger in
memory that can be held or fail, and an upstream whose every byte the test writes."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from exeat.core.decision import Decision
from exeat.core.errors import LedgerUnavailable
from exeat.core.event import Event
from exeat.core.facts import (
    AgentFacts,
    CredentialFacts,
    Effect,
    Lifecycle,
    PersonFacts,
    PinState,
    PolicyVersionFacts,
    ScopeFacts,
    ServerFacts,
    ServerSpec,
    Snapshot,
    ToolFacts,
    Transport,
    tool_action,
)
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.core.kills import NO_KILLS, Kills
from exeat.core.request import AccessRequest
from exeat.core.upstream_auth import NO_AUTH, UpstreamAuth
from exeat.evidence.model import DecisionContext, OutcomeFacts, Receipt
from exeat.gateway.edge import Edge
from exeat.gateway.front import Front
from exeat.gateway.gate import Gate
from exeat.gateway.guarded import NoCredentials
from exeat.gateway.inbound import encode_header
from exeat.gateway.pipeline import Pipeline
from exeat.gateway.ports import CredentialSource, Durable
from exeat.gateway.settings import GatewaySettings
from exeat.gateway.upstreams import Surroundings, Upstreams
from exeat.identity.tokens import Tokens
from exeat.policy.bundle import compile_bundle
from exeat.registry.rules.pins import digests

NOW = 1_790_000_000 * 10**9
VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}
ADA, BOB = PersonId("ada"), PersonId("bob")
UP = ServerId("up")
PERMIT_ALL = '@id("all") permit(principal, action, resource);'


class Wire(asyncio.Transport):
    """A transport in memory: what is written is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = self.ended = False

    @property
    def over(self) -> bool:
        """To the client: nothing more comes."""
        return self.closed or self.ended

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "written after the end"
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@dataclass
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.json["error"])

    @property
    def events(self) -> list[Any]:
        lines = [part for part in self.body.split(b"\n") if part.startswith(b"data: {")]
        return [json.loads(line[6:]) for line in lines]


class Client:
    """A raw HTTP/1.1 client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        block = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = block[:-4].decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            before = fields.get(name.lower())
            fields[name.lower()] = (
                value.strip() if before is None else f"{before} | {value.strip()}"
            )
        return int(first.split()[1]), fields

    async def chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> Answer:
        status, fields = await self.head()
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while piece := await self.chunk():
                body += piece
        else:
            body = await self.reader.readexactly(int(fields.get("content-length", "0")))
        return Answer(status, fields, body)

    async def closed(self) -> bytes:
        """What still came until the server closed."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        await client.close()


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until ``holds``; fails the test after ten seconds."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


# ---- the upstream


@dataclass
class Seen:
    """One request as the upstream received it, and the connection to write the answer to."""

    head: bytes
    message: Any
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: int

    @property
    def method(self) -> str:
        return str((self.message or {}).get("method", ""))

    def reply(self, body: bytes, media: str = "application/json", extra: str = "") -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {media}\r\n{extra}content-length: {len(body)}\r\n"
        self.writer.write(head.encode() + b"\r\n" + body)

    def result(self, result: Mapping[str, Any], extra: str = "") -> None:
        message = {"jsonrpc": "2.0", "id": self.message["id"], "result": result}
        self.reply(json.dumps(message).encode(), extra=extra)

    def error(self, code: int, text: str = "no", data: Any = None) -> None:
        error = {"code": code, "message": text, "data": data}
        message = {"jsonrpc": "2.0", "id": self.message["id"], "error": error}
        self.reply(json.dumps(message).encode())

    def accept(self) -> None:
        """202: to a notification, or to an answer to a question."""
        self.writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")

    def stream(self, *messages: str) -> None:
        """The beginning of an event stream; more may be written behind it."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        self.writer.write(head + sse(*messages))

    def cut(self) -> None:
        self.writer.transport.abort()


def sse(*messages: str) -> bytes:
    return "".join(f"data: {message}\n\n" for message in messages).encode()


Script = Callable[[Seen], Awaitable[None]]


async def content(seen: Seen) -> None:
    seen.result({"content": [], "resultType": "complete"})


class Upstream:
    """Answers probes, handshakes and lists by itself; everything else is the script's."""

    def __init__(self, tools: list[dict[str, Any]], *, legacy: bool = False) -> None:
        self.tools, self.legacy = tools, legacy
        self.seen: list[Seen] = []
        self.script: Script = content
        self.own: dict[str, Script] = {}
        """Scripts that replace the answers to probes, handshakes and lists, by method."""
        self.bytes_in = 0
        self.connections = 0
        self.lost: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.AbstractServer | None = None

    @property
    def calls(self) -> list[Seen]:
        known = ("server/discover", "tools/list", "initialize", "notifications/initialized")
        return [seen for seen in self.seen if seen.method not in known]

    async def start(self) -> int:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            while True:
                block = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in block.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
                body = await reader.readexactly(length)
                seen = Seen(block, json.loads(body) if body else None, reader, writer, number)
                self.bytes_in += len(block) + length
                self.seen.append(seen)
                await self._answer(seen)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.lost.append(number)
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, seen: Seen) -> None:
        method = seen.method
        if method in self.own:
            await self.own[method](seen)
        elif method == "server/discover" and self.legacy:
            seen.error(-32601)
        elif method == "server/discover":
            about = {"supportedVersions": [VERSION], "capabilities": {"tools": {}}}
            seen.result({**about, "resultType": "complete"})
        elif method == "initialize":
            about = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            seen.result({**about, "serverInfo": {"name": "s", "version": "1"}})
        elif method == "notifications/initialized":
            seen.accept()
        elif method == "tools/list":
            seen.result({"tools": self.tools, "resultType": "complete"})
        else:
            await self.script(seen)

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
        for task in list(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.sleep(0)


# ---- ledger and state


class MemoryLedger:
    """Durable on the loop's next turn; ``hold``: only when ``release`` is called; ``failure``: never."""

    def __init__(self) -> None:
        self.decisions: list[tuple[AccessRequest, Decision]] = []
        self.contexts: list[DecisionContext] = []
        self.outcomes: list[OutcomeFacts] = []
        self.counts: dict[str, int] = {}
        self.failure = ""
        self.hold = False
        self.trusted = True
        self.held: list[Callable[[], None]] = []

    def record_decision(
        self, request: AccessRequest, decision: Decision, context: DecisionContext, done: Durable
    ) -> int:
        index = len(self.decisions)
        self.contexts.append(context)
        self.decisions.append((request, decision))

        def durable() -> None:
            receipt = Receipt(index, hashlib.sha256(str(index).encode()).digest(), NOW)
            done(LedgerUnavailable(self.failure) if self.failure else receipt)

        if self.hold:
            self.held.append(durable)
        else:
            asyncio.get_running_loop().call_soon(durable)
        return index

    def release(self) -> None:
        held, self.held = self.held, []
        for durable in held:
            durable()

    def decision_id(self, index: int) -> str:
        return f"d{index}"

    def record_outcome(self, outcome: OutcomeFacts) -> None:
        self.outcomes.append(outcome)

    def record_event(self, event: Event, done: Durable) -> int:
        return 0

    def count(self, kind: str, sample: Mapping[str, str] | None) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def clock_trusted(self, now: int) -> bool:
        return self.trusted

    @property
    def ended(self) -> list[tuple[str, str]]:
        """Status and cause of each outcome."""
        return [(str(outcome.status), outcome.cause) for outcome in self.outcomes]


@dataclass
class State:
    view: Any
    fresh: bool = True


def definition(name: str, properties: Mapping[str, Any] | None = None) -> dict[str, Any]:
    schema = {"type": "object", "properties": dict(properties or {})}
    return {"name": name, "description": name, "inputSchema": schema}


def agent(name: str) -> AgentFacts:
    scope = ScopeFacts(Digest("d"), "d", "event-1", frozenset({UP}), frozenset(Effect))
    return AgentFacts(
        AgentId(name), 1, Lifecycle.ACTIVE, ADA, True, BOB, True, BOB, NOW + 10**15, scope
    )


@dataclass
class World:
    """One gateway, one upstream ``up``, agents ``bot`` and ``eve`` (their keys are their names)."""

    tools: list[dict[str, Any]] = field(
        default_factory=lambda: [definition("add"), definition("secret")]
    )
    policy: str = PERMIT_ALL
    legacy: bool = False
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    extra_methods: frozenset[str] = frozenset()
    now: int = NOW
    tokens: Tokens | None = None
    auth: UpstreamAuth = NO_AUTH
    credentials: CredentialSource = field(default_factory=NoCredentials)
    clients: dict[tuple[str, str, str], AgentId] = field(default_factory=dict)
    subjects: dict[tuple[str, str], PersonId] = field(default_factory=dict)
    endings: dict[str, int] = field(default_factory=dict)
    kills: Kills = NO_KILLS
    permit: str = ""
    """The audience of the permits that the upstream demands (ID-11)."""
    controls: str = ""
    """``controls.yaml`` of the policy version."""
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By tool: what people confirmed of it."""
    people_there: tuple[PersonId, ...] = (ADA, BOB)
    gate: Gate | None = None

    async def __aenter__(self) -> "World":
        loop = asyncio.get_running_loop()
        self.upstream = Upstream(self.tools, legacy=self.legacy)
        url = f"http://127.0.0.1:{await self.upstream.start()}/mcp"
        self.spec = ServerSpec(UP, Transport.HTTP, url=url, permit=self.permit, auth=self.auth)
        self.ledger = MemoryLedger()
        self.state = State(None)
        self.state.view = self.view()
        self.notices: list[str] = []
        around = Surroundings(
            loop=loop,
            home=Path("unused"),
            environ={},
            isolate=lambda spec: (_ for _ in ()).throw(AssertionError(spec)),
            notice=lambda kind, server, details: self.notices.append(kind),
            observe=lambda server, definitions, found: None,
            client_message=lambda server, principal, message: None,
            credentials=self.credentials,
        )
        self.upstreams = Upstreams(around)
        self.upstreams.follow({UP: self.spec})
        self.strangers: list[AccessRequest] = []
        self.pipeline = Pipeline(
            self.state, self.ledger, lambda: self.now, self.strangers.append, self.gate
        )
        self.front = Front(
            loop, self.pipeline, self.upstreams, self.settings, b"k" * 32, lambda: self.now,
            tokens=self.tokens,
        )  # fmt: skip
        self.edge = Edge(self.front.dispatch, self.settings, loop, self.front.admit)
        self.listener = await loop.create_server(self.edge, "127.0.0.1", 0)
        self.port = int(self.listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.listener.close()
        await self.front.close()
        self.edge.close()
        await self.upstream.stop()
        await asyncio.sleep(0)

    def view(self, **agent_changes: Any) -> Any:
        """The state as it would be read now; ``agent_changes``: of agent ``bot``."""
        agents = {AgentId(n): agent(n) for n in ("bot", "eve")}
        agents[AgentId("bot")] = replace(agents[AgentId("bot")], **agent_changes)
        pins = digests(self.tools)
        facts: dict[ActionId, ToolFacts] = {}
        for each in self.tools:
            name, action = each["name"], tool_action(UP, each["name"])
            known = ToolFacts(UP, name, action, pins[name], PinState.PINNED, each, Effect.READ)
            facts[action] = replace(known, **self.profiles.get(name, {}))
        servers = {UP: ServerFacts(UP, 1, True, ADA, 2, self.extra_methods)}
        people = {p: PersonFacts(p, True) for p in self.people_there}
        credentials = {
            hashlib.sha256(n.encode()).digest(): CredentialFacts(
                f"key-{n}", AgentId(n), None, NOW + 10**15
            )
            for n in ("bot", "eve")
        }
        files = {"p.cedar": self.policy}
        if self.controls:
            files["controls.yaml"] = self.controls
        digest = Digest(hashlib.sha256("".join(files.values()).encode()).hexdigest())
        version = PolicyVersionFacts(digest, 1, ADA, BOB, "test", files)
        snapshot = Snapshot(
            1, agents, people, servers, {UP: self.spec}, facts, credentials, version,
            dict(self.clients), dict(self.subjects), dict(self.endings), kills=self.kills,
        )  # fmt: skip
        return SimpleNamespace(
            snapshot=snapshot,
            pdp=compile_bundle(
                version, facts, servers, agents=agents, people=people, kills=self.kills
            ),
        )

    # ---- clients

    def connect(self) -> contextlib.AbstractAsyncContextManager[Client]:
        return connected(self.port)

    def raw(self, message: Any, fields: Mapping[str, str] | None = None, key: str = "bot") -> bytes:
        """A POST; modern messages get their envelope and routing headers."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        head = {
            "host": "localhost",
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "content-length": str(len(body)),
            **(fields or {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        return f"POST /mcp/up HTTP/1.1\r\n{lines}\r\n".encode() + body

    def modern(
        self, method: str, params: Mapping[str, Any], *, id: Any = 1, key: str = "bot",
        fields: Mapping[str, str] | None = None,
    ) -> bytes:  # fmt: skip
        message = {
            "jsonrpc": "2.0", "id": id, "method": method,
            "params": {**params, "_meta": {**META, **params.get("_meta", {})}},
        }  # fmt: skip
        head = {"mcp-protocol-version": VERSION, "mcp-method": method, **(fields or {})}
        named = params.get("name", params.get("uri", params.get("taskId")))
        if isinstance(named, str):
            head["mcp-name"] = encode_header(named)
        return self.raw(message, head, key)

    def tool(self, name: str = "add", arguments: Any = None, **rest: Any) -> bytes:
        return self.modern("tools/call", {"name": name, "arguments": arguments or {}}, **rest)

    async def ask(self, raw: bytes) -> Answer:
        async with asyncio.timeout(10), self.connect() as client:
            client.write(raw)
            return await client.answer()

    async def session(self, key: str = "bot", capabilities: Any = None) -> str:
        """The id of a new legacy session."""
        params = {
            "protocolVersion": "2025-11-25", "capabilities": capabilities or {},
            "clientInfo": {"name": "c", "version": "1"},
        }  # fmt: skip
        answer = await self.ask(self.old("initialize", params, "", key=key))
        return answer.fields["mcp-session-id"]

    def old(
        self, method: str, params: Mapping[str, Any], session: str, *, id: Any = 1, key: str = "bot"
    ) -> bytes:
        """A legacy message; ``id`` None: a notification."""
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        if id is not None:
            message["id"] = id
        head = {"mcp-protocol-version": "2025-11-25"}
        if session:
            head["mcp-session-id"] = session
        return self.raw(message, head, key)
