"""ID-9: credentials for upstreams, against a real local authorization server."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from local_as import LocalAs
from local_site import Answer, local_site
from requirements import requirement

from exeat.adapters.consent import WAITING_S, Consent
from exeat.adapters.consent_links import LIFE_S, ConsentLinks, Wish
from exeat.adapters.fetch import Fetcher
from exeat.adapters.held_tokens import MemoryTokens
from exeat.adapters.oauth_client import OAuthClient
from exeat.adapters.upstream_credentials import RELOAD_S, UpstreamCredentials
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.core.upstream_auth import (
    NO_CREDENTIAL,
    AuthMode,
    ConsentNeeded,
    Credential,
    CredentialFailed,
    Refused,
    UpstreamAuth,
)
from exeat.identity.model.client import Client, ClientAuth
from exeat.identity.upstream.consent import ConsentRefused

pytestmark = pytest.mark.anyio
S = 1_000_000_000
ANN, BOB = "bot/ann", "bot/bob"
PAGE = "http://localhost:8718/upstreams"
CODE = UpstreamAuth(AuthMode.AUTHORIZATION_CODE)


@dataclass
class World:
    """One server behind ``site``'s authorization server."""

    site: LocalAs
    auth: UpstreamAuth = CODE
    now: int = 1_700_000_000 * S
    store: MemoryTokens = field(default_factory=MemoryTokens)
    notices: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)
    document: str = ""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        oauth = OAuthClient(Fetcher(frozenset({"127.0.0.1"})), lambda: self.now)
        self.links = ConsentLinks(bytes(32), lambda: self.now)
        self.credentials = UpstreamCredentials(
            lambda url: oauth, self.store, self.links, lambda: self.now,
            lambda *notice: self.notices.append(notice), page=PAGE, document=self.document,
        )  # fmt: skip
        self.consent = Consent(self.credentials, lambda name: self.spec, lambda: self.now)

    @property
    def spec(self) -> ServerSpec:
        url = f"{self.site.site.url}/mcp"
        return ServerSpec(ServerId("drive"), Transport.HTTP, url=url, auth=self.auth)

    def account(self, principal: str = ANN) -> Any:
        return self.credentials.account(self.spec, principal)

    async def link(self, principal: str = ANN, header: str = "Bearer", status: int = 401) -> str:
        """What the person is sent to after the server refused."""
        account = self.account(principal)
        held = await account.obtain(None)
        with pytest.raises(ConsentNeeded) as needed:
            await account.obtain(Refused(held, status, header))
        return str(needed.value.url).removeprefix(f"{PAGE}/consent/")

    async def consented(self, principal: str = ANN, **link: Any) -> Credential:
        """After the person went all the way."""
        sealed = await self.link(principal, **link)
        person = principal.partition("/")[2]
        url = await self.consent.begin(sealed, person)
        assert await self.consent.finish(self.site.authorize(url), person) == "drive"
        found: Credential | None = self.account(principal).current()
        assert found is not None
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with local_site() as site:
        yield World(LocalAs(site))


@requirement("ID-9")
async def test_a_person_consents_and_the_server_is_used_for_them(world: World) -> None:
    account = world.account()
    assert await account.obtain(None) == NO_CREDENTIAL  # the server says what it wants
    header = f'Bearer scope="read", resource_metadata="{world.site.site.url}/.well-known/oauth-protected-resource/mcp"'
    credential = await world.consented(header=header)
    assert credential.value.startswith("Bearer access-")
    token = world.site.tokens[0]
    assert token["resource"] == f"{world.site.site.url}/mcp"
    assert token["redirect_uri"] == f"{PAGE}/callback"
    pair = base64.b64decode(token["authorization"].removeprefix("Basic ")).decode()
    assert pair == "client-1:s3cret" and "client_secret" not in token
    registered = world.site.clients["client-1"]
    assert registered["application_type"] == "native"
    kind, server, details = world.notices[-1]
    assert (kind, server, details["whose"]) == ("upstream.credential_obtained", "drive", ANN)
    assert "access-" not in str(world.notices) and "refresh-" not in str(world.notices)


@requirement("ID-9")
async def test_access_is_the_persons_own(world: World) -> None:
    await world.consented(ANN)
    assert world.account(BOB).current() is None
    assert await world.account(BOB).obtain(None) == NO_CREDENTIAL
    assert await world.account("other/ann").obtain(None) == NO_CREDENTIAL
    await world.consented(BOB)
    assert world.account(ANN).current() != world.account(BOB).current()


@requirement("ID-9")
async def test_a_link_that_is_passed_on_gives_nothing(world: World) -> None:
    """The phishing of the specification: Alice has Bob open her link."""
    link = await world.link(ANN)
    for verb in (world.consent.show, world.consent.begin):
        with pytest.raises(ConsentRefused, match="another person"):
            await verb(link, "bob")
    url = await world.consent.begin(link, "ann")
    answer = world.site.authorize(url)  # and Bob's browser cannot bring back what Ann's began
    with pytest.raises(ConsentRefused, match="another person"):
        await world.consent.finish(answer, "bob")
    assert world.account(ANN).current() == NO_CREDENTIAL and world.site.tokens == []


@requirement("ID-9")
async def test_an_answer_is_taken_once_in_time_and_only_for_what_was_begun(world: World) -> None:
    url = await world.consent.begin(await world.link(), "ann")
    answer = world.site.authorize(url)
    for forged in ({}, {**answer, "state": "x"}, {"code": "c"}):
        with pytest.raises(ConsentRefused, match="no consent under way"):
            await world.consent.finish(forged, "ann")
    await world.consent.finish(answer, "ann")
    with pytest.raises(ConsentRefused, match="no consent under way"):
        await world.consent.finish(answer, "ann")
    late = world.site.authorize(await world.consent.begin(await world.link(BOB), "bob"))
    world.now += WAITING_S * S
    with pytest.raises(ConsentRefused, match="too late"):
        await world.consent.finish(late, "bob")
    assert len(world.site.tokens) == 1


@requirement("ID-9")
@pytest.mark.parametrize("told", [None, "https://evil.example", "{issuer}/"])
async def test_a_code_of_another_issuer_is_never_shown(world: World, told: str | None) -> None:
    """Mix-up (RFC 9207): the code goes nowhere, and the consent is over."""
    answer = world.site.authorize(await world.consent.begin(await world.link(), "ann"))
    answer.pop("iss")
    if told is not None:
        answer["iss"] = told.format(issuer=world.site.issuer)
    with pytest.raises(CredentialFailed, match="answer"):
        await world.consent.finish(answer, "ann")
    with pytest.raises(ConsentRefused, match="no consent under way"):
        await world.consent.finish({**answer, "iss": world.site.issuer}, "ann")
    assert world.site.tokens == []


@requirement("ID-9")
async def test_an_error_of_another_issuer_is_not_believed(world: World) -> None:
    answer = world.site.authorize(await world.consent.begin(await world.link(), "ann"))
    forged = {"state": answer["state"], "iss": "https://evil.example", "error": "access_denied"}
    with pytest.raises(CredentialFailed, match="another authorization server"):
        await world.consent.finish(forged, "ann")


@requirement("ID-9")
async def test_an_error_of_the_server_is_told_without_its_words(world: World) -> None:
    answer = world.site.authorize(await world.consent.begin(await world.link(), "ann"))
    answer = {
        "state": answer["state"],
        "iss": answer["iss"],
        "error": "access_denied",
        "error_description": "<x>",
    }
    with pytest.raises(ConsentRefused, match="gave no access") as refused:
        await world.consent.finish(answer, "ann")
    assert "<x>" not in str(refused.value)


@requirement("ID-9")
async def test_links_are_sealed_bound_and_end(world: World) -> None:
    link = await world.link()
    assert "ann" not in link and "drive" not in link
    assert world.links.open(link) is not None
    for spoilt in (link[:-2] + "AA", link + "x", "", "a.b.c", link[: len(link) // 2]):
        assert world.links.open(spoilt) is None
    assert ConsentLinks(bytes([1]) * 32, lambda: world.now).open(link) is None
    world.now += LIFE_S * S
    with pytest.raises(ConsentRefused, match="not valid"):
        await world.consent.show(link, "ann")


@requirement("ID-9")
async def test_nobody_consents_for_an_agent_that_acts_for_nobody(world: World) -> None:
    account = world.account("bot/-")
    with pytest.raises(CredentialFailed, match="acts for nobody"):
        await account.obtain(Refused(await account.obtain(None), 401, "Bearer"))


@requirement("ID-9")
async def test_an_ended_token_is_refreshed_once_for_all_and_rotated(world: World) -> None:
    first = await world.consented()
    world.now += 3600 * S
    account = world.account()
    assert account.current() is None
    found = await asyncio.gather(*(account.obtain(None) for _ in range(10)))
    assert len(set(found)) == 1 and found[0] != first
    assert [each["grant_type"] for each in world.site.tokens] == [
        "authorization_code",
        "refresh_token",
    ]
    assert world.site.tokens[1]["resource"] == f"{world.site.site.url}/mcp"
    world.now += 3600 * S
    third = await account.obtain(None)  # with the rotated refresh token
    assert third not in (first, found[0]) and third.value.startswith("Bearer access-")


@requirement("ID-9")
@pytest.mark.parametrize(("life", "used"), [(1, 1), (20, 10), (30, 15), (60, 30), (3600, 3570)])
async def test_a_token_of_any_life_is_used_and_renewed_before_its_end(
    world: World, life: int, used: int
) -> None:
    world.site.answer = {"expires_in": life}
    first = await world.consented()
    account = world.account()
    world.now += (used - 1) * S
    assert await account.obtain(None) == first and account.current() == first
    world.now += S
    assert account.current() is None
    assert await account.obtain(None) not in (first, NO_CREDENTIAL)
    assert [each["grant_type"] for each in world.site.tokens][1:] == ["refresh_token"]


@requirement("ID-9")
async def test_a_refused_token_is_dropped_and_refreshed_once(world: World) -> None:
    first = await world.consented()
    account = world.account()
    refused = Refused(first, 401, 'Bearer error="invalid_token"')
    found = await asyncio.gather(*(account.obtain(refused) for _ in range(10)))
    assert len(set(found)) == 1 and found[0] != first
    assert len(world.site.tokens) == 2
    world.site.refreshes.clear()  # revoked there: the person is asked again
    with pytest.raises(ConsentNeeded):
        await account.obtain(Refused(found[0], 401, "Bearer"))
    assert account.current() == NO_CREDENTIAL


@requirement("ID-9")
async def test_an_authorization_server_that_is_down_takes_no_consent_away(world: World) -> None:
    await world.consented()
    world.now += 3600 * S
    route = world.site.site.routes["/token"]
    world.site.site.routes["/token"] = Answer(b"down", 503)
    for _ in range(2):
        with pytest.raises(CredentialFailed, match="503"):
            await world.account().obtain(None)
    world.site.site.routes["/token"] = route
    assert (await world.account().obtain(None)).value.startswith("Bearer access-")


@requirement("ID-9", "ID-10")
async def test_tokens_and_registrations_outlive_a_restart(world: World) -> None:
    credential = await world.consented()
    world.restart()
    assert await world.account().obtain(None) == credential
    world.now += 3600 * S
    assert await world.account().obtain(None) != credential
    assert len(world.site.clients) == 1


@requirement("ID-9")
async def test_more_scope_is_asked_for_with_what_was_there(world: World) -> None:
    await world.consented(header='Bearer scope="read"')
    more = 'Bearer error="insufficient_scope", scope="write"'
    sealed = await world.link(header=more, status=403)
    url = await world.consent.begin(sealed, "ann")
    assert "scope=read+write" in url
    await world.consent.finish(world.site.authorize(url), "ann")
    held = await world.account().obtain(None)
    with pytest.raises(CredentialFailed, match="refuses access with the scopes"):
        await world.account().obtain(Refused(held, 403, more))


@requirement("ID-9")
async def test_a_server_cannot_ask_for_more_and_more(world: World) -> None:
    await world.consented(header='Bearer scope="s0"')
    for number in range(1, 4):
        await world.consented(
            header=f'Bearer error="insufficient_scope", scope="s{number}"', status=403
        )
    held = await world.account().obtain(None)
    with pytest.raises(CredentialFailed):
        await world.account().obtain(
            Refused(held, 403, 'Bearer error="insufficient_scope", scope="s9"')
        )


@requirement("ID-9")
async def test_another_authorization_server_gets_nothing_of_the_first(world: World) -> None:
    """Its registration, refresh token and codes stay where they came from."""
    first = await world.consented()
    async with local_site() as other_site:
        other = LocalAs(other_site, resource=world.site.resource)
        world.site.site.routes["/.well-known/oauth-protected-resource/mcp"] = lambda _: Answer(
            other.about_resource()
        )
        with pytest.raises(ConsentNeeded) as needed:
            await world.account().obtain(Refused(first, 401, "Bearer"))
        link = needed.value.url.removeprefix(f"{PAGE}/consent/")
        url = await world.consent.begin(link, "ann")
        assert url.startswith(other_site.url)
        await world.consent.finish(other.authorize(url), "ann")
    assert len(other.clients) == 1 and len(world.site.tokens) == 1
    assert "refresh-" not in str([asked.body for asked in other_site.asked])


@requirement("ID-9")
async def test_a_client_an_operator_registered_is_shown_to_its_issuer_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIVE_SECRET", "own secret")
    world.auth = UpstreamAuth(
        AuthMode.AUTHORIZATION_CODE,
        issuer=world.site.issuer,
        client_id="me",
        secret_from="DRIVE_SECRET",
    )
    await world.consented()
    assert world.site.clients == {}
    assert base64.b64decode(world.site.tokens[0]["authorization"][6:]) == b"me:own+secret"
    async with local_site() as evil_site:
        evil = LocalAs(evil_site, resource=world.site.resource)
        world.site.site.routes["/.well-known/oauth-protected-resource/mcp"] = lambda _: Answer(
            evil.about_resource()
        )
        held = await world.account().obtain(None)
        with pytest.raises(CredentialFailed, match="now sends to"):
            await world.account().obtain(Refused(held, 401, "Bearer"))
        assert evil_site.asked == []


@requirement("ID-9")
async def test_metadata_documents_come_before_registration(world: World) -> None:
    world.document = "https://gw.example/upstreams/client.json"
    world.restart()
    world.site.metadata["client_id_metadata_document_supported"] = True
    await world.consented()
    assert world.site.clients == {}
    assert world.site.tokens[0]["client_id"] == world.document
    assert world.consent.document()["redirect_uris"] == [f"{PAGE}/callback"]


@requirement("ID-9")
async def test_a_server_that_registers_nobody_is_said_to(world: World) -> None:
    world.site.metadata["registration_endpoint"] = None
    link = await world.link()
    with pytest.raises(CredentialFailed, match="does not know this gateway"):
        await world.consent.begin(link, "ann")
    world.site.metadata |= {"registration_endpoint": f"{world.site.site.url}/no"}
    with pytest.raises(CredentialFailed, match="did not register"):
        await world.consent.begin(link, "ann")


@requirement("ID-9", "GW-10")
@pytest.mark.parametrize(
    "metadata",
    [
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://evil.example/authorize"},
        {"token_endpoint": "http://169.254.169.254/latest"},
        {"registration_endpoint": "https://10.0.0.1/register"},
        {"code_challenge_methods_supported": ["plain"]},
        {"code_challenge_methods_supported": None},
        {"authorization_endpoint": None},
        {"issuer": "https://evil.example"},
    ],
)
async def test_metadata_that_leads_elsewhere_is_not_followed(
    world: World, metadata: dict[str, Any]
) -> None:
    link = await world.link()
    world.site.metadata |= metadata
    with pytest.raises(CredentialFailed):
        url = await world.consent.begin(link, "ann")
        await world.consent.finish(world.site.authorize(url), "ann")
    assert world.account().current() == NO_CREDENTIAL


@requirement("ID-9", "GW-10")
async def test_a_challenge_cannot_send_the_gateway_inside(world: World) -> None:
    account = world.account()
    held = await account.obtain(None)
    header = 'Bearer resource_metadata="http://169.254.169.254/latest/meta-data"'
    with pytest.raises(ConsentNeeded):  # the well-known place still serves
        await account.obtain(Refused(held, 401, header))
    world.site.resource = "https://evil.example/mcp"
    with pytest.raises(CredentialFailed, match="another resource"):
        await account.obtain(Refused(held, 401, header))


@requirement("ID-9")
@pytest.mark.parametrize(
    "answer",
    [
        {"token_type": "DPoP"},
        {"access_token": ""},
        {"access_token": "a b"},
        {"access_token": "a\r\nx: y"},
        {"access_token": 7},
        {"access_token": "é"},
    ],
)
async def test_a_token_that_cannot_be_sent_is_refused(world: World, answer: dict[str, Any]) -> None:
    world.site.answer = answer
    sent = world.site.authorize(await world.consent.begin(await world.link(), "ann"))
    with pytest.raises(CredentialFailed, match="no bearer token"):
        await world.consent.finish(sent, "ann")


@requirement("ID-9")
async def test_the_gateways_own_access(world: World, tmp_path: Any) -> None:
    key = ECKey.generate_key("P-256")
    path = tmp_path / "client.pem"
    path.write_bytes(key.as_pem(private=True))
    world.auth = UpstreamAuth(
        AuthMode.CLIENT_CREDENTIALS,
        issuer=world.site.issuer,
        client_id="me",
        key_file=str(path),
        scopes=("x",),
    )
    account = world.account(ANN)
    found = await account.obtain(Refused(await account.obtain(None), 401, 'Bearer scope="a"'))
    assert world.account(BOB).current() == found  # it is the gateway's own, for all
    form = world.site.tokens[0]
    assert (form["grant_type"], form["scope"]) == ("client_credentials", "a x")
    claims = jwt.decode(form["client_assertion"], key, algorithms=["ES256"]).claims
    assert claims["aud"] == world.site.issuer and claims["exp"] - claims["iat"] <= 60
    world.now += 3600 * S
    assert account.current() is None
    assert await account.obtain(None) == NO_CREDENTIAL  # and the server says again what it wants


@requirement("ID-9")
async def test_exchange_and_assertion(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8693; and ID-JAG by way of the identity provider, whose word alone reaches the server."""
    monkeypatch.setenv("SUBJECT", "held-by-us")
    known = {"issuer": world.site.issuer, "client_id": "me", "subject_from": "SUBJECT"}
    world.auth = UpstreamAuth(AuthMode.TOKEN_EXCHANGE, **known)
    account = world.account()
    await account.obtain(Refused(await account.obtain(None), 401, 'Bearer scope="a"'))
    form = world.site.tokens[-1]
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
    assert (form["subject_token"], form["scope"]) == ("held-by-us", "a")
    assert form["resource"] == world.site.resource
    async with local_site() as idp_site:
        idp = LocalAs(idp_site, answer={"access_token": "word", "issued_token_type": "x"})
        world.auth = UpstreamAuth(AuthMode.ID_JAG, **known, idp=idp.issuer, idp_client_id="gw")
        account, before = world.account(), len(world.site.tokens)
        with pytest.raises(CredentialFailed, match="no identity assertion"):
            await account.obtain(Refused(await account.obtain(None), 401, "Bearer"))
        idp.answer["issued_token_type"] = "urn:ietf:params:oauth:token-type:id-jag"
        await account.obtain(Refused(NO_CREDENTIAL, 401, "Bearer"))
    asked = idp.tokens[-1]
    assert (asked["audience"], asked["subject_token"]) == (world.site.issuer, "held-by-us")
    assert asked["client_id"] == "gw"
    (form,) = world.site.tokens[before:]
    assert (form["grant_type"], form["assertion"]) == (
        "urn:ietf:params:oauth:grant-type:jwt-bearer", "word",
    )  # fmt: skip
    assert "held-by-us" not in str(form)


@requirement("ID-9")
async def test_a_client_is_never_shown_to_a_server_that_does_not_know_it(world: World) -> None:
    oauth = world.credentials.client_for("")
    server = await oauth.server(world.site.issuer)
    client = Client("https://other.example", "me", ClientAuth.BASIC, secret="s")
    with pytest.raises(CredentialFailed, match="not known to"):
        await oauth.token(server, client, {"grant_type": "client_credentials"})
    assert world.site.tokens == [] and "'s'" not in repr(client)


@requirement("ID-9")
async def test_a_secret_that_is_not_there_is_named(world: World) -> None:
    world.auth = UpstreamAuth(
        AuthMode.CLIENT_CREDENTIALS,
        issuer=world.site.issuer,
        client_id="me",
        secret_from="NOT_SET_ANYWHERE",
    )
    account = world.account()
    with pytest.raises(CredentialFailed, match="NOT_SET_ANYWHERE"):
        await account.obtain(Refused(await account.obtain(None), 401, "Bearer"))


@requirement("ID-9")
async def test_another_address_or_setting_has_no_part_in_a_token(world: World) -> None:
    await world.consented()
    world.auth = UpstreamAuth(AuthMode.AUTHORIZATION_CODE, scopes=("more",))
    assert await world.account().obtain(None) == NO_CREDENTIAL
    world.auth = CODE
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(local_site())
        moved = ServerSpec(ServerId("drive"), Transport.HTTP, url=f"{other.url}/mcp", auth=CODE)
        assert await world.credentials.account(moved, ANN).obtain(None) == NO_CREDENTIAL


@requirement("ID-9")
async def test_who_waits_hears_of_the_consent(world: World) -> None:
    link = await world.link()
    waiting = asyncio.create_task(world.account().consented(30))
    await asyncio.sleep(0)
    url = await world.consent.begin(link, "ann")
    await world.consent.finish(world.site.authorize(url), "ann")
    assert await waiting is True


@requirement("ID-9")
async def test_consent_that_another_worker_heard_of_is_found_in_the_store(world: World) -> None:
    link = await world.link()
    other = World(world.site, store=world.store)
    url = await other.consent.begin(link, "ann")
    await other.consent.finish(world.site.authorize(url), "ann")
    assert await world.account().consented(2) is True
    assert world.account().current() == other.account().current()


@requirement("ID-9")
async def test_a_wish_says_who_and_what(world: World) -> None:
    shown = await world.consent.show(await world.link(header='Bearer scope="read"'), "ann")
    assert (shown.server, shown.agent, shown.scopes) == ("drive", "bot", ("read",))
    assert shown.origin == world.site.site.url
    assert Wish("drive", ANN, (), "").person == "ann"


@requirement("ID-9")
async def test_what_was_withdrawn_is_not_used_for_long(world: World) -> None:
    first = await world.consented()
    other = World(world.site, store=world.store)  # another gateway, or the command line
    assert await other.credentials.forget(other.spec, ANN) is True
    assert world.account().current() == first
    world.now += RELOAD_S * S
    assert world.account().current() is None
    assert await world.account().obtain(None) == NO_CREDENTIAL
    assert await other.credentials.forget(other.spec, ANN) is False


@requirement("ID-9")
async def test_gateways_do_not_refresh_behind_each_others_back(world: World) -> None:
    """A rotated refresh token that is used twice makes a server revoke everything."""
    await world.consented()
    other = World(world.site, store=world.store)
    other.now = world.now = world.now + 3600 * S
    renewed = await world.account().obtain(None)
    assert await other.account().obtain(None) == renewed
    refused = Refused(Credential("Bearer old"), 401, "Bearer")
    assert await other.account().obtain(refused) == renewed
    assert [each["grant_type"] for each in world.site.tokens].count("refresh_token") == 1
