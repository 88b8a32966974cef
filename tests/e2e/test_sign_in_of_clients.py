"""The reference client signs in by itself: discovery, registration, consent, token, call (ID-7)."""

import os
from collections.abc import Iterator

import httpx2
import pytest
from gateways import (
    Gateway,
    decisions,
    permit_all,
    running,
    start_matrix_server,
    url_of,
)
from homes import ADA, Home
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from requirements import requirement
from signing_in import Kept, Person, issuer_of, stock_client

from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.service.clients import Clients
from exeat.identity.signin.service import RelyingParty, SignIn

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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(start_matrix_server()) as upstream:
        home = Home(tmp_path_factory.mktemp("signing-in") / "home")
        for name in ("m", "n"):
            home.pin_all(home.server(name, url=url_of(upstream)))
        for agent in ("bot", "second"):
            home.agent(agent, ["m", "n"])
        permit_all(home, "bot", "second")
        with running(Gateway(home.path)) as gateway:
            yield World(home, gateway)
        home.state.close()


async def call(url: str, provider: httpx2.Auth) -> object:
    async with (
        httpx2.AsyncClient(auth=provider, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        return await client.call_tool("add", {"a": 1, "b": 2})


@requirement("ID-7")
@requirement("ID-8")
async def test_the_whole_dance(world: World) -> None:
    world.let_register()
    person, kept = world.person(), Kept()
    url = world.gateway.endpoint("m")
    result = await call(url, stock_client(url, person, kept, agent="bot"))
    assert "3" in repr(result)
    assert kept.tokens is not None and kept.client is not None
    leaf, values, status = decisions(world.home.path)[-1]
    print(leaf, values, status)
    # the same client again: nobody is asked, as its token still holds
    assert "3" in repr(await call(url, stock_client(url, person, kept, agent="none")))
    person.close()
    printed = world.gateway.output
    for secret in (kept.tokens.access_token, kept.tokens.refresh_token):
        assert secret is not None and secret not in printed
