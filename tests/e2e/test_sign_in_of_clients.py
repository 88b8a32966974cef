"""The reference client signs in by itself: discovery, registration, consent, token, call (ID-7)."""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from certificates import Authority
from gateways import (
    Gateway,
    Wire,
    decisions,
    entries,
    environ,
    permit_all,
    running,
    start_matrix_server,
    url_of,
)
from homes import ADA, BOB, Home
from issuing import ec_key
from joserfc import jwt
from mcp import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthToken
from portal import authorize_path
from requirements import requirement
from signing_in import CALLBACK, Kept, Person, issuer_of, stock_client

from exeat.evidence.model import EventLeaf
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.rules.credentials import ASSERTION
from exeat.identity.authorization.service.clients import Clients
from exeat.identity.signin.service import RelyingParty, SignIn

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.anyio


class World:
    def __init__(self, home: Home, gateway: Gateway) -> None:
        self.home, self.gateway = home, gateway
        self.issuer = issuer_of(gateway)
        self.sign_in = SignIn(
            home.state.sign_in, RelyingParty("localhost", self.issuer), os.urandom
        )

    def person(self, who: str = ADA) -> Person:
        act = self.home.act()
        doing = Doing(act.actor, act.channel, act.at, act.reason)
        found = Person(self.issuer)
        found.sign_in(f"{self.issuer}/link/{self.sign_in.make_link(who, doing)}")  # type: ignore[arg-type]
        return found

    def let_register(self) -> None:
        act = self.home.act()
        clients = Clients(self.home.state.authorization, os.urandom)
        clients.open_window(5, Doing(act.actor, act.channel, act.at, act.reason))


class Publisher:
    """A product's web site: its client's document over https, with a certificate of our own authority."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        certificate, key = authority.issue("localhost")
        self.ca, self.asked = authority.path, 0
        self.more: dict[str, dict[str, Any]] = {}
        publisher = self

        class Pages(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked += 1
                said = publisher.more.get(self.path, publisher.document)
                body = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.host = f"localhost:{self.server.server_port}"
        self.client_id = f"https://{self.host}/client.json"
        self.document = {
            "client_id": self.client_id,
            "client_name": "A product",
            "redirect_uris": [CALLBACK],
            "grant_types": ["authorization_code", "refresh_token"],
        }
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher) -> Iterator[World]:
    with running(start_matrix_server()) as upstream:
        home = Home(tmp_path_factory.mktemp("signing-in") / "home")
        for name in ("m", "n"):
            home.pin_all(home.server(name, url=url_of(upstream)))
        for agent in ("bot", "second"):
            home.agent(agent, ["m", "n"])
        permit_all(home, "bot", "second")
        allowed = {"internal_hosts": f'["{publisher.host}"]', "internal_ca": str(publisher.ca)}
        with running(Gateway(home.path, **allowed)) as gateway:
            yield World(home, gateway)
        home.state.close()


def until(holds: Callable[[], object]) -> None:
    """A change by another process is seen at the gateway's next look."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end


async def call(url: str, provider: httpx2.Auth, tool: str = "add", **arguments: int) -> Any:
    async with (
        httpx2.AsyncClient(auth=provider, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        return await client.call_tool(tool, arguments or {"a": 1, "b": 2})


def said(result: Any) -> str:
    return "".join(block.text for block in result.content)


def last_call(world: World) -> tuple[str, str, str]:
    """Agent, user and what came of it."""
    found = [d for d in decisions(world.home.path) if d[0].action.method == "tools/call"]
    leaf, _, status = found[-1]
    return leaf.agent.id, leaf.user, status


def raw(world: World, server: str, token: str) -> Wire:
    """One call with a token, as no client of the SDK would make it."""
    wire = Wire(world.gateway.port, token, f"/mcp/{server}")
    wire.call("add", a=1, b=2)
    wire.http.close()
    return wire


@requirement("ID-7")
@requirement("ID-8")
async def test_the_whole_dance(world: World) -> None:
    """Discovery, registration, consent with a choice of agent, code, token, call: by itself."""
    world.let_register()
    person, kept = world.person(), Kept()
    url = world.gateway.endpoint("m")
    assert said(await call(url, stock_client(url, person, kept, agent="bot"))) == "3"
    assert last_call(world) == ("bot", "ada", "ok")
    assert kept.tokens is not None and kept.client is not None
    again = stock_client(url, person, kept, decision="deny")  # its token holds: nobody is asked
    assert said(await call(url, again)) == "3"
    person.close()
    everything = world.gateway.output + "".join(
        path.read_bytes().decode("latin-1") for path in world.home.path.rglob("*") if path.is_file()
    )
    for secret in (kept.tokens.access_token, kept.tokens.refresh_token):
        assert secret is not None and secret not in everything


@requirement("ID-7")
def test_the_agent_of_the_how_to_signs_in(world: World, tmp_path: Path) -> None:
    """The page's own code, with another address: printed link, consent, list of tools."""
    page = (ROOT / "docs" / "how-to" / "sign-in-a-client.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    url = world.gateway.endpoint("m")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = f"PORT = {free.getsockname()[1]}"
    code = code.replace("http://127.0.0.1:8717/mcp/time", url).replace("PORT = 33418", port)
    (tmp_path / "agent.py").write_text(code)
    world.let_register()
    person = world.person()
    with subprocess.Popen(
        [sys.executable, "agent.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        link = agent.stdout.readline().removeprefix("Sign in: ").strip()
        assert httpx2.get(person.sent_to(link, agent="second")).status_code == 200
        assert "'add'" in agent.stdout.read()
    assert agent.returncode == 0
    person.close()


@requirement("GW-10")
@requirement("ID-7")
async def test_a_client_that_is_known_by_its_address(world: World, publisher: Publisher) -> None:
    """CIMD: no registration; the document is fetched through the guard, whose list holds that host."""
    person, kept = world.person(), Kept()
    url = world.gateway.endpoint("m")
    provider = stock_client(url, person, kept, publisher.client_id, agent="second")
    assert said(await call(url, provider)) == "3"
    assert last_call(world) == ("second", "ada", "ok")
    assert kept.client is not None and kept.client.client_id == publisher.client_id
    assert publisher.asked == 1
    for address in ("https://127.0.0.1:1/x", "https://169.254.169.254/x", "https://10.0.0.1/x"):
        page = person.http.get(authorize_path(address))
        assert page.status_code == 401 and "could not be fetched" in page.text
    person.close()


@requirement("ID-1")
@requirement("ID-7")
async def test_a_token_is_for_one_endpoint_and_ends_when_it_is_given_back(world: World) -> None:
    world.let_register()
    person, kept = world.person(), Kept()
    url = world.gateway.endpoint("m")
    await call(url, stock_client(url, person, kept, agent="bot"))
    assert kept.tokens is not None and kept.client is not None
    token = kept.tokens.access_token
    assert raw(world, "m", token).status == 200
    other = raw(world, "n", token)
    assert other.status == 401 and 'error="invalid_token"' in other.fields["www-authenticate"]
    form = {"token": kept.tokens.refresh_token, "client_id": kept.client.client_id}
    assert person.http.post("/oauth/revoke", data=form).status_code == 200
    assert raw(world, "m", token).status == 401  # the very next call
    # the client notices, and asks the person anew
    assert said(await call(url, stock_client(url, person, kept))) == "3"
    person.close()


@requirement("ID-1", "ID-7")
async def test_no_token_is_good_at_an_endpoint_that_it_was_not_given_for(world: World) -> None:
    """A person signed in for each endpoint; each token at each of the three, and no way from one to
    another: not by refreshing, not by exchange, not at the listener where people sign in."""
    person, tokens, client = world.person(), dict[str, OAuthToken](), ""
    for server in ("m", "n", ""):
        world.let_register()
        kept, url = Kept(), world.gateway.endpoint(server)
        async with httpx2.AsyncClient(
            auth=stock_client(url, person, kept, agent="bot"), timeout=30
        ) as http:
            await http.get(url)
        assert kept.tokens is not None and kept.client is not None
        tokens[server], client = kept.tokens, str(kept.client.client_id)
    for server, token in tokens.items():
        for other in tokens:
            status, challenge = at(world, other, token.access_token)
            if other == server:
                assert status == 200, (server, other)
                continue
            assert status == 401, (server, other)
            assert challenge == {
                "realm": "exeat",
                "error": "invalid_token",
                "error_description": "The token is for another resource",
                "resource_metadata": f"{world.gateway.url.removesuffix('/mcp')}"
                f"/.well-known/oauth-protected-resource/mcp{'/' if other else ''}{other}",
                "scope": "mcp:read mcp:write mcp:delete mcp:execute mcp:send mcp:pay",
            }
        page = person.http.get(
            f"{world.issuer}/passkeys",
            headers={"Authorization": f"Bearer {token.access_token}", "Cookie": ""},
        )
        assert page.status_code == 303 and page.headers["location"].startswith("/sign-in")
    last = tokens[""]  # of the client that was kept last
    elsewhere = {"client_id": client, "resource": world.gateway.endpoint("m")}
    form = {"grant_type": "refresh_token", "refresh_token": last.refresh_token, **elsewhere}
    answer = person.http.post("/oauth/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target")
    exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
    form = {"grant_type": exchange, "subject_token": last.access_token, **elsewhere}
    answer = person.http.post("/oauth/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")
    person.close()


def at(world: World, server: str, token: str) -> tuple[int, dict[str, str]]:
    """Status and challenge of a call with that token."""
    wire = Wire(world.gateway.port, token, f"/mcp/{server}" if server else "/mcp")
    wire.call("add" if server else "m__add", a=1, b=2)
    wire.http.close()
    return wire.status, dict(
        re.findall(r'(\w+)="([^"]*)"', wire.fields.get("www-authenticate", ""))
    )


@requirement("GW-10", "ID-7")
async def test_a_strangers_addresses_lead_nowhere_inside(
    world: World, publisher: Publisher
) -> None:
    """SSRF by a client's own document: its id, its keys, its logo and pages.  Nothing inside is so much as
    connected to, although a person is asked about the client and it shows an assertion."""
    person, url, key = world.person(), world.gateway.endpoint("m"), ec_key()

    def published(**said: Any) -> str:
        path = f"/{len(publisher.more)}.json"
        name = f"https://{publisher.host}{path}"
        publisher.more[path] = {**publisher.document, "client_id": name, **said}
        return name

    def shown(name: str) -> int:
        page = person.http.get(authorize_path(name, resource=url, redirect_uri=CALLBACK))
        assert "location" not in page.headers
        return page.status_code

    def signs(name: str) -> tuple[int, str]:
        now = int(time.time())
        claims = {"iss": name, "sub": name, "aud": world.issuer, "jti": name, "exp": now + 60}
        form = {
            "grant_type": "authorization_code", "code": "c", "client_id": name,
            "redirect_uri": CALLBACK, "code_verifier": "v" * 64, "resource": url,
            "client_assertion_type": ASSERTION,
            "client_assertion": jwt.encode({"alg": "ES256"}, claims, key),
        }  # fmt: skip
        answer = httpx2.post(f"{world.issuer}/oauth/token", data=form)
        return answer.status_code, answer.json()["error"]

    by_key = {"token_endpoint_auth_method": "private_key_jwt"}
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.setblocking(False)
        port = inside.getsockname()[1]
        for where in (f"https://localhost:{port}/x", f"https://127.0.0.1:{port}/x"):
            assert shown(where) == 401
            for member in ("logo_uri", "client_uri", "tos_uri", "policy_uri"):
                assert shown(published(**{member: where})) == 200
            assert signs(published(jwks_uri=where, **by_key)) == (401, "invalid_client")
        fetched = publisher.asked
        for where in (f"http://127.0.0.1:{port}/x", "https://169.254.169.254/x", "file:///x"):
            assert signs(published(jwks_uri=where, **by_key)) == (401, "invalid_client")
        with pytest.raises(BlockingIOError):
            inside.accept()
    listed = (
        f"https://{publisher.host}/keys.json"  # the guard would let it, but nobody authorized it
    )
    publisher.more["/keys.json"] = {"keys": [key.as_dict(private=False)]}
    assert signs(published(jwks_uri=listed, **by_key)) == (401, "invalid_client")
    assert publisher.asked == fetched, "at the token endpoint a stranger has nothing fetched"
    person.close()


@requirement("ID-5")
async def test_a_client_that_is_no_agent_yet_is_denied(world: World) -> None:
    world.let_register()
    person, kept = world.person(BOB), Kept()
    url = world.gateway.endpoint("m")
    with pytest.raises(ExceptionGroup) as caught:
        await call(url, stock_client(url, person, kept))
    assert "no agent is registered for this client" in repr(_leaves(caught.value))
    person.close()


@requirement("ID-7")
async def test_a_person_who_says_no(world: World) -> None:
    world.let_register()
    person, kept = world.person(), Kept()
    url = world.gateway.endpoint("m")
    with pytest.raises(ExceptionGroup) as caught:
        await call(url, stock_client(url, person, kept, decision="deny"))
    assert "authorization code" in repr(_leaves(caught.value)) and kept.tokens is None
    person.close()


@requirement("ID-6")
@requirement("ID-7")
async def test_an_agent_signs_in_by_itself(world: World) -> None:
    """The SDK's client credentials provider, with the id and secret of `exeat client add`."""
    argv = [sys.executable, "-m", "exeat.cli.main", "client", "add", "worker", "--agent", "second"]
    done = subprocess.run(
        [*argv, "--home", str(world.home.path), "--as", "ada"],
        capture_output=True, text=True, check=True,
        env=environ(EXEAT_CONTROL_PORT=world.issuer.rpartition(":")[2]),
    )  # fmt: skip
    client_id, secret = re.findall(r"(?:client id|secret): (\S+)", done.stdout)
    url = world.gateway.endpoint("m")
    form = {"grant_type": "client_credentials", "resource": url, "scope": "mcp:read"}
    given = httpx2.post(f"{world.issuer}/oauth/token", data=form, auth=(client_id, secret)).json()[
        "access_token"
    ]
    until(lambda: "insufficient_scope" in raw(world, "m", given).fields.get("www-authenticate", ""))
    provider = ClientCredentialsOAuthProvider(url, Kept(), client_id, secret, issuer=world.issuer)
    assert said(await call(url, provider)) == "3"
    assert last_call(world) == ("second", "", "ok")
    wrong = ClientCredentialsOAuthProvider(
        url, Kept(), client_id, secret[:-1] + "x", issuer=world.issuer
    )
    with pytest.raises(ExceptionGroup) as caught:
        await call(url, wrong)
    assert "invalid_client" in repr(_leaves(caught.value))


@requirement("REG-3")
def test_what_happened_is_on_record(world: World) -> None:
    kinds = {e.leaf.event for e in entries(world.home.path) if isinstance(e.leaf, EventLeaf)}
    assert {
        "registration.opened", "client.registered", "link.made", "link.used", "client.bound",
        "authorization.granted", "authorization.revoked", "tokens.ended",
    } <= kinds  # fmt: skip


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error, *([error.__context__] if error.__context__ else [])]
