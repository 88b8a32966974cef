"""A certified OpenID provider, trusted by configuration alone (ID-3, ID-4, ID-5)."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from gateways import Gateway, Server, Wire, decisions, denied, running, start_matrix_server, url_of
from homes import BOB, Home
from issuing import ec_key, proof
from requirements import requirement
from signing_in import issuer_of

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "provider"))

from provider import NotInstalled, Provider, installed, signing_key

from exeat.app.observe import fetch_definitions
from exeat.core.errors import Conflict
from exeat.core.ids import AgentId
from exeat.core.upstream_auth import AuthMode, UpstreamAuth
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.service.clients import Clients, New

pytestmark = pytest.mark.long
TOOL = "add"
CONFIGURED = """
[[issuers]]
url = "{issuer}"

[issuers.introspection]
client_id = "exeat"
secret_from = "EXEAT_INTROSPECTION_SECRET"
"""


@dataclass
class Place:
    home: Home
    gateway: Gateway
    provider: Provider
    definitions: list[dict[str, Any]]

    @property
    def resource(self) -> str:
        return self.gateway.endpoint("up")

    def call(self, token: str, scheme: str = "Bearer", **fields: str) -> tuple[int, str]:
        """HTTP status, and the reason if it was denied."""
        wire = Wire(self.gateway.port, token, "/mcp/up")
        wire.more = {"Authorization": f"{scheme} {token}", **fields}
        answer = wire.call(TOOL, a=1, b=2)
        if wire.status != 200:
            return wire.status, str(answer["error"]["data"]["reason"])
        return wire.status, denied(answer)


def eventually(holds: Callable[[], bool]) -> None:
    """Of another process, within half a minute."""
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    try:
        installed()
    except NotInstalled as failed:
        pytest.skip(f"no npm here: {failed}")
    path = tmp_path_factory.mktemp("provider") / "home"
    home = Home(path)
    provider = Provider()
    (path / "exeat.toml").write_text(CONFIGURED.format(issuer=provider.issuer))
    upstream: Server = start_matrix_server()
    with running(upstream):
        server = home.server("up", url=url_of(upstream))
        spec = home.state.snapshot().specs[server]
        definitions = asyncio.run(fetch_definitions(spec, path))
        home.pin_all(server, definitions)
        home.pin_all(home.server("beside", url=url_of(upstream)), definitions)
        home.policy('@id("all") permit(principal, action, resource);')
        for name in ("invoice-bot", "planner-bot", "worker-bot"):
            home.agent(name, ["up", "beside"])
        for client in ("invoice-service", "planner", "worker"):
            agent = AgentId(f"{client.removesuffix('-service')}-bot")
            home.registry.bind(provider.issuer, client, None, agent, home.act())
        home.registry.bind_person(provider.issuer, "u-bob", BOB, home.act())
        gateway = Gateway(path, introspection_secret="exeat-secret-of-the-tests")
        try:
            yield Place(home, gateway, provider, definitions)
        finally:
            Wire.close_all()
            gateway.stop()
            provider.stop()


@requirement("ID-1", "ID-3")
def test_client_credentials_for_this_resource_only(place: Place) -> None:
    token = place.provider.token("invoice-service", place.resource)
    assert place.call(token) == (200, "")
    leaf, _, _ = decisions(place.home.path)[-1]
    assert (leaf.agent.id, leaf.user) == ("invoice-bot", "")
    assert leaf.chain[:2] == (f"issuer {place.provider.issuer}", "client invoice-service")
    other = place.provider.token("invoice-service", place.gateway.endpoint("other"))
    assert place.call(other) == (401, "unauthenticated")
    little = place.provider.token("invoice-service", place.resource, "mcp:read")
    assert place.call(little) == (403, "insufficient_scope")


@requirement("ID-5")
def test_a_user_who_signed_in_and_a_client_that_is_adopted(place: Place) -> None:
    token = place.provider.sign_in("u-bob", place.resource)["access_token"]
    assert place.call(token) == (200, "agent_unregistered")

    def met() -> str:
        with place.home.state.registry.read() as read:
            return next((each.id for each in read.strangers() if each.client == "desktop"), "")

    eventually(lambda: met() != "")
    stranger = place.home.registry.stranger(met())
    assert (stranger.user, stranger.tried) == (BOB, {"up/add"})
    place.home.agent("desktop-bob", ["up"])
    place.home.registry.bind(
        stranger.issuer, stranger.client, BOB, AgentId("desktop-bob"), place.home.act()
    )
    eventually(lambda: place.call(token) == (200, ""))
    leaf, _, _ = decisions(place.home.path)[-1]
    assert (leaf.agent.id, leaf.user, leaf.user_live) == ("desktop-bob", "bob", True)
    unknown = place.provider.sign_in("u-zoe", place.resource)["access_token"]
    assert place.call(unknown) == (200, "agent_unregistered")


@requirement("ID-1", "ID-3")
@pytest.mark.parametrize("who", ["u-bob", ""])
def test_no_token_of_the_provider_is_good_at_another_endpoint(place: Place, who: str) -> None:
    """A person's, who signed in, and a workload's; each way round, and the endpoint of all servers, too."""
    paths = {name: place.gateway.endpoint(name) for name in ("up", "beside", "")}
    tokens = {
        name: place.provider.sign_in(who, resource)["access_token"]
        if who
        else place.provider.token("invoice-service", resource)
        for name, resource in paths.items()
    }
    for name, token in tokens.items():
        for other, resource in paths.items():
            path = urlsplit(resource).path
            wire = Wire(place.gateway.port, token, path)
            wire.call(TOOL if other else f"up__{TOOL}", a=1, b=2)
            if name == other:
                assert wire.status == 200, (name, other)
                continue
            assert wire.status == 401, (name, other)
            assert wire.fields["www-authenticate"].partition(", scope=")[0] == (
                'Bearer realm="exeat", error="invalid_token", error_description='
                '"The token is for another resource", resource_metadata="'
                f'{resource.removesuffix(path)}/.well-known/oauth-protected-resource{path}"'
            )


@requirement("ID-5")
def test_an_exchanged_token_names_every_link(place: Place) -> None:
    first = place.provider.token("planner", place.resource)
    second = place.provider.exchange("worker", first, place.resource)
    assert place.call(second)[0] == 200
    leaf, _, _ = decisions(place.home.path)[-1]
    assert leaf.agent.id == "worker-bot"
    third = place.provider.exchange("invoice-service", second, place.resource)
    place.call(third)
    leaf, _, _ = decisions(place.home.path)[-1]
    assert leaf.agent.id == "invoice-bot"
    assert "actor worker-bot" in leaf.chain


@requirement("ID-5", "ID-7")
def test_the_provider_vouches_for_a_user(place: Place) -> None:
    """ID-JAG: no browser, no consent page; the enterprise decided."""
    home, issuer = place.home, issuer_of(place.gateway)
    act = home.act()
    doing = Doing(act.actor, act.channel, act.at, act.reason)
    new = New("desk", 30, ("https://desk.example/callback",), secret=True)
    client, secret = Clients(home.state.authorization, os.urandom).add(new, doing)
    home.agent("desk-bob", ["up"])
    home.registry.bind(issuer, client.id, BOB, AgentId("desk-bob"), home.act())
    mine = place.provider.sign_in("u-bob", place.resource)["access_token"]
    assertion = place.provider.vouch("worker", mine, place.resource, issuer, client.id)
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion,
        "client_id": client.id, "client_secret": secret,
    }  # fmt: skip
    token = httpx2.post(f"{issuer}/oauth/token", data=form, timeout=15).json()["access_token"]
    eventually(lambda: place.call(token) == (200, ""))
    leaf, _, _ = decisions(home.path)[-1]
    assert (leaf.agent.id, leaf.user) == ("desk-bob", "bob")
    again = httpx2.post(f"{issuer}/oauth/token", data=form, timeout=15)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


@requirement("ID-9", "ID-5")
def test_a_users_token_is_exchanged_for_one_of_the_server_behind(
    place: Place, tmp_path: Path
) -> None:
    """Agent, gateway, gateway, server: the user's own token goes to the issuer that gave it, never on;
    what arrives behind names the user and every link."""
    front = Home(tmp_path / "front")
    (front.path / "exeat.toml").write_text(CONFIGURED.format(issuer=place.provider.issuer))
    auth = UpstreamAuth(
        AuthMode.TOKEN_EXCHANGE, issuer=place.provider.issuer, client_id="planner",
        secret_from="EXEAT_PLANNER_SECRET", subject_from="caller",
    )  # fmt: skip
    behind = front.server("up", url=place.resource, auth=auth)
    front.pin_all(behind, place.definitions)
    front.policy('@id("all") permit(principal, action, resource);')
    key = front.agent("desktop-bob", ["up"])
    front.registry.bind(place.provider.issuer, "desktop", BOB, AgentId("desktop-bob"), front.act())
    front.registry.bind_person(place.provider.issuer, "u-bob", BOB, front.act())
    place.home.agent("front-desk", ["up"])
    with suppress(Conflict):
        place.home.registry.bind(
            place.provider.issuer, "desktop", BOB, AgentId("front-desk"), place.home.act()
        )
    secrets = {"introspection_secret": "x", "planner_secret": "planner-secret-of-the-tests"}
    with running(Gateway(front.path, **secrets)) as gateway:
        before = Place(front, gateway, place.provider, place.definitions)
        token = place.provider.sign_in("u-bob", before.resource)["access_token"]
        eventually(lambda: before.call(token) == (200, ""))
        leaf, _, _ = decisions(place.home.path)[-1]
        assert (leaf.agent.id, leaf.user) == ("planner-bot", "bob")
        assert leaf.chain[-1].startswith("actor ")
        assert place.call(token)[0] == 401  # it would open nothing there
        wire = Wire(gateway.port, key, "/mcp/up")  # an agent's key is exchanged for nothing
        assert "exchange" in str(wire.call(TOOL, a=1, b=2))
    front.state.close()


@requirement("ID-4")
def test_a_token_that_the_provider_bound_to_a_key(place: Place) -> None:
    key = ec_key()
    now = time.time()
    at = proof(
        key, "", url=f"{place.provider.issuer}/token", ath=None, iat=int(now), jti="token-request"
    )
    token = place.provider.token("worker", place.resource, DPoP=at)

    def call(**claims: str) -> tuple[int, str]:
        dpop = proof(key, token, url=place.resource, iat=int(now), **claims)
        return place.call(token, "DPoP", DPoP=dpop)

    assert call(jti="a") == (200, "")
    assert call(jti="a") == (401, "unauthenticated")
    assert place.call(token) == (401, "unauthenticated")


@requirement("ID-3")
def test_rotation_and_an_issuer_that_is_down(place: Place) -> None:
    token = place.provider.token("invoice-service", place.resource)
    assert place.call(token) == (200, "")
    place.provider.stop()
    assert place.call(token) == (200, "")  # its keys are known
    opaque = place.call("opaque-nobody-can-ask-about")
    assert opaque == (503, "issuer_unreachable")
    place.provider.restart(signing_key("two"))
    new = place.provider.token("invoice-service", place.resource)
    # an unknown key makes us ask, but not every moment
    eventually(lambda: place.call(new) == (200, ""))
