"""ID-JAG: an identity provider vouches for a person, on both databases (ID-5, ID-7)."""

from typing import Any

import pytest
from issuing import ISSUER as IDP
from issuing import Idp, ec_key, proof, sign
from portal import ISSUER, RESOURCE, SECOND, Portal
from registry_world import ADA, BOB, act
from requirements import requirement

from exeat.app.control_app import Beside
from exeat.storage.state import State

pytestmark = pytest.mark.anyio
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Enterprise:
    """An identity provider that the gateway trusts, and a client that it gives assertions to."""

    def __init__(self, state: State) -> None:
        self.idp = Idp()
        self.portal = Portal(state, Beside(check=self.idp.tokens(own=ISSUER).assertion))
        self.client, self.secret = self.portal.add(
            "desk", "https://desk.example/callback", secret=True
        )
        self.portal.world.registry.bind_person(IDP, "u-bob", BOB, act())
        self.count = 0

    def assertion(self, key: Any = None, header: Any = None, **changes: Any) -> str:
        self.count += 1
        now = self.portal.now // SECOND
        claims = {
            "iss": IDP, "sub": "u-bob", "aud": ISSUER, "client_id": self.client.id,
            "resource": RESOURCE, "scope": "mcp:read mcp:write", "jti": f"a{self.count}",
            "iat": now, "exp": now + 300, **changes,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        head = {"typ": "oauth-id-jag+jwt", "kid": "k1", **(header or {})}
        return sign(key or self.idp.key, head, claims)

    async def redeem(self, assertion: str, **more: str) -> Any:
        form = {
            "grant_type": JWT_BEARER, "assertion": assertion,
            "client_id": self.client.id, "client_secret": self.secret,
        }  # fmt: skip
        return await self.portal.token(**{**form, **more})


@pytest.fixture
def enterprise(state: State) -> Enterprise:
    return Enterprise(state)


def error_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


@requirement("ID-5", "ID-7")
async def test_an_assertion_becomes_a_token_for_that_person_and_endpoint(
    enterprise: Enterprise,
) -> None:
    said = (await enterprise.redeem(enterprise.assertion(), scope="mcp:read")).json()
    assert "refresh_token" not in said
    claims = enterprise.portal.claims(said["access_token"])
    assert (claims["sub"], claims["client_id"]) == (BOB, enterprise.client.id)
    assert (claims["aud"], claims["scope"]) == (RESOURCE, "mcp:read")
    assert enterprise.portal.events()[-1] == "authorization.granted"


@requirement("ID-5", "ID-7")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sub": "u-zoe"}, "invalid_grant"),
        ({"sub": None}, "invalid_grant"),
        ({"aud": "https://other.example"}, "invalid_grant"),
        ({"aud": [ISSUER, "https://other.example"]}, "invalid_grant"),
        ({"client_id": "CL-other"}, "invalid_grant"),
        ({"client_id": None}, "invalid_grant"),
        ({"iss": "https://evil.example"}, "invalid_grant"),
        ({"iss": ISSUER}, "invalid_grant"),
        ({"jti": None}, "invalid_grant"),
        ({"exp": None}, "invalid_grant"),
        ({"exp": 1}, "invalid_grant"),
        ({"act": {"sub": "c1"}}, "invalid_grant"),
        ({"resource": None}, "invalid_target"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"resource": [RESOURCE]}, "invalid_target"),
    ],
)
async def test_what_is_no_good_assertion(
    enterprise: Enterprise, changes: dict[str, Any], error: str
) -> None:
    answer = await enterprise.redeem(enterprise.assertion(**changes))
    assert error_of(answer) == (400, error)


@requirement("ID-5", "ID-7")
async def test_types_keys_and_second_uses(enterprise: Enterprise) -> None:
    for bad in (
        enterprise.assertion(header={"typ": "JWT"}),
        enterprise.assertion(header={"typ": "at+jwt"}),
        enterprise.assertion(ec_key("k1")),
        "x",
        "a.b.c",
    ):
        assert error_of(await enterprise.redeem(bad)) == (400, "invalid_grant")
    once = enterprise.assertion()
    assert (await enterprise.redeem(once)).status_code == 200
    assert error_of(await enterprise.redeem(once)) == (400, "invalid_grant")
    more = await enterprise.redeem(enterprise.assertion(), scope="mcp:pay")
    assert error_of(more) == (400, "invalid_scope")
    elsewhere = await enterprise.redeem(enterprise.assertion(), resource=f"{RESOURCE}/other")
    assert error_of(elsewhere) == (400, "invalid_target")


@requirement("ID-4", "ID-7")
async def test_an_assertion_that_is_bound_to_a_key_needs_its_proof(enterprise: Enterprise) -> None:
    portal, key = enterprise.portal, ec_key()

    async def redeemed(cnf: dict[str, str], by: Any = None) -> Any:
        form = {
            "grant_type": JWT_BEARER, "assertion": enterprise.assertion(cnf=cnf),
            "client_id": enterprise.client.id, "client_secret": enterprise.secret,
        }  # fmt: skip
        claims = {"ath": None, "iat": portal.now // SECOND, "jti": f"p{enterprise.count}"}
        dpop = proof(by, "", url=f"{ISSUER}/oauth/token", **claims) if by is not None else ""
        return await portal.post("/oauth/token", form, **({"DPoP": dpop} if dpop else {}))

    mine = {"jkt": key.thumbprint()}
    assert error_of(await redeemed(mine)) == (400, "invalid_grant")
    assert error_of(await redeemed(mine, ec_key())) == (400, "invalid_grant")
    assert error_of(await redeemed({"x5t#S256": "x" * 43}, key)) == (400, "invalid_grant")
    assert (await redeemed(mine, key)).json()["token_type"] == "DPoP"


@requirement("ID-5", "ID-7")
async def test_neither_a_stranger_nor_the_departed(enterprise: Enterprise) -> None:
    wrong = await enterprise.redeem(enterprise.assertion(), client_secret="no")
    assert error_of(wrong) == (401, "invalid_client")
    native = enterprise.portal.native()
    public = await enterprise.portal.token(
        grant_type=JWT_BEARER, client_id=native, assertion=enterprise.assertion(client_id=native)
    )
    assert error_of(public) == (400, "unauthorized_client")
    enterprise.portal.world.registry.depart(BOB, act(ADA))
    gone = await enterprise.redeem(enterprise.assertion())
    assert error_of(gone) == (400, "invalid_grant")
