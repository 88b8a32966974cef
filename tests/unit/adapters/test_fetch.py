"""GW-10: the guarded client, against real local servers."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from certificates import Authority
from requirements import requirement

from exeat.adapters.fetch import BODY_MAX_BYTES, Fetcher, FetchRefused

pytestmark = pytest.mark.anyio


def ok(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in (*headers, f"content-length: {len(body)}"))
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body


@dataclass
class Site:
    """A local server that gives every connection the same bytes, and keeps what it was sent."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/", scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextlib.asynccontextmanager
async def site(
    answer: bytes, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None,
    hold: bool = False,
) -> AsyncIterator[Site]:  # fmt: skip
    """``hold``: the connection stays open after ``answer``."""
    made = Site()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        writers.append(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            made.heads.append(head)
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            made.bodies.append(await reader.readexactly(int(length or 0)))
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        if not hold:
            writer.close()

    server = await asyncio.start_server(serve, host, port, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@dataclass
class Names:
    """A resolver that gives its answers in turn, the last one again and again."""

    answers: list[Sequence[str]]
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


LOCAL = frozenset({"127.0.0.1", "localhost"})


@requirement("GW-10")
async def test_a_document_is_fetched_with_nothing_but_the_request() -> None:
    async with site(ok(b'{"a":1}', "content-type: application/json", "x: 1", "x: 2")) as there:
        fetched = await Fetcher(LOCAL).get(there.url("/x?secret=1"))
    assert (fetched.status, fetched.json()) == (200, {"a": 1})
    assert fetched.headers["x"] == "1, 2"
    assert "secret" not in fetched.url
    head = there.heads[0].lower()
    assert head.startswith(b"get /x?secret=1 http/1.1\r\n")
    assert b"host: 127.0.0.1:%d\r\n" % there.port in head
    assert b"cookie" not in head and b"authorization" not in head


@requirement("GW-10")
async def test_a_form_and_a_document_are_posted() -> None:
    async with site(ok(b"{}")) as there:
        await Fetcher(LOCAL).post(there.url(), {"a": "1&2"}, headers={"authorization": "Basic x"})
        await Fetcher(LOCAL).post_json(there.url(), {"b": [1]})
    assert there.bodies == [b"a=1%262", b'{"b":[1]}']
    assert b"authorization: Basic x" in there.heads[0]


@requirement("GW-10")
async def test_no_redirect_is_followed() -> None:
    async with site(ok(b"{}")) as target:
        moved = (
            f"HTTP/1.1 302 Found\r\nlocation: {target.url()}\r\ncontent-length: 0\r\n\r\n".encode()
        )
        async with site(moved) as there:
            with pytest.raises(FetchRefused, match="redirects"):
                await Fetcher(LOCAL).get(there.url())
            with pytest.raises(FetchRefused, match="redirects"):
                await Fetcher(LOCAL).post(there.url(), {"code": "x"})
    assert target.connections == 0


@requirement("GW-10")
async def test_a_name_that_leads_inside_is_not_connected_to() -> None:
    async with site(ok(b"{}")) as there:
        for addresses in (["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:127.0.0.1"]):
            names = Names([addresses])
            with pytest.raises(FetchRefused, match="not a public address"):
                await Fetcher(resolve=names).get(f"https://evil.example:{there.port}/")
        with pytest.raises(FetchRefused, match="not a public address"):
            await Fetcher().get(f"https://127.0.0.1:{there.port}/")
        with pytest.raises(FetchRefused, match="not https"):
            await Fetcher().get(there.url())
    assert there.connections == 0


@requirement("GW-10")
async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    """Rebinding: a second answer of the resolver would lead elsewhere, and is never asked for."""
    async with (
        site(ok(b'{"at":1}'), host="127.0.0.21") as first,
        site(ok(b'{"at":2}'), host="127.0.0.22", port=first.port) as second,
    ):
        names = Names([["127.0.0.21"], ["127.0.0.22"]])
        fetcher = Fetcher(frozenset({"127.0.0.21/32", "rebind.example"}), resolve=names)
        fetched = await fetcher.get(f"http://rebind.example:{first.port}/")
    assert fetched.json() == {"at": 1}
    assert names.asked == [("rebind.example", first.port)]
    assert second.connections == 0
    assert b"host: rebind.example:" in first.heads[0].lower()


@requirement("GW-10")
async def test_another_address_is_tried_when_one_does_not_answer() -> None:
    async with site(ok(b"{}"), host="127.0.0.23") as there:
        names = Names([["127.0.0.24", "127.0.0.23"]])
        fetcher = Fetcher(frozenset({"two.example"}), resolve=names)
        assert (await fetcher.get(f"http://two.example:{there.port}/")).status == 200


@requirement("GW-10")
async def test_https_checks_the_name_not_the_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    names = Names([["127.0.0.1"]])
    async with site(ok(b"{}"), tls=tls) as there:
        trusting = Fetcher(frozenset({"127.0.0.0/8"}), authority.path, resolve=names)
        assert (await trusting.get(there.url(scheme="https", host="LOCALHOST."))).status == 200
        with pytest.raises(FetchRefused, match="certificate"):
            await trusting.get(there.url(scheme="https", host="other.example"))
        with pytest.raises(FetchRefused, match="certificate"):
            await Fetcher(LOCAL, resolve=names).get(there.url(scheme="https", host="localhost"))


@requirement("GW-10")
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (ok(b"x" * (BODY_MAX_BYTES + 1)), "more than"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"x" * (BODY_MAX_BYTES + 1), "more than"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n50000\r\n" + b"x" * 0x50000 + b"\r\n0\r\n\r\n", "more than"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "nonsense"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "nonsense"),
        (b"", "nonsense|ended|broke"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx", "nonsense"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", "nonsense"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n", "nonsense|ended"),
        (ok(b"\x1f\x8b", "content-encoding: gzip"), "encoding"),
    ],
)  # fmt: skip
async def test_too_much_or_nonsense_is_refused(answer: bytes, why: str) -> None:
    async with site(answer) as there:
        with pytest.raises(FetchRefused, match=why):
            await Fetcher(LOCAL).get(there.url())


@requirement("GW-10")
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"]
)
async def test_a_slow_answer_ends(answer: bytes) -> None:
    async with site(answer, hold=True) as there:
        with pytest.raises(FetchRefused, match="did not answer within"):
            await Fetcher(LOCAL, time_max_s=0.2).get(there.url())


@requirement("GW-10")
async def test_a_slow_resolver_ends_and_a_failing_one_is_an_error() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async def fails(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    cases: list[tuple[Callable[[str, int], Awaitable[Sequence[str]]], str]] = [
        (never, "did not answer"), (fails, "cannot be resolved"),
    ]  # fmt: skip
    for resolve, why in cases:
        with pytest.raises(FetchRefused, match=why):
            await Fetcher(resolve=resolve, time_max_s=0.2).get("https://idp.example/")


@requirement("GW-10")
async def test_nobody_listens() -> None:
    async with site(b"") as there:
        pass
    with pytest.raises(FetchRefused, match="cannot be reached"):
        await Fetcher(LOCAL).get(there.url())


@requirement("GW-10")
async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(ok(b"{}")) as proxy, site(ok(b"{}")) as there:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        await Fetcher(LOCAL).get(there.url())
    assert (proxy.connections, there.connections) == (0, 1)


@requirement("GW-10")
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":1,"a":2}', b"\xff", b"[" * 10_000])
async def test_a_document_that_is_no_json_object_is_refused(body: bytes) -> None:
    async with site(ok(body)) as there:
        fetched = await Fetcher(LOCAL).get(there.url())
    with pytest.raises(FetchRefused, match="did not answer with"):
        fetched.json()


@requirement("GW-10")
async def test_a_header_cannot_be_smuggled_in() -> None:
    async with site(ok(b"{}")) as there:
        with pytest.raises(FetchRefused, match="cannot be written"):
            await Fetcher(LOCAL).get(there.url(), headers={"x": "a\r\nevil: b"})
    assert there.heads == []
