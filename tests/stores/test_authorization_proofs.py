"""Keys instead of secrets, bound tokens and delegation, on both databases (ID-4, ID-5, ID-7)."""

import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from portal import CALLBACK, ISSUER, RESOURCE, SECOND, Page, Portal
from registry_world import ADA, BOT, act, spec
from requirements import requirement

from exeat.core.ids import AgentId, ServerId
from exeat.identity.authorization.rules.credentials import ASSERTION
from exeat.identity.authorization.service.tokens import ACCESS_TOKEN_TYPE
from exeat.identity.model.token import Claims
from exeat.identity.rules.claims import read_claims
from exeat.storage.state import State

pytestmark = pytest.mark.anyio
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_URL = f"{ISSUER}/oauth/token"


@pytest.fixture
def portal(state: State) -> Portal:
    made = Portal(state)
    made.world.active()
    return made


def error_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def jwks(key: ECKey) -> str:
    return json.dumps({"keys": [key.as_dict(private=False)]})


class ByKey:
    """A client that is an agent, and signs."""

    def __init__(self, portal: Portal, name: str = "bot") -> None:
        self.portal = portal
        self.key = ECKey.generate_key("P-256", private=True)
        self.client, secret = portal.add(name, agent=AgentId(name), jwks=jwks(self.key))
        assert secret == ""
        self.count = 0

    def assertion(self, key: ECKey | None = None, header: Any = None, **changes: Any) -> str:
        self.count += 1
        now = self.portal.now // SECOND
        claims = {
            "iss": self.client.id, "sub": self.client.id, "aud": ISSUER, "jti": f"j{self.count}",
            "iat": now, "exp": now + 60, **changes,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(header or {"alg": "ES256"}, claims, key or self.key, algorithms=["ES256"])

    async def token(self, assertion: str | None = None, **more: str) -> Any:
        form = {
            "grant_type": "client_credentials",
            "resource": RESOURCE,
            "client_assertion_type": ASSERTION,
            "client_assertion": assertion or self.assertion(),
        }
        return await self.portal.token(**{**form, **more})


@requirement("ID-7")
async def test_private_key_jwt(portal: Portal) -> None:
    bot = ByKey(portal)
    for audience in (ISSUER, TOKEN_URL, [ISSUER]):
        assert (await bot.token(bot.assertion(aud=audience))).status_code == 200
    once = bot.assertion()
    assert (await bot.token(once)).status_code == 200
    assert error_of(await bot.token(once)) == (401, "invalid_client")  # replayed
    for wrong in (
        {"aud": "https://other.example"},
        {"aud": [ISSUER, "https://other.example"]},
        {"aud": None},
        {"iss": "CL-other"},
        {"sub": "CL-other"},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"exp": None},
        {"exp": portal.now // SECOND - 61},
        {"exp": portal.now // SECOND + 3600},
        {"exp": "soon"},
        {"nbf": portal.now // SECOND + 120},
        {"iat": portal.now // SECOND + 120},
    ):
        assert error_of(await bot.token(bot.assertion(**wrong))) == (401, "invalid_client"), wrong
        portal.later(3)  # guesses are counted per minute
    portal.later(60)
    stranger = ECKey.generate_key("P-256", private=True)
    for assertion in (
        bot.assertion(stranger),
        bot.assertion(stranger, {"alg": "ES256", "jwk": stranger.as_dict(private=False)}),
        "x",
        "a.b.c",
        "e30.e30.",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJDTC1ib3QifQ.",
    ):
        assert error_of(await bot.token(assertion)) == (401, "invalid_client")
    both = await bot.token(client_secret="x")
    assert error_of(both) == (400, "invalid_request")


@requirement("ID-7")
async def test_a_method_is_the_registered_one_and_no_other(portal: Portal) -> None:
    bot = ByKey(portal)
    form = {"grant_type": "client_credentials", "client_id": bot.client.id, "resource": RESOURCE}
    assert error_of(await portal.token(**form)) == (401, "invalid_client")
    assert error_of(await portal.token(**form, client_secret="x")) == (401, "invalid_client")
    public = portal.native()
    answer = await portal.token(
        grant_type="refresh_token", client_id=public, client_secret="x", refresh_token="y"
    )
    assert error_of(answer) == (401, "invalid_client")


@requirement("ID-7")
async def test_a_product_may_sign_with_the_keys_that_its_document_names(portal: Portal) -> None:
    where, keys = "https://app.example.com/client.json", "https://app.example.com/keys.json"
    key = ECKey.generate_key("P-256", private=True)
    said = {
        "client_id": where, "client_name": "App", "redirect_uris": ["https://app.example.com/cb"],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": keys,
    }  # fmt: skip
    portal.web.pages[where] = Page(200, json.dumps(said).encode())
    portal.web.pages[keys] = Page(200, jwks(key).encode())
    browser = portal.browser()
    await browser.sign_in()
    there = "https://app.example.com/cb"
    code = await browser.consent(where, redirect_uri=there)
    now = portal.now // SECOND
    claims = {"iss": where, "sub": where, "aud": ISSUER, "jti": "1", "exp": now + 60}
    assertion = jwt.encode({"alg": "ES256"}, claims, key)
    more = {"redirect_uri": there, "client_assertion_type": ASSERTION}
    refused = await portal.redeem(where, code, redirect_uri=there)
    assert error_of(refused) == (401, "invalid_client")
    answer = await portal.redeem(where, code, client_assertion=assertion, **more)
    assert answer.status_code == 200 and answer.json()["refresh_token"]


class Prover:
    """A client's key for DPoP."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", private=True)
        self.count = 0

    def proof(self, portal: Portal, **changes: Any) -> str:
        self.count += 1
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.as_dict(private=False)}
        claims = {
            "htm": "POST", "htu": TOKEN_URL, "iat": portal.now // SECOND, "jti": f"p{self.count}",
            **changes,
        }  # fmt: skip
        return jwt.encode(header, claims, self.key, algorithms=["ES256"], default_type=None)


@requirement("ID-4")
async def test_tokens_bound_to_a_key(portal: Portal) -> None:
    client, prover = portal.native(), Prover()
    browser = portal.browser()
    await browser.sign_in()

    async def redeem(code: str, proof: str) -> Any:
        form = {
            "grant_type": "authorization_code", "client_id": client, "code": code,
            "redirect_uri": CALLBACK, "code_verifier": "v" * 64,
        }  # fmt: skip
        return await portal.post("/oauth/token", form, DPoP=proof)

    code = await browser.consent(client)
    for wrong in (
        prover.proof(portal, htu="https://other.example/oauth/token"),
        prover.proof(portal, htm="GET"),
        prover.proof(portal, iat=portal.now // SECOND - 600),
        prover.proof(portal, jti=""),
        "nonsense",
    ):
        assert error_of(await redeem(code, wrong)) == (400, "invalid_dpop_proof")
    proof = prover.proof(portal)
    said = (await redeem(code, proof)).json()
    assert said["token_type"] == "DPoP"
    assert portal.claims(said["access_token"])["cnf"] == {"jkt": prover.key.thumbprint()}
    again = await browser.consent(client)
    assert error_of(await redeem(again, proof)) == (400, "invalid_dpop_proof")  # once

    async def renew(**headers: str) -> Any:
        form = {
            "grant_type": "refresh_token", "client_id": client,
            "refresh_token": said["refresh_token"],
        }  # fmt: skip
        return await portal.post("/oauth/token", form, **headers)

    assert error_of(await renew()) == (400, "invalid_grant")  # a public client's is bound, too
    assert error_of(await renew(DPoP=Prover().proof(portal))) == (400, "invalid_grant")
    assert (await renew(DPoP=prover.proof(portal))).json()["token_type"] == "DPoP"
    bound = await browser.consent(client, dpop_jkt=prover.key.thumbprint())
    assert error_of(await redeem(bound, Prover().proof(portal))) == (400, "invalid_grant")


async def exchanged(
    portal: Portal, bot: ByKey, subject: str, actor: str = "", *, dpop: str = "", **more: str
) -> Any:
    actor = actor or (await bot.token(scope="mcp:read mcp:pay")).json()["access_token"]
    form = {
        "grant_type": EXCHANGE,
        "client_assertion_type": ASSERTION,
        "client_assertion": bot.assertion(),
        "subject_token": subject,
        "subject_token_type": ACCESS_TOKEN_TYPE,
        "actor_token": actor,
        "actor_token_type": ACCESS_TOKEN_TYPE,
        "resource": RESOURCE + "/git",
    }
    sent = {name: value for name, value in {**form, **more}.items() if value}
    return await portal.post("/oauth/token", sent, **({"DPoP": dpop} if dpop else {}))


@requirement("ID-5")
@requirement("ID-7")
async def test_delegation(portal: Portal) -> None:
    """A person's token, through an agent: same person, the agent in front, never more of anything."""
    client, bot = portal.native(), ByKey(portal)
    subject = (await portal.signed_up(client, scope="mcp:read mcp:write"))["access_token"]
    portal.later(600)
    answer = await exchanged(portal, bot, subject, scope="mcp:read")
    said = answer.json()
    assert (said["issued_token_type"], said["expires_in"]) == (ACCESS_TOKEN_TYPE, 300)
    assert "refresh_token" not in said
    claims = portal.claims(said["access_token"])
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("ada", RESOURCE + "/git", "mcp:read")
    assert claims["grant"] == portal.claims(subject)["grant"]  # it ends with the person's
    assert claims["act"] == {
        "sub": "bot",
        "client_id": bot.client.id,
        "act": {"sub": client, "client_id": client},
    }
    read = read_claims(claims, ISSUER, portal.now, life_max_s=3600, own=ISSUER)
    assert isinstance(read, Claims)
    assert [actor.name for actor in read.actors] == [bot.client.id, client]
    assert portal.events()[-1] == "token.exchanged"


@requirement("ID-5")
async def test_chains_end(portal: Portal) -> None:
    client, bot = portal.native(), ByKey(portal)
    token = (await portal.signed_up(client))["access_token"]
    for _ in range(3):
        token = (await exchanged(portal, bot, token)).json()["access_token"]
    assert error_of(await exchanged(portal, bot, token)) == (400, "invalid_grant")


@requirement("ID-7")
async def test_what_is_not_exchanged(portal: Portal) -> None:
    client, bot = portal.native(), ByKey(portal)
    said = await portal.signed_up(client)
    subject = said["access_token"]
    own = (await bot.token()).json()["access_token"]
    for more, error in (
        ({"scope": "mcp:read mcp:write"}, "invalid_scope"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"resource": ""}, "invalid_target"),
        ({"audience": RESOURCE}, "invalid_target"),  # two endpoints
        ({"subject_token": own}, "invalid_grant"),  # acts for nobody
        ({"subject_token": said["refresh_token"]}, "invalid_grant"),
        ({"subject_token": subject[:-4] + "AAAA"}, "invalid_grant"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"actor_token": subject}, "invalid_grant"),  # a person is no actor
        ({"actor_token": ""}, "invalid_request"),
    ):  # fmt: skip
        answer = await exchanged(portal, bot, subject, own, **more)
        assert error_of(answer) == (400, error), more
    portal.world.active("other")
    other = ByKey(portal, "other")
    assert error_of(await exchanged(portal, other, subject, own)) == (400, "invalid_grant")
    public = await portal.token(grant_type=EXCHANGE, client_id=client)
    assert error_of(public) == (400, "unauthorized_client")


@requirement("ID-1", "ID-7")
async def test_a_revoked_access_token_is_not_exchanged_for_a_new_one(portal: Portal) -> None:
    client, bot = portal.native(), ByKey(portal)
    subject = (await portal.signed_up(client))["access_token"]
    own = (await bot.token()).json()["access_token"]
    assert (await exchanged(portal, bot, subject, own)).status_code == 200
    form = {"token": subject, "client_id": client}
    assert (await portal.post("/oauth/revoke", form)).status_code == 200
    assert error_of(await exchanged(portal, bot, subject, own)) == (400, "invalid_grant")
    again = (await portal.signed_up(client))["access_token"]
    assert (await exchanged(portal, bot, again, own)).status_code == 200
    given_back = {
        "token": own, "client_assertion_type": ASSERTION, "client_assertion": bot.assertion(),
    }  # fmt: skip
    assert (await portal.post("/oauth/revoke", given_back)).status_code == 200
    assert error_of(await exchanged(portal, bot, again, own)) == (400, "invalid_grant")


@requirement("ID-1", "ID-5")
async def test_a_token_for_one_endpoint_is_not_exchanged_for_another(portal: Portal) -> None:
    """What a person gave for one server is not to be had for all of them, or for another one."""
    client, bot = portal.native(), ByKey(portal)
    everywhere = (await portal.signed_up(client))["access_token"]
    git = (await exchanged(portal, bot, everywhere)).json()["access_token"]
    assert portal.claims(git)["aud"] == f"{RESOURCE}/git"
    assert (await exchanged(portal, bot, git)).status_code == 200
    portal.world.registry.add_server(spec(ServerId("mail")), ADA, 50, (), act())
    for wider in (RESOURCE, f"{RESOURCE}/mail"):
        assert error_of(await exchanged(portal, bot, git, resource=wider)) == (
            400, "invalid_target",
        ), wider  # fmt: skip


@requirement("ID-4")
async def test_a_bound_token_is_not_exchanged_without_its_key(portal: Portal) -> None:
    client, bot, prover = portal.native(), ByKey(portal), Prover()
    browser = portal.browser()
    await browser.sign_in()
    form = {
        "grant_type": "authorization_code", "client_id": client, "redirect_uri": CALLBACK,
        "code": await browser.consent(client), "code_verifier": "v" * 64,
    }  # fmt: skip
    redeemed = await portal.post("/oauth/token", form, DPoP=prover.proof(portal))
    subject = redeemed.json()["access_token"]
    own = (await bot.token()).json()["access_token"]
    for proof in ("", Prover().proof(portal)):
        answer = await exchanged(portal, bot, subject, own, dpop=proof)
        assert error_of(answer) == (400, "invalid_grant")
    answer = await exchanged(portal, bot, subject, own, dpop=prover.proof(portal))
    assert portal.claims(answer.json()["access_token"])["cnf"] == {"jkt": prover.key.thumbprint()}


@requirement("ID-7")
async def test_delegation_ends_with_what_it_came_of(portal: Portal) -> None:
    client, bot = portal.native(), ByKey(portal)
    said = await portal.signed_up(client)
    subject, own = said["access_token"], (await bot.token()).json()["access_token"]
    portal.world.registry.suspend(BOT, act())
    assert error_of(await exchanged(portal, bot, subject, own)) == (400, "invalid_grant")
    portal.world.registry.resume(BOT, act())
    assert (await exchanged(portal, bot, subject, own)).status_code == 200
    form = {"token": said["refresh_token"], "client_id": client}
    assert (await portal.post("/oauth/revoke", form)).status_code == 200
    assert error_of(await exchanged(portal, bot, subject, own)) == (400, "invalid_grant")


@requirement("ID-7")
async def test_a_revoked_client_has_nothing_left(portal: Portal) -> None:
    bot = ByKey(portal)
    made, secret = portal.add("web", CALLBACK, secret=True)
    assert secret
    held = portal.clients.revoke(bot.client.id, portal.doing(ADA))
    assert held == ()
    assert error_of(await bot.token()) == (401, "invalid_client")
    assert portal.clients.revoke("web", portal.doing(ADA)) == ()
    refused = await portal.token(
        grant_type="refresh_token", client_id=made.id, client_secret=secret, refresh_token="x"
    )
    assert error_of(refused) == (401, "invalid_client")
    assert portal.events()[-2:] == ["client.revoked", "client.revoked"]
