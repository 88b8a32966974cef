"""The authorization server on both databases: from consent to tokens, and what takes them back (ID-7)."""

import base64
import json
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from portal import CALLBACK, RESOURCE, SECOND, Portal, answered, authorize_path
from registry_world import ADA, BOB, BOT, EVE, GIT, act
from requirements import requirement

from exeat.identity.authorization.rules.credentials import ASSERTION
from exeat.storage.state import State

pytestmark = pytest.mark.anyio


@pytest.fixture
def portal(state: State) -> Portal:
    return Portal(state)


def error_of(answer: object) -> tuple[int, str]:
    status, said = answer.status_code, answer.json()  # type: ignore[attr-defined]
    return status, said["error"]


@requirement("ID-7")
async def test_consent_code_token(portal: Portal) -> None:
    """A stock client: it registers itself, a person allows it, it gets a token for one endpoint."""
    portal.world.active()
    client = portal.native()
    browser = portal.browser()
    await browser.sign_in()
    code = await browser.consent(client, agent="bot", scope="mcp:read mcp:write")
    answer = await portal.redeem(client, code)
    assert answer.headers["cache-control"] == "no-store"
    said = answer.json()
    assert (said["token_type"], said["expires_in"], said["scope"]) == (
        "Bearer", 900, "mcp:read mcp:write",
    )  # fmt: skip
    claims = portal.claims(said["access_token"])
    assert claims == {
        "iss": "http://localhost:8718",
        "sub": "ada",
        "aud": RESOURCE,
        "client_id": client,
        "iat": portal.now // SECOND,
        "exp": portal.now // SECOND + 900,
        "jti": claims["jti"],
        "scope": "mcp:read mcp:write",
        "grant": claims["grant"],
    }
    assert portal.state.snapshot().clients == {("http://localhost:8718", client, "ada"): BOT}
    told = portal.events()
    for kind in ("client.registered", "client.bound", "authorization.granted", "link.used"):
        assert kind in told
    everything = repr([w.event for w in portal.state.outbox.take(1000)])
    for secret in (code, said["access_token"], said["refresh_token"], "Stock Client"):
        assert secret not in everything


@requirement("ID-7")
async def test_a_code_serves_once_and_briefly(portal: Portal) -> None:
    client = portal.native()
    browser = portal.browser()
    await browser.sign_in()
    code = await browser.consent(client)
    first = (await portal.redeem(client, code)).json()
    assert error_of(await portal.redeem(client, code)) == (400, "invalid_grant")
    grant = portal.claims(first["access_token"])["grant"]
    assert portal.ended() == {grant}  # what came of it is taken back
    again = await portal.renew(client, first["refresh_token"])
    assert error_of(again) == (400, "invalid_grant")
    late = await browser.consent(client)
    portal.later(61)
    assert error_of(await portal.redeem(client, late)) == (400, "invalid_grant")


@requirement("ID-7")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"code_verifier": "x" * 64}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:1/callback"}, "invalid_grant"),
        ({"resource": RESOURCE + "/git"}, "invalid_target"),
        ({"code": "0" * 64}, "invalid_grant"),
        ({"code": ""}, "invalid_request"),
        ({"client_id": "CL-other"}, "invalid_grant"),
    ],
)
async def test_what_must_fit_a_code(portal: Portal, change: Mapping[str, str], error: str) -> None:
    portal.add("other", CALLBACK)
    client = portal.native()
    browser = portal.browser()
    await browser.sign_in()
    code = await browser.consent(client)
    answer = await portal.redeem(client, code, **change)
    assert error_of(answer) == (400, error)
    assert (await portal.redeem(client, code)).status_code == 200  # it was not used up


@requirement("ID-7")
async def test_refresh_tokens_rotate_and_a_second_use_ends_all(portal: Portal) -> None:
    client = portal.native()
    first = await portal.signed_up(client, scope="mcp:read mcp:write")
    portal.later(800)
    second = (await portal.renew(client, first["refresh_token"], scope="mcp:read")).json()
    assert second["scope"] == "mcp:read"
    assert second["refresh_token"] != first["refresh_token"]
    wider = await portal.renew(client, second["refresh_token"], scope="mcp:read mcp:pay")
    assert error_of(wider) == (400, "invalid_scope")
    third = (await portal.renew(client, second["refresh_token"])).json()
    assert third["scope"] == "mcp:read mcp:write"  # the whole of what was granted
    assert error_of(await portal.renew(client, first["refresh_token"])) == (400, "invalid_grant")
    assert error_of(await portal.renew(client, third["refresh_token"])) == (400, "invalid_grant")
    assert portal.ended() == {portal.claims(first["access_token"])["grant"]}
    assert portal.events()[-2:] == ["authorization.revoked", "tokens.ended"]


@requirement("ID-6")
async def test_nothing_lives_for_ever(portal: Portal) -> None:
    client = portal.native()
    first = await portal.signed_up(client)
    portal.later(15 * 86_400)
    assert error_of(await portal.renew(client, first["refresh_token"])) == (400, "invalid_grant")
    portal.later(90 * 86_400)
    gone = await portal.renew(client, first["refresh_token"])
    assert error_of(gone) == (401, "invalid_client")  # it registered itself 90 days ago


@requirement("ID-8")
async def test_the_departed_get_no_tokens(portal: Portal) -> None:
    client = portal.native()
    said = await portal.signed_up(client, BOB)
    browser = portal.browser()
    await browser.sign_in(BOB)
    code = await browser.consent(client)
    portal.world.registry.depart(BOB, act())
    assert error_of(await portal.renew(client, said["refresh_token"])) == (400, "invalid_grant")
    assert error_of(await portal.redeem(client, code)) == (400, "invalid_grant")
    asked = await browser.get(authorize_path(client))
    assert asked.headers["location"].startswith("/sign-in?next=")  # the session is over, too


@requirement("ID-7")
async def test_revocation(portal: Portal) -> None:
    """RFC 7009: of a refresh token the whole, of an access token it alone, of others' nothing."""
    client, other = portal.native(), portal.native()
    said = await portal.signed_up(client)
    claims = portal.claims(said["access_token"])

    async def revoke(by: str, token: str) -> int:
        form = {"token": token, "client_id": by}
        return (await portal.post("/oauth/revoke", form)).status_code

    assert await revoke(other, said["refresh_token"]) == 200
    assert await revoke(other, said["access_token"]) == 200
    assert await revoke(client, "unknown") == 200
    assert portal.ended() == set()
    assert await revoke(client, said["access_token"]) == 200
    assert portal.ended() == {claims["jti"]}
    assert await revoke(client, said["refresh_token"]) == 200
    assert await revoke(client, said["refresh_token"]) == 200
    assert portal.ended() == {claims["jti"], claims["grant"]}
    assert error_of(await portal.renew(client, said["refresh_token"])) == (400, "invalid_grant")


@requirement("ID-7")
async def test_an_agent_by_itself(portal: Portal) -> None:
    """Client credentials: the client is one agent, and its secret is shown once."""
    portal.world.active()
    client, secret = portal.add("bot", agent=BOT, secret=True)
    form = {"grant_type": "client_credentials", "client_id": client.id, "resource": RESOURCE}
    answer = await portal.token(**form, client_secret=secret)
    claims = portal.claims(answer.json()["access_token"])
    assert (claims["sub"], claims["client_id"]) == (client.id, client.id)
    assert "refresh_token" not in answer.json()
    for wrong in ({}, {"client_secret": ""}, {"client_secret": secret + "0"}):
        assert error_of(await portal.token(**form, **wrong)) == (401, "invalid_client")
    assert error_of(
        await portal.token(
            grant_type="client_credentials", client_id=client.id, client_secret=secret
        )
    ) == (400, "invalid_request")  # RFC 8707: for which endpoint?
    portal.world.registry.suspend(BOT, act())
    refused = await portal.token(**form, client_secret=secret)
    assert error_of(refused) == (400, "unauthorized_client")
    portal.world.registry.resume(BOT, act())
    portal.later(31 * 86_400)
    refused = await portal.token(**form, client_secret=secret)
    assert error_of(refused) == (401, "invalid_client")  # no credential without an end
    assert secret not in repr([w.event for w in portal.state.outbox.take(1000)])


@requirement("ID-6")
async def test_people_and_agents_are_not_mixed(portal: Portal) -> None:
    """NHI10: an agent's client signs nobody in, and a client that signs people in is no agent."""
    portal.world.active()
    agents, secret = portal.add("bot", agent=BOT, secret=True)
    people, other = portal.add("web", CALLBACK, secret=True)
    browser = portal.browser()
    await browser.sign_in()
    shown = await browser.get(authorize_path(agents.id))
    assert shown.status_code == 400 and "does not sign people in" in shown.text
    answer = await portal.token(
        grant_type="client_credentials", client_id=people.id, client_secret=other, resource=RESOURCE
    )
    assert error_of(answer) == (400, "unauthorized_client")
    for kind in ("authorization_code", "refresh_token"):
        answer = await portal.token(grant_type=kind, client_id=agents.id, client_secret=secret)
        assert error_of(answer) == (400, "unauthorized_client")


@requirement("ID-7")
async def test_a_client_shows_itself_once_and_in_one_way(portal: Portal) -> None:
    """RFC 6749 2.3: never two methods in one request, nor one of them twice."""
    portal.world.active()
    client, secret = portal.add("bot", agent=BOT, secret=True)
    form = {"grant_type": "client_credentials", "resource": RESOURCE}
    shown = {"client_id": client.id, "client_secret": secret}
    pair = "Basic " + base64.b64encode(f"{client.id}:{secret}".encode()).decode()
    other = "Basic " + base64.b64encode(b"other:secret").decode()
    async with portal._http() as http:
        for fields, said, found in (
            ([pair], form, (200, None)),
            ([], {**form, **shown}, (200, None)),
            ([pair, pair], form, (400, "invalid_request")),
            ([pair, other], form, (400, "invalid_request")),
            ([pair], {**form, **shown}, (400, "invalid_request")),
            ([other], {**form, **shown}, (400, "invalid_request")),
            (["Basic !"], form, (401, "invalid_client")),
            (["Bearer x"], form, (401, "invalid_client")),
        ):
            headers = [("Authorization", field) for field in fields]
            answer = await http.post("/oauth/token", data=said, headers=headers)
            assert (answer.status_code, answer.json().get("error")) == found, (fields, said)
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == 'Basic realm="exeat"'


@requirement("ID-7")
async def test_guessing_a_secret_is_slowed_down(portal: Portal) -> None:
    portal.world.active()
    client, secret = portal.add("bot", agent=BOT, secret=True)
    form = {"grant_type": "client_credentials", "client_id": client.id, "resource": RESOURCE}
    for _ in range(20):
        await portal.token(**form, client_secret="wrong")
    answer = await portal.token(**form, client_secret=secret)
    assert error_of(answer) == (429, "temporarily_unavailable")
    assert answer.headers["retry-after"] == "60"
    portal.later(60)
    assert (await portal.token(**form, client_secret=secret)).status_code == 200


@requirement("ID-7")
async def test_guesses_are_counted_however_a_client_shows_itself(portal: Portal) -> None:
    portal.world.active()
    client, secret = portal.add("bot", agent=BOT, secret=True)

    async def shown(guess: str) -> object:
        word = base64.b64encode(f"{client.id}:{guess}".encode()).decode()
        form = {"grant_type": "client_credentials", "resource": RESOURCE}
        return await portal.post("/oauth/token", form, Authorization=f"Basic {word}")

    for number in range(20):
        assert error_of(await shown(f"wrong{number}")) == (401, "invalid_client")
    assert error_of(await shown(secret)) == (429, "temporarily_unavailable")


@requirement("ID-7")
@requirement("GW-10")
async def test_a_document_is_fetched_for_nobody_who_was_never_signed_in(portal: Portal) -> None:
    """The token endpoint asks no stranger who he is: a client is somebody's only after a consent."""
    where = "https://app.example.com/client.json"

    def part(said: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()

    form = {"grant_type": "authorization_code", "code": "x", "code_verifier": "v" * 64}
    word = base64.b64encode(f"{quote(where, safe='')}:x".encode()).decode()
    assertion = f"{part({'alg': 'ES256'})}.{part({'sub': where})}.AAAA"
    for path in ("/oauth/token", "/oauth/revoke"):
        for ways in (
            await portal.post(path, {**form, "token": "x", "client_id": where}),
            await portal.post(path, {**form, "token": "x"}, Authorization=f"Basic {word}"),
            await portal.post(
                path,
                {**form, "token": "x", "client_assertion": assertion,
                 "client_assertion_type": ASSERTION},
            ),
        ):  # fmt: skip
            assert error_of(ways) == (401, "invalid_client")
    assert portal.web.asked == []


@requirement("ID-7")
async def test_registration_is_closed_unless_somebody_opened_it(portal: Portal) -> None:
    said = {"redirect_uris": ["http://localhost/cb"], "client_name": "C"}
    async with portal._http() as http:

        async def register() -> object:
            return await http.post("/oauth/register", json=said)

        async def advertised() -> bool:
            found = await http.get("/.well-known/oauth-authorization-server")
            return "registration_endpoint" in found.json()

        assert error_of(await register()) == (403, "access_denied")
        assert not await advertised()
        portal.clients.open_window(5, portal.doing())
        assert await advertised()
        made = await register()
        assert made.status_code == 201  # type: ignore[attr-defined]
        assert made.json()["token_endpoint_auth_method"] == "none"  # type: ignore[attr-defined]
        for _ in range(19):
            await register()
        assert error_of(await register()) == (429, "temporarily_unavailable")
        portal.later(60)
        assert (await register()).status_code == 201  # type: ignore[attr-defined]
        assert error_of(await register()) == (403, "access_denied")  # 20 came
        portal.clients.open_window(5, portal.doing())
        portal.later(301)
        assert error_of(await register()) == (403, "access_denied")
    assert portal.events().count("registration.opened") == 2


@requirement("ID-7")
async def test_who_may_change_clients(portal: Portal) -> None:
    from exeat.core.errors import Conflict

    with pytest.raises(Conflict, match="admin"):
        portal.clients.open_window(5, portal.doing(EVE))
    made, _ = portal.add("web", CALLBACK)
    with pytest.raises(Conflict, match="admin"):
        portal.clients.revoke(made.id, portal.doing(BOB))
    with pytest.raises(Conflict, match="already"):
        portal.add("web", CALLBACK)


@requirement("ID-7")
async def test_consent_is_remembered_for_exactly_what_was_seen(portal: Portal) -> None:
    there = "https://app.example.com/cb"
    web, _ = portal.add("web", there, secret=True)
    browser = portal.browser()
    await browser.sign_in()
    await browser.consent(web.id, redirect_uri=there)

    async def asked(**more: str) -> bool:
        shown = await browser.get(authorize_path(web.id, redirect_uri=there, **more))
        return shown.status_code == 200

    assert not await asked()
    assert not await asked(prompt="none")
    assert await asked(prompt="consent")
    assert await asked(scope="mcp:read mcp:pay")
    assert await asked(resource=RESOURCE + f"/{GIT}")
    grant = portal.claims((await portal.redeem_as(web, browser, there))["access_token"])["grant"]
    await browser.get("/")
    assert f'value="{grant}"' in browser.page.text  # type: ignore[union-attr]
    gone = await browser.submit("/authorizations/revoke", authorization=grant)
    assert gone.status_code == 303
    assert await asked()  # revoking forgets it


@requirement("ID-7")
async def test_a_native_client_is_asked_about_each_time(portal: Portal) -> None:
    """Any program here could ask in its name."""
    client = portal.native()
    browser = portal.browser()
    await browser.sign_in()
    await browser.consent(client)
    assert (await browser.get(authorize_path(client))).status_code == 200
    silent = await browser.get(authorize_path(client, prompt="none"))
    assert answered(silent) == {
        "error": "consent_required",
        "error_description": "The person has to be asked.",
        "state": "s1",
        "iss": "http://localhost:8718",
    }


@requirement("ID-5")
async def test_one_chooses_among_ones_own_agents_only(portal: Portal) -> None:
    portal.world.active()  # ada owns it, bob deputises
    portal.world.draft("other", owner=ADA, deputy=EVE)
    client = portal.native()
    browser = portal.browser()
    await browser.sign_in(BOB)
    where = authorize_path(client)
    shown = await browser.get(where)
    assert 'value="bot"' in shown.text and 'value="other"' not in shown.text
    seen = browser.hidden("seen")
    refused = await browser.submit(where, decision="allow", agent="other", seen=seen)
    assert refused.status_code == 409 and "Choose one of your agents" in refused.text
    assert portal.state.snapshot().clients == {}
    taken = await browser.submit(where, decision="allow", agent="bot", seen=seen)
    assert taken.status_code == 303
    again = await browser.get(where)
    assert "is the agent <strong>bot</strong>" in again.text  # nothing is left to choose
