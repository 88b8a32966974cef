"""The middleware: nothing that asks for a tool passes without its permit, everything else unchanged (ID-11)."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from permits import ARGUMENTS, AT, KEYS, NOW, PERMIT, SIGNER
from requirements import requirement

from exeat.permit import Permit, PermitRequired, Seen


class App:
    """What reached the application."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.permits: list[Permit | None] = []
        self.scopes: list[str] = []
        self.then: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope["type"])
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        self.permits.append(scope.get("exeat.permit"))
        self.then.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def call(params: Any = None, **members: Any) -> dict[str, Any]:
    given = {"name": "transfer", "arguments": ARGUMENTS} if params is None else params
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": given, **members}


class World:
    def __init__(self, **options: Any) -> None:
        self.app = App()
        self.front = PermitRequired(
            self.app, keys=KEYS, audience=AT, clock=lambda: NOW + 1.0, **options
        )

    def ask(
        self,
        body: Any,
        *permits: str,
        verb: str = "POST",
        fields: Any = (),
        pieces: int = 1,
        leaves: bool = False,
    ) -> tuple[int, Any]:
        """Status, and the error if there is one."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        size = max(1, -(-len(raw) // pieces))
        parts = [raw[at : at + size] for at in range(0, len(raw), size)] or [b""]
        incoming = [
            {"type": "http.request", "body": part, "more_body": part is not parts[-1]}
            for part in parts
        ]
        if leaves:
            incoming[-1] = {"type": "http.disconnect"}
        incoming.append({"type": "http.disconnect"})
        sent: list[Any] = []

        async def receive() -> Any:
            return incoming.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [*fields, *((b"exeat-permit", each.encode("latin-1")) for each in permits)]
        scope = {"type": "http", "method": verb, "path": "/mcp", "headers": headers}
        asyncio.run(self.front(scope, receive, send))
        if not sent:
            return 0, None
        body = json.loads(sent[1]["body"])
        return sent[0]["status"], body.get("error") and body


def permit(**changes: Any) -> str:
    return SIGNER.sign(replace(PERMIT, **changes))


@requirement("ID-11")
@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_a_call_with_its_permit_reaches_the_application_byte_for_byte(pieces: int) -> None:
    world = World()
    raw = b' { "jsonrpc":"2.0", "id":7, "method":"tools\\/call","params":' + (
        json.dumps({"name": "transfer", "arguments": ARGUMENTS}).encode() + b"}\n"
    )
    assert world.ask(raw, permit(), pieces=pieces) == (200, None)
    assert world.app.bodies == [raw] and world.app.permits == [PERMIT]
    assert world.app.then == ["http.disconnect"]


def refusal(reason: str, says: str, id: Any = 7) -> tuple[int, Any]:
    error = {"code": -31403, "message": f"Refused: {says}", "data": {"reason": reason}}
    return 403, {"jsonrpc": "2.0", "id": id, "error": error}


ONE = "The body is not one JSON object in UTF-8 with every member once."
TWICE = json.dumps(call()).encode()[:-1]
SAYS = {
    "missing": "The call needs one permit, in Exeat-Permit.",
    "arguments": "The permit is for other arguments.",
}


@requirement("ID-11")
@pytest.mark.parametrize(
    ("body", "permits", "wanted"),
    [
        (call(), (), refusal("missing", SAYS["missing"])),
        (call(), ("", ""), refusal("missing", SAYS["missing"])),
        (call(), (permit(), permit(id="a2")), refusal("missing", SAYS["missing"])),
        (call(), (permit(audience="x"),), refusal("audience", "The permit is for another server.")),
        (call(), (permit(expires_at=NOW - 5, issued_at=NOW - 15),), refusal("expired", "The permit has expired.")),
        (call(), ("none",), refusal("malformed", "The permit is not a compact JWS.")),
        (call({"name": "transfer", "arguments": {}}), (permit(),), refusal("arguments", SAYS["arguments"])),
        (call({"name": "other", "arguments": ARGUMENTS}), (permit(),), refusal("tool", "The permit is for another tool.")),
        (call({"name": "transfer", "arguments": ARGUMENTS, "task": {}}), (permit(),), refusal("arguments", SAYS["arguments"])),
        (call([]), (permit(),), refusal("malformed", "The call has no params.")),
        (call(id=[1]), (), refusal("missing", SAYS["missing"], None)),
        ([call()], (permit(),), refusal("malformed", ONE, None)),
        ([], (), refusal("malformed", ONE, None)),
        (TWICE + b',"method":"tools/list"}', (), refusal("malformed", ONE, None)),
        (b'{"method":"tools/list",' + json.dumps(call()).encode()[1:], (), refusal("malformed", ONE, None)),
        (json.dumps(call()).replace('"amount": 80', '"amount": 80, "amount": 81').encode(), (permit(),), refusal("malformed", ONE, None)),
        (json.dumps(call()).encode("utf-16"), (), refusal("malformed", ONE, None)),
        (b"\xef\xbb\xbf" + json.dumps(call()).encode(), (), refusal("malformed", ONE, None)),
        (json.dumps(call()).encode() + b"{}", (permit(),), refusal("malformed", ONE, None)),
        (b"", (), refusal("malformed", ONE, None)),
        (b"\xff", (), refusal("malformed", ONE, None)),
        (b"[" * 100_000, (), refusal("malformed", ONE, None)),
        (b'{"id":' + b"9" * 5000 + b"}", (), refusal("malformed", ONE, None)),
        (b'{"id":NaN}', (), refusal("malformed", ONE, None)),
    ],
)  # fmt: skip
def test_what_gets_round_it_somewhere_else_is_refused_here(
    body: Any, permits: tuple[str, ...], wanted: tuple[int, Any]
) -> None:
    world = World()
    assert world.ask(body, *permits) == wanted
    assert world.app.bodies == []


@requirement("ID-11")
def test_a_permit_serves_one_call() -> None:
    world = World(seen=Seen())
    assert world.ask(call(), permit())[0] == 200
    assert world.ask(call(), permit()) == refusal("replayed", "The permit was used before.")
    assert len(world.app.bodies) == 1


@requirement("ID-11")
def test_bodies_are_bounded_and_never_unpacked() -> None:
    world = World(body_max_bytes=100)
    big = {"method": "tools/list", "x": "y" * 100}
    assert world.ask(big) == refusal("malformed", "The body is larger than 100 bytes.", None)
    packed = [(b"Content-Encoding", b"gzip")]
    assert world.ask(b"\x1f\x8b", fields=packed) == refusal(
        "malformed", "A compressed body is not accepted.", None
    )
    assert world.app.bodies == []


@requirement("ID-11")
def test_definitions_that_the_server_knows_are_compared() -> None:
    world = World(definitions={"transfer": "d" * 64})
    assert world.ask(call(), permit())[0] == 200
    world = World(definitions={"transfer": "e" * 64})
    assert world.ask(call(), permit())[1]["error"]["data"]["reason"] == "definition"
    assert World(definitions={}).ask(call(), permit())[0] == 403


@requirement("ID-11")
def test_other_methods_pass_unchanged() -> None:
    world = World()
    for message in (
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
    ):
        assert world.ask(message) == (200, None)
    assert world.ask(b"", verb="GET")[0] == 200 and world.ask(b"", verb="DELETE")[0] == 200
    assert len(world.app.bodies) == 6
    for verb in ("PUT", "PATCH", "QUERY"):
        assert world.ask(call(), verb=verb)[0] == 403


@requirement("ID-11")
def test_a_client_that_leaves_asks_for_nothing() -> None:
    world = World()
    assert world.ask(call(), permit(), pieces=3, leaves=True) == (0, None)
    assert world.app.bodies == []


@requirement("ID-11")
def test_lifespan_passes_and_websockets_do_not() -> None:
    world, sent = World(), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(world.front({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
    asyncio.run(world.front({"type": "websocket"}, None, send))  # type: ignore[arg-type]
    assert world.app.scopes == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1008}]
