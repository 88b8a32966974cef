"""ID-3: keys of trusted issuers and introspection, against a real local issuer."""

import asyncio
import base64
import gc
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey
from local_site import Answer, Asked, LocalSite, local_site
from requirements import requirement

from exeat.adapters.fetch import Fetcher, FetchRefused
from exeat.adapters.issuers import (
    KEYS_AGE_MAX_S,
    KEYS_FRESH_S,
    REFETCH_MIN_S,
    Issuers,
    public_keys,
)
from exeat.core.errors import Invalid
from exeat.identity.model.issuer import Introspection, TrustedIssuer
from exeat.identity.rules.discovery import resource_metadata_urls, server_metadata_urls

pytestmark = pytest.mark.anyio
LOCAL = frozenset({"127.0.0.1"})
S = 1_000_000_000


@dataclass
class Clock:
    now: int = 1_700_000_000 * S

    def __call__(self) -> int:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += int(seconds * S)


@dataclass
class Idp:
    """An issuer at ``site``, with OpenID Connect discovery and one key."""

    site: LocalSite
    clock: Clock = field(default_factory=Clock)
    keys: list[Any] = field(default_factory=list)
    held: asyncio.Event | None = None

    def __post_init__(self) -> None:
        self.new_key("k1")
        self.site.routes |= {
            "/.well-known/openid-configuration": lambda _: Answer(
                {
                    "issuer": self.site.url,
                    "jwks_uri": f"{self.site.url}/jwks",
                    "introspection_endpoint": f"{self.site.url}/introspect",
                }
            ),
            "/jwks": self.jwks,
        }

    async def jwks(self, asked: Asked) -> Answer:
        if self.held is not None:
            await self.held.wait()
        return Answer({"keys": [key.as_dict(private=False) for key in self.keys]})

    def new_key(self, kid: str) -> ECKey:
        key = ECKey.generate_key("P-256", {"kid": kid})
        self.keys.append(key)
        return key

    def asked(self, path: str) -> int:
        return self.site.paths().count(path)

    def issuers(self, **settings: Any) -> Issuers:
        return Issuers([TrustedIssuer(self.site.url, **settings)], Fetcher(LOCAL), self.clock)


@pytest.fixture
async def idp() -> AsyncIterator[Idp]:
    async with local_site() as site:
        yield Idp(site)


@requirement("ID-3")
async def test_keys_are_found_by_discovery_and_verify_a_token(idp: Idp) -> None:
    issuers = idp.issuers()
    assert issuers.known(idp.site.url, "k1") is None
    keys = await issuers.refresh(idp.site.url, "k1")
    assert keys is not None and keys == issuers.known(idp.site.url, "k1")
    token = jwt.encode({"alg": "ES256", "kid": "k1"}, {"sub": "a"}, idp.keys[0])
    assert jwt.decode(token, keys.keys, algorithms=list(keys.algorithms)).claims == {"sub": "a"}
    assert idp.site.paths() == [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/jwks",
    ]


@requirement("ID-3")
async def test_a_configured_key_address_needs_no_discovery(idp: Idp) -> None:
    issuers = idp.issuers(jwks_url=f"{idp.site.url}/jwks")
    assert await issuers.refresh(idp.site.url, "k1")
    assert idp.site.paths() == ["/jwks"]


@requirement("ID-3")
@pytest.mark.parametrize("told", ["{url}/", "https://evil.example", None, "{url}#x", "HTTP{rest}"])
async def test_metadata_of_another_issuer_is_refused(idp: Idp, told: str | None) -> None:
    url = idp.site.url
    issuer = told and told.format(url=url, rest=url.removeprefix("http"))
    idp.site.routes["/.well-known/oauth-authorization-server"] = {
        "issuer": issuer,
        "jwks_uri": f"{url}/jwks",
    }
    issuers = idp.issuers()
    assert await issuers.refresh(url, "k1") is None
    assert "metadata of issuer" in issuers.trouble(url)
    assert idp.asked("/jwks") == 0


@requirement("ID-3", "GW-10")
@pytest.mark.parametrize(
    "where",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/keys",
        "https://10.0.0.1/keys",
        "https://[::ffff:10.0.0.1]/keys",
        "http://idp.example/keys",
        "https://u:p@idp.example/keys",
        "file:///etc/passwd",
        "//127.0.0.1/keys",
        "",
        7,
    ],
)
async def test_metadata_cannot_send_the_gateway_inside(
    idp: Idp, monkeypatch: pytest.MonkeyPatch, where: object
) -> None:
    """SSRF by ``jwks_uri`` or ``introspection_endpoint`` of an issuer: no key, no token, and the reason."""
    monkeypatch.setenv("S", "hush")
    idp.site.routes["/.well-known/openid-configuration"] = {
        "issuer": idp.site.url, "jwks_uri": where, "introspection_endpoint": where,
    }  # fmt: skip
    issuers = idp.issuers(introspection=Introspection("exeat", secret_from="S"))
    assert await issuers.refresh(idp.site.url, "k1") is None
    assert issuers.trouble(idp.site.url)
    assert await issuers.introspect(idp.site.url, "opaque") is None
    assert set(idp.site.paths()) == {
        "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration",
    }  # fmt: skip


@requirement("ID-3")
async def test_an_issuer_that_is_not_trusted_is_not_asked(idp: Idp) -> None:
    issuers = idp.issuers()
    for name in ("https://evil.example", idp.site.url + "/", idp.site.url.upper()):
        assert await issuers.refresh(name, "k1") is None
        assert issuers.known(name, "k1") is None
        assert await issuers.introspect(name, "x") is None
        assert "not a trusted issuer" in issuers.trouble(name)
    assert idp.site.asked == []


@requirement("ID-3")
async def test_rotation_an_unknown_key_is_asked_for_once(idp: Idp) -> None:
    issuers, url = idp.issuers(), idp.site.url
    await issuers.refresh(url, "k1")
    idp.new_key("k2")
    assert issuers.known(url, "k2") is None
    assert await issuers.refresh(url, "k2") is None  # the last request ended a moment ago
    idp.clock.pass_s(REFETCH_MIN_S)
    assert await issuers.refresh(url, "k2") is not None
    for number in range(20):
        assert await issuers.refresh(url, f"made-up-{number}") is None
    assert idp.asked("/jwks") == 2


@requirement("ID-3")
async def test_a_withdrawn_key_ends_without_anybody_naming_an_unknown_one(idp: Idp) -> None:
    issuers, url = idp.issuers(), idp.site.url
    await issuers.refresh(url, "k1")
    idp.keys.clear()
    idp.new_key("k2")
    idp.clock.pass_s(KEYS_FRESH_S + 1)
    assert issuers.known(url, "k1") is not None  # and asks beside
    await issuers.refresh(url, "k1")  # waits for what is under way
    assert issuers.known(url, "k1") is None
    assert issuers.known(url, "k2") is not None


@requirement("ID-3")
async def test_keys_serve_while_the_issuer_is_down_until_their_limit(idp: Idp) -> None:
    issuers, url = idp.issuers(), idp.site.url
    await issuers.refresh(url, "k1")
    idp.site.routes["/jwks"] = Answer(b"down", 503)
    idp.clock.pass_s(KEYS_AGE_MAX_S)
    assert await issuers.refresh(url, "k1") is not None
    assert "503" in issuers.trouble(url)
    idp.clock.pass_s(1)
    assert issuers.known(url, "k1") is None
    assert await issuers.refresh(url, "k1") is None
    idp.site.routes["/jwks"] = idp.jwks
    idp.clock.pass_s(REFETCH_MIN_S)
    assert await issuers.refresh(url, "k1") is not None
    assert issuers.trouble(url) == ""


@requirement("ID-3")
async def test_time_that_runs_backwards_makes_keys_unusable(idp: Idp) -> None:
    issuers, url = idp.issuers(), idp.site.url
    await issuers.refresh(url, "k1")
    idp.clock.pass_s(-3600)
    assert issuers.known(url, "k1") is None


@requirement("ID-3")
async def test_an_issuer_that_is_down_is_not_asked_at_every_token(idp: Idp) -> None:
    issuers, url = idp.issuers(), idp.site.url
    idp.site.routes["/jwks"] = Answer(b"", 500)
    for _ in range(20):
        assert await issuers.refresh(url, "k1") is None
    assert idp.asked("/jwks") == 1


@requirement("ID-3")
async def test_one_request_is_under_way_for_all_who_wait(idp: Idp) -> None:
    issuers, url = idp.issuers(), idp.site.url
    idp.held = asyncio.Event()
    waiting = [asyncio.create_task(issuers.refresh(url, "k1")) for _ in range(50)]
    while not idp.asked("/jwks"):
        await asyncio.sleep(0)
    waiting[0].cancel()  # one who gives up takes nothing from the others
    idp.held.set()
    found = await asyncio.gather(*waiting[1:])
    assert all(found) and idp.asked("/jwks") == 1


@requirement("ID-3")
async def test_keys_that_must_not_verify_are_left_out() -> None:
    good = ECKey.generate_key("P-256", {"kid": "good"})
    ed = OKPKey.generate_key("Ed25519", {"kid": "ed"})
    listed: list[Any] = [
        good.as_dict(private=True),
        ed.as_dict(private=False),
        OctKey.generate_key(256, {"kid": "secret"}).as_dict(private=True),
        {"kty": "RSA", "kid": "short", "e": "AQAB", "n": "v" + "A" * 170},
        ECKey.generate_key("P-256", {"kid": "enc", "use": "enc"}).as_dict(private=False),
        {"kty": "EC", "kid": "broken", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "AKP", "kid": "unknown"},
        {"kid": "nothing"},
        "text",
        None,
        {"kty": "EC", "key_ops": ["sign"], **good.as_dict(private=False)},
    ]
    found = public_keys({"keys": listed})
    assert [key.kid for key in found] == ["good", "ed"]
    assert not any(key.is_private for key in found)
    for document in ({}, {"keys": {}}, {"keys": "x"}):
        with pytest.raises(FetchRefused):
            public_keys(document)


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


@requirement("ID-3")
async def test_a_public_key_cannot_be_used_as_a_shared_secret(idp: Idp) -> None:
    issuers, url = idp.issuers(), idp.site.url
    keys = await issuers.refresh(url, None)
    assert keys is not None
    pem = idp.keys[0].as_pem(private=False)
    head = _base64(b'{"alg":"HS256","kid":"k1"}') + b".e30"
    confused = (head + b"." + _base64(hmac.digest(pem, head, "sha256"))).decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=") + ".e30."
    for token in (confused, none):
        with pytest.raises((JoseError, ValueError)):
            jwt.decode(token, keys.keys, algorithms=list(keys.algorithms))


@requirement("ID-3")
@pytest.mark.parametrize("algorithms", [{"none"}, {"HS256"}, {"ES256", "HS512"}, set(), {"es256"}])
def test_algorithms_that_prove_nothing_cannot_be_configured(algorithms: set[str]) -> None:
    with pytest.raises(Invalid):
        TrustedIssuer("https://idp.example", algorithms=frozenset(algorithms))


@requirement("ID-3")
def test_claims_are_read_as_configured() -> None:
    issuer = TrustedIssuer(
        "https://idp.example",
        audiences={"api://exeat": "https://gw.example/mcp"},
        scopes={"Mcp.Read": "mcp:read"},
    )
    assert issuer.resources(["api://exeat", "x"]) == {"https://gw.example/mcp", "x"}
    assert issuer.scope(["Mcp.Read", "mcp:write"]) == {"mcp:read", "mcp:write"}
    assert issuer.client({"azp": "b", "client_id": "a"}) == "a"
    assert issuer.client({"azp": "b", "client_id": 7}) == "b"
    assert issuer.client({"client_id": ""}) is None


@requirement("ID-3", "ID-9")
def test_metadata_is_sought_in_the_order_of_the_specification() -> None:
    assert server_metadata_urls("https://a.example/t/1") == (
        "https://a.example/.well-known/oauth-authorization-server/t/1",
        "https://a.example/.well-known/openid-configuration/t/1",
        "https://a.example/t/1/.well-known/openid-configuration",
    )
    for root in ("https://a.example", "https://a.example/"):
        assert server_metadata_urls(root) == (
            "https://a.example/.well-known/oauth-authorization-server",
            "https://a.example/.well-known/openid-configuration",
        )
    assert resource_metadata_urls("https://m.example/mcp") == (
        "https://m.example/.well-known/oauth-protected-resource/mcp",
        "https://m.example/.well-known/oauth-protected-resource",
    )
    assert resource_metadata_urls("https://m.example") == (
        "https://m.example/.well-known/oauth-protected-resource",
    )


class Opaque:
    """Introspection at an Idp: token → what is said of it."""

    def __init__(self, idp: Idp, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.idp, self.said = idp, {}  # type: ignore[var-annotated]
        monkeypatch.setenv("GATEWAY_SECRET", "p&ss word")
        idp.site.routes["/introspect"] = lambda asked: Answer(
            self.said.get(asked.form["token"], {"active": False})
        )
        chosen = {"secret_from": "GATEWAY_SECRET", **settings}
        self.issuers = idp.issuers(introspection=Introspection("gateway", **chosen))

    async def of(self, token: str) -> Any:
        return await self.issuers.introspect(self.idp.site.url, token)

    @property
    def asked(self) -> int:
        return self.idp.asked("/introspect")


@requirement("ID-3")
async def test_an_opaque_token_is_introspected_and_the_answer_kept(
    idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque = Opaque(idp, monkeypatch)
    opaque.said["t"] = {"active": True, "sub": "ann", "exp": idp.clock.now // S + 3600}
    answers = await asyncio.gather(*(opaque.of("t") for _ in range(20)))
    assert all(answer["sub"] == "ann" for answer in answers)
    await opaque.of("t")
    assert opaque.asked == 1
    asked = idp.site.asked[-1]
    assert (
        asked.headers["authorization"]
        == "Basic " + base64.b64encode(b"gateway:p%26ss+word").decode()
    )
    opaque.said["t"] = {"active": False}  # revoked there: true here within cache_max_s
    idp.clock.pass_s(60)
    assert await opaque.of("t") is None


@requirement("ID-3")
async def test_the_answer_is_not_kept_beyond_the_end_of_the_token(
    idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque = Opaque(idp, monkeypatch)
    opaque.said["t"] = {"active": True, "exp": idp.clock.now // S + 5}
    assert await opaque.of("t")
    idp.clock.pass_s(5)
    assert await opaque.of("t") is None
    assert opaque.asked == 2


@requirement("ID-3")
async def test_a_token_that_is_not_active_is_not_asked_for_again_and_again(
    idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque = Opaque(idp, monkeypatch)
    for said in ({"active": False}, {"active": "true"}, {}, {"active": 1}):
        opaque.said["t"] = said
        before = opaque.asked
        for _ in range(5):
            assert await opaque.of("t") is None
        assert opaque.asked == before + 1
        idp.clock.pass_s(60)


@requirement("ID-3")
async def test_introspection_that_fails_gives_nothing_and_says_why(
    idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque, url = Opaque(idp, monkeypatch), idp.site.url
    for answer, why in (
        (Answer(b"", 500), "500"),
        (Answer(b"{", 200), "JSON"),
        (Answer({"active": True, "iss": "https://evil.example"}), "another issuer"),
        (Answer({}, 401), "401"),
    ):
        idp.site.routes["/introspect"] = answer
        assert await opaque.of("t") is None
        assert why in opaque.issuers.trouble(url)
        idp.clock.pass_s(60)
    monkeypatch.delenv("GATEWAY_SECRET")
    assert await opaque.of("t") is None
    assert "no secret" in opaque.issuers.trouble(url)


@requirement("ID-3")
async def test_introspection_by_private_key(
    idp: Idp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = ECKey.generate_key("P-256")
    path = tmp_path / "gateway.pem"
    path.write_bytes(key.as_pem(private=True))
    opaque = Opaque(idp, monkeypatch, secret_from="", key_file=str(path))
    opaque.said["t"] = {"active": True}
    assert await opaque.of("t") == {"active": True}
    form = idp.site.asked[-1].form
    token = jwt.decode(form["client_assertion"], key, algorithms=["ES256"])
    assert token.claims["iss"] == token.claims["sub"] == "gateway"
    assert token.claims["aud"] == idp.site.url
    assert "client_secret" not in form and "authorization" not in idp.site.asked[-1].headers
    path.write_text("no key")
    assert await opaque.of("u") is None
    assert "cannot sign" in opaque.issuers.trouble(idp.site.url)


@requirement("ID-3")
async def test_closing_ends_what_is_under_way(idp: Idp) -> None:
    issuers = idp.issuers()
    idp.held = asyncio.Event()
    waiting = asyncio.create_task(issuers.refresh(idp.site.url, "k1"))
    while not idp.asked("/jwks"):
        await asyncio.sleep(0)
    await issuers.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gc.collect()
