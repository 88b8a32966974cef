"""Tokens at the endpoint: what opens it, what does not, and exactly what is answered (ID-1 … ID-6)."""

import asyncio
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from issuing import ISSUER, NOW_S, RESOURCE, Idp, b64, ec_key, proof, sign
from joserfc.jwk import OctKey
from requirements import requirement
from worlds import ADA, BOB, NOW, UP, Answer, Seen, World

from exeat.core.decision import Reason
from exeat.core.facts import Effect, Lifecycle
from exeat.core.ids import AgentId
from exeat.core.upstream_auth import AuthMode, UpstreamAuth
from exeat.gateway.settings import GatewaySettings
from exeat.identity.model.issuer import Introspection, TrustedIssuer
from exeat.registry.model.key import secret_text

pytestmark = pytest.mark.anyio
BOT = AgentId("bot")
PRM = "http://localhost/.well-known/oauth-protected-resource/mcp/up"
SCOPES = "mcp:read mcp:write mcp:delete mcp:execute mcp:send mcp:pay"
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
SERVERS = GatewaySettings(authorization_servers=(ISSUER,))


def world(idp: Idp, **changes: Any) -> World:
    fields: dict[str, Any] = {
        "tokens": idp.tokens(),
        "settings": SERVERS,
        "clients": {(ISSUER, "c1", ""): BOT},
        "subjects": {(ISSUER, "u-bob"): BOB},
    }
    return World(**{**fields, **changes})


def challenge(answer: Answer) -> dict[str, str]:
    given = answer.fields["www-authenticate"].partition(" | DPoP")[0]
    scheme, _, rest = given.partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', rest))


def get(path: str, host: str = "localhost") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()


@requirement("ID-1")
async def test_the_metadata_names_the_endpoint_as_the_client_calls_it() -> None:
    async with world(Idp()) as w:
        for path, host, resource in (
            ("/mcp/up", "localhost", RESOURCE),
            ("/mcp", "127.0.0.1:8717", "http://127.0.0.1:8717/mcp"),
            ("/mcp/no-such", "LOCALHOST:80", "http://localhost/mcp/no-such"),
        ):
            answer = await w.ask(get(f"/.well-known/oauth-protected-resource{path}", host))
            assert answer.status == 200
            assert answer.json["resource"] == resource
            assert answer.json["authorization_servers"] == [ISSUER]
            assert answer.json["scopes_supported"] == SCOPES.split()
            assert answer.json["bearer_methods_supported"] == ["header"]
        for path in ("", "/", "/other", "/mcp/UP"):
            assert (await w.ask(get(f"/.well-known/oauth-protected-resource{path}"))).status == 404
        register = await w.ask(get("/register"))  # where SDKs try, if the metadata names no place
        assert register.status == 404 and b"exeat client open" in register.body
        evil = get("/.well-known/oauth-protected-resource/mcp", "evil.example")
        assert (await w.ask(evil)).status == 403


@requirement("ID-1")
async def test_without_a_token_the_challenge_says_where_to_get_one() -> None:
    async with world(Idp()) as w:
        raw = w.tool().replace(b"authorization: Bearer bot\r\n", b"")
        answer = await w.ask(raw)
        assert answer.status == 401
        assert challenge(answer) == {
            "realm": "exeat", "resource_metadata": PRM, "scope": SCOPES,
        }  # fmt: skip
        assert answer.error["data"]["reason"] == "unauthenticated"


@requirement("ID-1", "ID-5")
async def test_a_token_is_an_agent_for_a_user_and_all_of_it_is_on_record() -> None:
    idp = Idp()
    async with world(idp) as w:
        answer = await w.ask(w.tool(key=idp.token()))
        assert answer.status == 200 and "result" in answer.json
        (request, decision), context = w.ledger.decisions[0], w.ledger.contexts[0]
        assert decision.permitted
        assert (request.caller.agent.id, request.caller.user) == (
            BOT,
            w.state.view.snapshot.people[BOB],
        )
        assert request.caller.credential.startswith("t-")
        assert context.chain == (
            f"issuer {ISSUER}", "client c1",
            "scope mcp:delete mcp:execute mcp:pay mcp:read mcp:send mcp:write",
        )  # fmt: skip


BAD: dict[str, tuple[Any, str]] = {
    "no token at all": (lambda idp: "", "The credential is not known"),
    "not a token": (lambda idp: "a.b", "The token is malformed"),
    "not base64url": (lambda idp: "a+.b/.c", "The token is malformed"),
    "padded": (lambda idp: idp.token().replace(".", "=.", 1), "The token is malformed"),
    "oversize": (lambda idp: "a" * 9000 + ".b.c", "The token is too long"),
    "alg none": (
        lambda idp: f'{b64(json.dumps({"alg": "none", "typ": "at+jwt"}).encode())}.'
        f"{b64(json.dumps(idp.claims()).encode())}.",
        "The token is signed with an algorithm that is not accepted",
    ),
    "key confusion": (
        lambda idp: sign(
            OctKey.import_key(idp.key.as_dict(private=False)["x"]),
            {"alg": "HS256", "typ": "at+jwt", "kid": "k1"}, idp.claims(),
        ),
        "The token is signed with an algorithm that is not accepted",
    ),
    "expired": (lambda idp: idp.token(exp=NOW_S), "The token has expired"),
    "not yet": (lambda idp: idp.token(nbf=NOW_S + 31), "The token is not valid yet"),
    "issued in the future": (lambda idp: idp.token(iat=NOW_S + 31), "The token is not valid yet"),
    "lives for ever": (lambda idp: idp.token(exp=NOW_S + 10**8), "The token lives longer than is accepted"),
    "no end": (lambda idp: idp.token(exp=None), "The token lacks a claim that it needs"),
    "end as text": (lambda idp: idp.token(exp=str(NOW_S + 60)), "The token lacks a claim that it needs"),
    "end as boolean": (lambda idp: idp.token(exp=True), "The token lacks a claim that it needs"),
    "another audience": (
        lambda idp: idp.token(aud="http://localhost/mcp/other"),
        "The token is for another resource",
    ),
    "the aggregate's audience": (
        lambda idp: idp.token(aud="http://localhost/mcp"),
        "The token is for another resource",
    ),
    "no audience": (lambda idp: idp.token(aud=None), "The token is for another resource"),
    "another issuer": (
        lambda idp: idp.token(iss="https://id.example/"),
        "The token is of an issuer that is not trusted here",
    ),
    "no issuer": (lambda idp: idp.token(iss=None), "The token is of an issuer that is not trusted here"),
    "unknown kid": (
        lambda idp: idp.token({"kid": "k9"}),
        "The token is signed with a key that its issuer does not publish",
    ),
    "another's key": (
        lambda idp: sign(ec_key("k1"), {"typ": "at+jwt", "kid": "k1"}, idp.claims()),
        "The signature of the token is wrong",
    ),
    "its own key": (
        lambda idp: sign(
            (mine := ec_key("k1")),
            {"typ": "at+jwt", "jwk": mine.as_dict(private=False)}, idp.claims(),
        ),
        "The signature of the token is wrong",
    ),
    "an ID token": (lambda idp: idp.token({"typ": "JWT+id"}), "The token is not an access token"),
    "an ID token that says so only inside": (
        lambda idp: idp.token({"typ": "JWT"}, at_hash="x"), "The token is not an access token",
    ),
    "an ID token of Keycloak": (
        lambda idp: idp.token({"typ": "JWT"}, typ="ID"), "The token is not an access token",
    ),
    "an ID token of Cognito": (
        lambda idp: idp.token({"typ": "JWT"}, token_use="id"), "The token is not an access token",
    ),
    "a logout token": (
        lambda idp: idp.token({"typ": "JWT"}, events={}), "The token is not an access token",
    ),
    "a proof as token": (lambda idp: idp.token({"typ": "dpop+jwt"}), "The token is not an access token"),
    "critical header": (lambda idp: idp.token({"crit": ["b64"], "b64": True}), "The token is malformed"),
    "a claim twice": (
        lambda idp: sign(
            idp.key, {"typ": "at+jwt", "kid": "k1"},
            json.dumps(idp.claims()).encode()[:-1] + b', "sub": "u-ada"}',
        ),
        "The token is malformed",
    ),
    "chain too long": (
        lambda idp: idp.token(act=nested(5)),
        "The delegation chain of the token is too long or malformed",
    ),
    "chain of nothing": (
        lambda idp: idp.token(act={"sub": ""}),
        "The delegation chain of the token is too long or malformed",
    ),
    "bound in an unknown way": (
        lambda idp: idp.token(cnf={"kid": "x"}),
        "The token is bound to a key, and possession of it was not proven",
    ),
    "bound, without a proof": (
        lambda idp: idp.token(cnf={"jkt": "x" * 43}),
        "The token is bound to a key, and possession of it was not proven",
    ),
}  # fmt: skip


def nested(depth: int) -> dict[str, Any] | None:
    return {"sub": "c1", "act": nested(depth - 1)} if depth else None


@requirement("ID-1", "ID-3")
@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_good_token_opens_nothing(name: str) -> None:
    make, says = BAD[name]
    idp = Idp()
    async with world(idp) as w:
        answer = await w.ask(w.tool(key=make(idp)))
        assert answer.status == 401
        assert challenge(answer) == {
            "realm": "exeat", "error": "invalid_token", "error_description": says,
            "resource_metadata": PRM, "scope": SCOPES,
        }  # fmt: skip
        assert (answer.error["code"], answer.error["data"]["reason"]) == (-31401, "unauthenticated")
        assert (w.ledger.decisions, w.upstream.calls) == ([], [])


@requirement("ID-1")
@pytest.mark.parametrize("first", ["good", "bad"])
async def test_two_tokens_in_one_request_are_none(first: str) -> None:
    """Whoever stands before us might read the other one."""
    idp = Idp()
    async with world(idp) as w:
        raw = w.tool(key=idp.token())
        line = f"authorization: Bearer {'bad' if first == 'bad' else idp.token()}\r\n".encode()
        answer = await w.ask(raw.replace(b"authorization: ", line + b"authorization: ", 1))
        assert answer.status == 400
        assert (w.ledger.decisions, w.upstream.calls) == ([], [])


@requirement("ID-1")
@pytest.mark.parametrize("where", ["query", "body", "cookie"])
async def test_a_token_is_taken_from_the_header_alone(where: str) -> None:
    """RFC 6750 2.2 and 2.3 are not served: addresses and forms end up in logs."""
    idp = Idp()
    token = idp.token()
    async with world(idp) as w:
        params = {
            "name": "add",
            "arguments": {},
            **({"access_token": token} if where == "body" else {}),
        }
        raw = w.modern("tools/call", params)
        raw = re.sub(rb"authorization: [^\r]+\r\n", b"", raw, count=1)
        if where == "query":
            raw = raw.replace(b" HTTP/1.1", f"?access_token={token} HTTP/1.1".encode(), 1)
        if where == "cookie":
            raw = raw.replace(b"\r\n", f"\r\ncookie: access_token={token}\r\n".encode(), 1)
        answer = await w.ask(raw)
        assert answer.status == (400 if where == "query" else 401)
        assert (w.ledger.decisions, w.upstream.calls) == ([], [])


@requirement("ID-3")
async def test_signed_payload_that_is_cut_or_changed() -> None:
    idp = Idp()
    token = idp.token()
    head, body, tail = token.split(".")
    other = b64(json.dumps(idp.claims(sub="u-ada")).encode())
    async with world(idp) as w:
        for forged in (f"{head}.{other}.{tail}", f"{head}.{body}.{tail[:-2]}", f"{head}.{body}."):
            answer = await w.ask(w.tool(key=forged))
            assert challenge(answer)["error_description"] == "The signature of the token is wrong"


@requirement("ID-3")
async def test_clocks_may_differ_a_little_but_never_in_the_holders_favour() -> None:
    idp = Idp()
    async with world(idp) as w:
        good = await w.ask(w.tool(key=idp.token(iat=NOW_S + 30, nbf=NOW_S + 30)))
        assert good.status == 200
        token = idp.token(exp=NOW_S + 5)
        assert (await w.ask(w.tool(key=token))).status == 200
        w.now = NOW + 5 * 10**9
        assert (await w.ask(w.tool(key=token))).status == 401


@requirement("ID-3")
async def test_a_rotated_key_is_asked_for_once_and_a_dead_issuer_denies() -> None:
    idp = Idp()
    new = ec_key("k2")
    idp.ring.far[ISSUER] = [idp.key, new]
    async with world(idp) as w:
        token = sign(new, {"typ": "at+jwt", "kid": "k2"}, idp.claims())
        assert (await w.ask(w.tool(key=token))).status == 200
        assert (await w.ask(w.tool(key=token))).status == 200
        assert idp.ring.asked == 1
        idp.ring.down, idp.ring.near = "down", {}
        third = sign(new, {"typ": "at+jwt", "kid": "k2"}, idp.claims(jti="j3"))
        answer = await w.ask(w.tool(key=third))
        assert (answer.status, answer.fields["retry-after"]) == (503, "5")
        assert answer.error["data"]["reason"] == "issuer_unreachable"
        asked = idp.ring.asked
        assert (await w.ask(w.tool(key=third))).status == 503
        assert idp.ring.asked == asked  # not again before a while
        w.now += 6 * 10**9
        idp.ring.down = ""
        assert (await w.ask(w.tool(key=third))).status == 200


@requirement("ID-3")
async def test_opaque_tokens_are_asked_about() -> None:
    idp = Idp()
    tokens = idp.tokens(introspection=Introspection("exeat", secret_from="S"))
    idp.ring.opaque["opaque-1"] = {"active": True, **idp.claims()}
    idp.ring.opaque["opaque-2"] = {"active": True, **idp.claims(aud="http://localhost/mcp")}
    async with world(idp, tokens=tokens) as w:
        for _ in range(2):
            assert (await w.ask(w.tool(key="opaque-1"))).status == 200
        assert idp.ring.asked == 1
        other = w.tool(key="opaque-1").replace(b"Bearer ", b"bearer  ", 1)
        assert (await w.ask(other)).status == 200
        assert idp.ring.asked == 1  # however it is written: else it would be believed for longer
        w.now += 31 * 10**9  # what the issuer said is believed for thirty seconds
        assert (await w.ask(w.tool(key="opaque-1"))).status == 200
        assert idp.ring.asked == 2
        for name, value in (("typ", "Refresh"), ("token_use", "refresh_token")):
            idp.ring.opaque[name] = {"active": True, name: value, **idp.claims()}
            refresh = await w.ask(w.tool(key=name))
            assert challenge(refresh)["error_description"] == "The token is not an access token"
        wrong = await w.ask(w.tool(key="opaque-2"))
        assert challenge(wrong)["error_description"] == "The token is for another resource"
        inactive = await w.ask(w.tool(key="opaque-3"))
        assert (
            challenge(inactive)["error_description"]
            == "The issuer says that the token is not active"
        )


@requirement("ID-3")
@pytest.mark.parametrize(("cache_max_s", "holds"), [(0, 0), (5, 4), (300, 29)])
async def test_an_opaque_token_is_believed_no_longer_than_is_set(
    cache_max_s: float, holds: int
) -> None:
    idp = Idp()
    introspection = Introspection("exeat", secret_from="S", cache_max_s=cache_max_s)
    idp.ring.opaque["opaque-1"] = {"active": True, **idp.claims()}
    async with world(idp, tokens=idp.tokens(introspection=introspection)) as w:
        assert (await w.ask(w.tool(key="opaque-1"))).status == 200
        idp.ring.opaque.clear()  # revoked there
        w.now += holds * 10**9
        assert (await w.ask(w.tool(key="opaque-1"))).status == 200
        w.now += 2 * 10**9
        assert (await w.ask(w.tool(key="opaque-1"))).status == 401


@requirement("ID-9")
async def test_an_agents_key_is_shown_to_no_issuer() -> None:
    """It may be good elsewhere, or here in a moment: no issuer of opaque tokens gets to see it."""
    idp = Idp()
    tokens = idp.tokens(introspection=Introspection("exeat", secret_from="S"))
    key = secret_text(b"k" * 32)
    idp.ring.opaque[key] = {"active": True, **idp.claims()}
    async with world(idp, tokens=tokens) as w:
        answer = await w.ask(w.tool(key=key))
        assert challenge(answer)["error_description"] == "The credential is not known"
        raw = w.tool(key=key).replace(b"Bearer ", b"DPoP ", 1)
        assert (await w.ask(raw)).status == 401
    assert idp.ring.asked == 0


@requirement("ID-1", "GW-9")
async def test_a_body_that_comes_later_waits_for_the_issuers_answer() -> None:
    """Nobody whose token is not known to be good makes the edge keep bytes."""
    idp = Idp()
    idp.ring.far[ISSUER] = [new := ec_key("k2")]
    async with world(idp) as w, w.connect() as client:
        token = sign(new, {"typ": "at+jwt", "kid": "k2"}, idp.claims())
        raw = w.tool(key=token)
        head, _, body = raw.partition(b"\r\n\r\n")
        client.write(head + b"\r\n\r\n" + body[:10])
        await client.writer.drain()
        client.write(body[10:])
        assert (await client.answer()).status == 200
        client.write(w.tool(key=token))
        assert (await client.answer()).status == 200
        bad = w.tool(key=sign(new, {"typ": "at+jwt", "kid": "k9"}, idp.claims()))
        head, _, body = bad.partition(b"\r\n\r\n")
        client.write(head + b"\r\n\r\n" + body[:10])
        assert (await client.answer()).status == 401


@requirement("ID-1")
async def test_an_ended_grant_or_token_opens_nothing_from_the_next_call_on() -> None:
    idp = Idp()
    token = idp.token()
    async with world(idp) as w:
        assert (await w.ask(w.tool(key=token))).status == 200
        w.endings[f"{ISSUER} j1"] = NOW + 10**12
        w.state.view = w.view()
        answer = await w.ask(w.tool(key=token))
        assert challenge(answer)["error_description"] == "The token was revoked"
        assert (await w.ask(w.tool(key=idp.token(jti="j2")))).status == 200


@requirement("ID-1", "APP-10")
async def test_ended_while_the_call_was_being_recorded() -> None:
    idp = Idp()
    async with world(idp) as w:
        await w.ask(w.tool(key=idp.token()))
        w.ledger.hold = True
        async with w.connect() as client:
            client.write(w.tool(key=idp.token()))
            from worlds import until

            await until(lambda: bool(w.ledger.held))
            w.endings[f"{ISSUER} j1"] = NOW + 10**12
            w.state.view = w.view()
            w.ledger.release()
            answer = await client.answer()
        assert answer.json["result"]["_meta"]["exeat/denied"]["reason"] == "agent_not_active"
        assert len(w.upstream.calls) == 1


# ---- scope


@requirement("ID-2")
async def test_too_little_scope_names_all_that_the_operation_needs() -> None:
    idp = Idp()
    async with world(idp) as w:
        tools = {
            action: replace(tool, effect=Effect.SEND)
            for action, tool in w.state.view.snapshot.tools.items()
        }
        snapshot = replace(w.state.view.snapshot, tools=tools)
        w.state.view = type(w.state.view)(snapshot=snapshot, pdp=w.state.view.pdp)
        for has, wants in (("", "mcp:read mcp:send"), ("mcp:write", "mcp:read mcp:send mcp:write")):
            answer = await w.ask(w.tool(key=idp.token(scope=has)))
            assert answer.status == 403
            assert challenge(answer) == {
                "error": "insufficient_scope",
                "error_description": "The operation needs more scope than the token has",
                "resource_metadata": PRM, "scope": wants,
            }  # fmt: skip
            assert answer.error["data"]["reason"] == "insufficient_scope"
            assert answer.error["data"]["decision"].startswith("d")
        assert [d.reason for _, d in w.ledger.decisions] == [Reason.INSUFFICIENT_SCOPE] * 2
        assert w.upstream.calls == []
        assert (await w.ask(w.tool(key=idp.token(scope="mcp:read mcp:send")))).status == 200


@requirement("ID-2")
async def test_what_no_scope_cures_is_no_challenge() -> None:
    idp = Idp()
    policy = '@id("x") permit(principal, action, resource); @id("n") forbid(principal, action, resource) when { context.session.environment == "" };'
    async with world(idp, policy=policy) as w:
        answer = await w.ask(w.tool(key=idp.token(scope="")))
        assert answer.status == 200
        assert answer.json["result"]["_meta"]["exeat/denied"]["reason"] == "forbidden"


@requirement("ID-2")
async def test_lists_need_the_scope_to_read() -> None:
    idp = Idp()
    async with world(idp) as w:
        answer = await w.ask(w.modern("tools/list", {}, key=idp.token(scope="mcp:write")))
        assert (answer.status, challenge(answer)["scope"]) == (403, "mcp:read mcp:write")


@requirement("ID-2", "ID-3")
async def test_an_issuers_own_words_and_one_without_scopes() -> None:
    idp = Idp()
    async with world(idp, tokens=idp.tokens(scopes={"tools.use": "mcp:read"})) as w:
        assert (await w.ask(w.tool(key=idp.token(scope="tools.use")))).status == 200
    async with world(idp, tokens=idp.tokens(unscoped=True)) as w:
        assert (await w.ask(w.tool(key=idp.token(scope="")))).status == 200


# ---- who


@requirement("ID-5")
async def test_a_client_that_nobody_registered_is_denied_and_remembered() -> None:
    idp = Idp()
    async with world(idp, clients={}) as w:
        answer = await w.ask(w.tool("secret", key=idp.token()))
        denied = answer.json["result"]["_meta"]["exeat/denied"]
        assert denied["reason"] == "agent_unregistered"
        assert "unregistered" in denied["remedy"]
        for method in ("tools/list", "server/discover"):
            refused = await w.ask(w.modern(method, {}, key=idp.token()))
            assert refused.error["data"]["reason"] == "agent_unregistered"
        raw = w.modern("server/discover", {}, key=idp.token(aud="http://localhost/mcp"))
        refused = await w.ask(raw.replace(b"POST /mcp/up ", b"POST /mcp "))
        assert refused.error["data"]["reason"] == "agent_unregistered"
        assert w.upstream.calls == []
        assert len({each.caller.agent.id for each in w.strangers}) == 1
        assert w.strangers[0].caller.agent.id.startswith("unregistered:")
        assert (w.strangers[0].action, w.strangers[0].caller.user) == (
            "up/secret", w.state.view.snapshot.people[BOB],
        )  # fmt: skip


@requirement("ID-5")
async def test_a_products_copy_is_an_agent_for_its_own_user_only() -> None:
    idp = Idp()
    product = "https://product.example/client.json"
    async with world(idp, clients={(ISSUER, product, "bob"): BOT}) as w:
        w.subjects[ISSUER, "u-ada"] = ADA
        w.state.view = w.view()
        bob = await w.ask(w.tool(key=idp.token(client_id=product)))
        assert "isError" not in bob.json["result"]
        ada = await w.ask(w.tool(key=idp.token(client_id=product, sub="u-ada")))
        assert ada.json["result"]["_meta"]["exeat/denied"]["reason"] == "agent_unregistered"


@requirement("ID-5")
@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": "u-zoe"}, "user_not_live"),
        ({"sub": "c1"}, None),  # the client for itself
        ({"sub": None}, None),
        ({"sub": "c1", "client_id": None}, None),  # a workload: the subject is the agent
        ({"client_id": None}, "agent_unregistered"),  # a person's own token (ID-6)
        ({"client_id": "u-bob"}, "agent_unregistered"),
        ({"act": {"sub": "c1"}, "client_id": "c1"}, None),
        ({"act": {"sub": "c9"}}, "agent_unregistered"),
    ],
)
async def test_whom_a_token_stands_for(claims: dict[str, Any], reason: str | None) -> None:
    idp = Idp()
    async with world(idp) as w:
        answer = await w.ask(w.tool(key=idp.token(**claims)))
        assert answer.status == 200
        meta = answer.json["result"].get("_meta", {}).get("exeat/denied", {})
        assert meta.get("reason") == reason


@requirement("ID-5")
async def test_a_user_whose_claim_is_left_out_is_not_nobody() -> None:
    """Who may leave out a scope could else make the agent act for nobody, past policies of users."""
    idp = Idp()
    tokens = idp.tokens(user_claim="email")
    async with world(idp, tokens=tokens, subjects={(ISSUER, "bob@x.example"): BOB}) as w:
        whole = await w.ask(w.tool(key=idp.token(email="bob@x.example")))
        assert whole.status == 200 and w.ledger.decisions[0][0].caller.user.id == BOB
        for without in ({}, {"email": ""}):
            answer = await w.ask(w.tool(key=idp.token(**without)))
            assert answer.status == 401
            said = challenge(answer)["error_description"]
            assert said == "The token lacks a claim that it needs"
        itself = await w.ask(w.tool(key=idp.token(sub="c1")))
        assert itself.status == 200 and w.ledger.decisions[1][0].caller.user is None
        assert len(w.upstream.calls) == 2


@requirement("ID-5")
@pytest.mark.parametrize(
    ("workload", "claims"),
    [
        (
            {"preferred_username": "service-account-{client}"},
            {"preferred_username": "service-account-c1"},
        ),
        ({"idtyp": "app"}, {"idtyp": "app"}),
        ({"sub": "{client}@clients"}, {"sub": "c1@clients"}),
    ],
)
async def test_a_client_for_itself_in_the_providers_own_words(
    workload: dict[str, str], claims: dict[str, str]
) -> None:
    """Keycloak, Entra, Auth0: ``sub`` of client credentials is another word than the client."""
    idp = Idp()
    tokens = idp.tokens(workload=workload)
    async with world(idp, tokens=tokens) as w:
        itself = await w.ask(w.tool(key=idp.token(**{"sub": "f00d", **claims})))
        assert itself.status == 200 and w.ledger.decisions[0][0].caller.user is None
        assert len(w.upstream.calls) == 1
        for other in (
            {"sub": "f00d"},
            {"sub": "f00d", **dict.fromkeys(claims, "service-account-c2")},
        ):
            answer = await w.ask(w.tool(key=idp.token(**other)))
            assert answer.json["result"]["_meta"]["exeat/denied"]["reason"] != "permitted"
        delegated = await w.ask(
            w.tool(key=idp.token(**{"sub": "f00d", **claims}, act={"sub": "c1"}))
        )
        assert "exeat/denied" in delegated.json["result"]["_meta"], "a chain is somebody's"
        assert len(w.upstream.calls) == 1


@requirement("ID-5")
async def test_a_person_called_like_a_workload_is_not_that_agent() -> None:
    """Only a token without a client is a workload's: else its subject is a person of that client."""
    idp = Idp()
    async with world(idp) as w:
        answer = await w.ask(w.tool(key=idp.token(sub="c1", client_id="unknown")))
        denied = answer.json["result"]["_meta"]["exeat/denied"]["reason"]
        assert denied == "agent_unregistered"
        assert w.upstream.calls == []


@requirement("ID-5")
async def test_an_issuer_does_not_speak_for_anothers_clients() -> None:
    idp, other = Idp(), "https://other.example"
    async with world(idp, clients={(other, "c7", ""): BOT}) as w:
        act = {"iss": other, "client_id": "c7"}
        assert (await w.ask(w.tool(key=idp.token(sub=None, act=act)))).status == 401
        assert w.upstream.calls == []


@requirement("ID-5")
async def test_a_chain_is_no_stronger_than_any_of_its_links() -> None:
    idp = Idp()
    clients = {(ISSUER, "c1", ""): BOT, (ISSUER, "c2", ""): AgentId("eve")}
    chain = {"sub": "c1", "act": {"sub": "c2"}}
    async with world(idp, clients=clients) as w:
        assert "isError" not in (await w.ask(w.tool(key=idp.token(act=chain)))).json["result"]
        assert w.ledger.contexts[0].chain[-1] == "actor eve"
        agents = dict(w.state.view.snapshot.agents)
        eve = agents[AgentId("eve")]
        for weaker in (
            replace(eve, lifecycle=Lifecycle.SUSPENDED),
            replace(eve, owner_live=False, deputy_live=False),
            replace(eve, scope=replace(eve.scope, effects=frozenset({Effect.WRITE}))),
            replace(eve, scope=replace(eve.scope, servers=frozenset())),
        ):
            agents[AgentId("eve")] = weaker
            snapshot = replace(w.state.view.snapshot, agents=dict(agents))
            w.state.view = type(w.state.view)(snapshot=snapshot, pdp=w.state.view.pdp)
            answer = await w.ask(w.tool(key=idp.token(act=chain)))
            denied = answer.json["result"]["_meta"]["exeat/denied"]["reason"]
            assert denied == "chain_not_authorized"
        assert len(w.upstream.calls) == 1


@requirement("ID-2", "ID-5")
async def test_what_bounds_a_token_bounds_handshakes_and_streams() -> None:
    """A server's instructions and notifications are for nobody whose authority ended on the way."""
    idp = Idp()
    clients = {(ISSUER, "c1", ""): BOT, (ISSUER, "c2", ""): AgentId("eve")}
    token = idp.token(act={"sub": "c1", "act": {"sub": "c2"}})
    async with world(idp, clients=clients) as w:
        for raw in (
            w.modern("server/discover", {}, key=idp.token(scope="mcp:write")),
            w.old("initialize", HELLO, "", key=idp.token(scope="mcp:write")),
        ):
            answer = await w.ask(raw)
            assert (answer.status, challenge(answer)["scope"]) == (403, "mcp:read mcp:write")
        session = await w.session(token)
        agents = dict(w.state.view.snapshot.agents)
        eve = AgentId("eve")
        agents[eve] = replace(agents[eve], lifecycle=Lifecycle.SUSPENDED)
        snapshot = replace(w.state.view.snapshot, agents=agents)
        w.state.view = type(w.state.view)(snapshot=snapshot, pdp=w.state.view.pdp)
        for raw in (
            w.modern("server/discover", {}, key=token), w.old("initialize", HELLO, "", key=token),
        ):  # fmt: skip
            refused = await w.ask(raw)
            assert refused.error["data"]["reason"] == "chain_not_authorized"
        stream = await w.ask(
            b"GET /mcp/up HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n"
            b"mcp-protocol-version: 2025-11-25\r\nmcp-session-id: %b\r\n"
            b"authorization: Bearer %b\r\n\r\n" % (session.encode(), token.encode())
        )
        assert stream.status == 403
        assert w.ledger.decisions[-1][1].reason is Reason.CHAIN_NOT_AUTHORIZED


@requirement("ID-5", "GW-1")
async def test_who_may_nothing_may_not_listen_either() -> None:
    """What the gateway serves by itself on the aggregate is decided, too, and on record if denied."""
    idp = Idp()
    async with world(idp) as w:
        token = idp.token(aud="http://localhost/mcp", client_id="nobody")
        asked = {"notifications": {"toolsListChanged": True}}
        raw = w.modern("subscriptions/listen", asked, key=token)
        refused = await w.ask(raw.replace(b"POST /mcp/up ", b"POST /mcp "))
        assert refused.error["data"]["reason"] == "agent_unregistered"
        assert w.ledger.decisions[-1][1].reason is Reason.AGENT_UNREGISTERED
        assert w.front.clients.streams == {}


@requirement("ID-5")
async def test_a_link_that_nobody_registered_breaks_the_chain() -> None:
    idp = Idp()
    async with world(idp) as w:
        answer = await w.ask(w.tool(key=idp.token(act={"sub": "c1", "act": {"sub": "c9"}})))
        assert answer.status == 401


@requirement("ID-5")
async def test_a_new_binding_counts_from_the_next_call_on() -> None:
    idp = Idp()
    token = idp.token()
    async with world(idp, clients={}) as w:
        assert "_meta" in (await w.ask(w.tool(key=token))).json["result"]
        w.clients[ISSUER, "c1", ""] = BOT
        w.state.view = w.view()
        assert "_meta" not in (await w.ask(w.tool(key=token))).json["result"]
        del w.clients[ISSUER, "c1", ""]
        w.state.view = w.view()
        assert "_meta" in (await w.ask(w.tool(key=token))).json["result"]


# ---- possession


def bound(idp: Idp, key: Any) -> str:
    return idp.token(cnf={"jkt": key.thumbprint()})


async def with_proof(w: World, token: str, dpop: str, scheme: str = "DPoP") -> Answer:
    raw = w.tool(key=token, fields={"dpop": dpop} if dpop else None)
    return await w.ask(raw.replace(b"Bearer ", f"{scheme} ".encode(), 1))


@requirement("ID-4")
async def test_a_bound_token_needs_a_fresh_proof_for_this_request() -> None:
    idp, key = Idp(), ec_key()
    token = bound(idp, key)
    async with world(idp) as w:
        assert (await with_proof(w, token, proof(key, token))).status == 200
        assert w.ledger.contexts[0].thumbprint == key.thumbprint()
        assert (await with_proof(w, token, proof(key, token, jti="p2"))).status == 200
        bad = {
            "replayed": proof(key, token),
            "none": "",
            "another key": proof(ec_key(), token, jti="a"),
            "another token": proof(key, "other", jti="b"),
            "no token hash": proof(key, token, jti="c", ath=None),
            "another method": proof(key, token, jti="d", method="GET"),
            "another URL": proof(key, token, jti="e", url="http://localhost/mcp"),
            "old": proof(key, token, jti="f", iat=NOW_S - 61),
            "future": proof(key, token, jti="g", iat=NOW_S + 31),
            "no id": proof(key, token, jti=None),
            "no time": proof(key, token, jti="h", iat=None),
            "type": proof(key, token, jti="i", header={"typ": "jwt"}),
            "private key shown": proof(
                key, token, jti="k", header={"jwk": key.as_dict(private=True)}
            ),
            "key missing": proof(key, token, jti="l", header={"jwk": {}}),
            "nonsense": "x.y.z",
            "oversize": "x" * 5000,
        }
        for name, dpop in bad.items():
            answer = await with_proof(w, token, dpop)
            assert answer.status == 401, name
            assert challenge(answer)["error"] == "invalid_token"
            assert challenge(answer)["error_description"] == (
                "The token is bound to a key, and possession of it was not proven"
            )
            assert "DPoP algs=" in answer.fields["www-authenticate"]
        as_bearer = await with_proof(w, token, proof(key, token, jti="m"), "Bearer")
        assert as_bearer.status == 401
        plain = idp.token()
        assert (await with_proof(w, plain, proof(key, plain, jti="n"))).status == 401
        assert len(w.upstream.calls) == 2


@requirement("ID-4")
async def test_a_proof_whose_body_comes_later_serves_once_all_the_same() -> None:
    idp, key = Idp(), ec_key()
    token = bound(idp, key)
    async with world(idp) as w, w.connect() as client:
        raw = w.tool(key=token, fields={"dpop": proof(key, token)}).replace(b"Bearer", b"DPoP", 1)
        head, _, body = raw.partition(b"\r\n\r\n")
        for status in (200, 401):
            client.write(head + b"\r\n\r\n")
            await client.writer.drain()
            client.write(body)
            answer = await client.answer()
            assert answer.status == status
        assert len(w.upstream.calls) == 1


@requirement("ID-4")
async def test_two_proofs_in_one_request_are_refused() -> None:
    idp, key = Idp(), ec_key()
    token = bound(idp, key)
    async with world(idp) as w:
        raw = w.tool(key=token, fields={"dpop": proof(key, token)})
        twice = raw.replace(b"Bearer ", b"DPoP ", 1).replace(b"dpop: ", b"dpop: x\r\ndpop: ", 1)
        assert (await w.ask(twice)).status == 400


@requirement("ID-4")
async def test_a_token_bound_to_a_certificate_needs_that_connection() -> None:
    """RFC 8705: without TLS there is no certificate, so nobody has it."""
    idp = Idp()
    async with world(idp) as w:
        answer = await w.ask(w.tool(key=idp.token(cnf={"x5t#S256": "x" * 43})))
        assert answer.status == 401


@requirement("ID-9")
async def test_only_a_token_that_opened_the_endpoint_is_exchanged() -> None:
    """Whoever shows a user's token for another resource, or without its key, puts nothing in place of
    the one that the user's own calls are made with."""
    idp, key = Idp(), ec_key()
    token, auth = idp.token(), UpstreamAuth(AuthMode.TOKEN_EXCHANGE, subject_from="caller")
    async with world(idp) as w:
        snapshot = replace(w.state.view.snapshot, specs={UP: replace(w.spec, auth=auth)})
        w.state.view = type(w.state.view)(snapshot=snapshot, pdp=w.state.view.pdp)
        await w.ask(w.tool(key=token))
        assert w.front.credentials.shown("bot/bob") == (ISSUER, token)
        for stolen in (idp.token(aud="http://other.example/mcp"), bound(idp, key)):
            assert (await w.ask(w.tool(key=stolen))).status == 401
            assert w.front.credentials.shown("bot/bob") == (ISSUER, token)
        proven = bound(idp, key)
        await with_proof(w, proven, proof(key, proven))
        assert w.front.credentials.shown("bot/bob") == (ISSUER, proven)
        await w.ask(w.tool(key=token))  # known already; the latest call counts
        assert w.front.credentials.shown("bot/bob") == (ISSUER, token)


@requirement("ID-4")
async def test_a_workload_of_a_trust_domain() -> None:
    """SPIFFE JWT-SVID: no issuer of its own, an audience, and the workload as subject."""
    idp, key = Idp(), ec_key("s1")
    domain = "spiffe://example.org"
    idp.ring.near[domain] = [key]
    clients = {(domain, f"{domain}/billing", ""): BOT}
    async with world(
        idp, tokens=idp.tokens(TrustedIssuer(domain, unscoped=True)), clients=clients
    ) as w:
        claims = {"sub": f"{domain}/billing", "aud": [RESOURCE], "exp": NOW_S + 300}
        good = sign(key, {"typ": "JWT", "kid": "s1"}, claims)
        assert "isError" not in (await w.ask(w.tool(key=good))).json["result"]
        assert w.ledger.decisions[0][0].caller.user is None
        other = sign(key, {"kid": "s1"}, {**claims, "sub": "spiffe://evil.org/billing"})
        assert (await w.ask(w.tool(key=other))).status == 401
        stranger = sign(key, {"kid": "s1"}, {**claims, "sub": f"{domain}/other"})
        answer = await w.ask(w.tool(key=stranger))
        assert answer.json["result"]["_meta"]["exeat/denied"]["reason"] == "agent_unregistered"


@requirement("ID-4")
async def test_possession_can_be_demanded_of_an_agent() -> None:
    idp, key = Idp(), ec_key()
    async with world(idp) as w:
        assert (await w.ask(w.tool())).status == 200
        for demanded, good in (("dpop", True), ("any", True), ("mtls", False)):
            snapshot = replace(w.state.view.snapshot, proofs={BOT: demanded})
            w.state.view = type(w.state.view)(snapshot=snapshot, pdp=w.state.view.pdp)
            token = bound(idp, key)
            dpop = proof(key, token, jti=demanded)
            assert (await with_proof(w, token, dpop)).status == (200 if good else 401)
            assert (await w.ask(w.tool(key=idp.token()))).status == 401
            assert (await w.ask(w.tool())).status == 401  # the agent's key


@requirement("ID-1", "GW-13")
@pytest.mark.parametrize(
    "how",
    [
        "ended",
        "unbound",
        "its user unbound",
        "a link unbound",
        "a link suspended",
        "proof demanded",
        "nobody answers for it",
        "expired",
    ],
)
async def test_what_stands_open_ends_with_its_credential(how: str) -> None:
    """A legacy stream and a modern subscription: nobody listens on with a token that is over."""
    idp = Idp()

    async def quiet(seen: Seen) -> None:
        if seen.message is None:
            seen.stream()  # the server's own standing stream
        else:
            seen.accept()

    clients = {(ISSUER, "c1", ""): BOT, (ISSUER, "c2", ""): AgentId("eve")}
    act = {"sub": "c1", "act": {"sub": "c2"}}
    async with world(idp, clients=clients) as w, w.connect() as old, w.connect() as new:
        w.upstream.script = quiet
        token = idp.token(act=act)
        session = await w.session(token)
        old.write(
            b"GET /mcp/up HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n"
            b"mcp-protocol-version: 2025-11-25\r\nmcp-session-id: %b\r\n"
            b"authorization: Bearer %b\r\n\r\n" % (session.encode(), token.encode())
        )
        assert (await old.head())[0] == 200
        aggregate = idp.token(aud="http://localhost/mcp", act=act)
        raw = w.modern(
            "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, key=aggregate
        )
        new.write(raw.replace(b"POST /mcp/up ", b"POST /mcp "))
        assert (await new.head())[0] == 200
        if how == "ended":
            w.endings[f"{ISSUER} j1"] = NOW + 10**12
            w.state.view = w.view()
        elif how == "unbound":
            w.clients.clear()
            w.state.view = w.view()
        elif how == "its user unbound":
            w.subjects.clear()
            w.state.view = w.view()
        elif how == "a link unbound":
            del w.clients[ISSUER, "c2", ""]
            w.state.view = w.view()
        elif how == "a link suspended":
            agents = dict(w.state.view.snapshot.agents)
            eve = AgentId("eve")
            agents[eve] = replace(agents[eve], lifecycle=Lifecycle.SUSPENDED)
            snapshot = replace(w.state.view.snapshot, agents=agents)
            w.state.view = type(w.state.view)(snapshot=snapshot, pdp=w.state.view.pdp)
        elif how == "nobody answers for it":
            w.state.view = w.view(owner_live=False, deputy_live=False)
        elif how == "proof demanded":
            snapshot = replace(w.state.view.snapshot, proofs={BOT: "dpop"})
            w.state.view = type(w.state.view)(snapshot=snapshot, pdp=w.state.view.pdp)
        else:
            w.now += 601 * 10**9
        w.front.clients.keep_alive() if how == "expired" else w.front.clients.end_stopped()
        for client in (old, new):
            async with asyncio.timeout(10):
                while await client.chunk():
                    pass  # up to the last one, which is empty
        assert w.front.clients.streams == {}
