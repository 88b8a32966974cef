"""Access tokens of our own (ID-6, ID-7)."""

import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey
from requirements import requirement

from exeat.core.ids import PersonId
from exeat.identity.authorization.model.grant import Grant
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.service.tokens import Mint

SECOND = 10**9
NOW = 1_800_000_000 * SECOND
KEY = ECKey.generate_key("P-256", private=True)
ISSUER = "http://localhost:8718"


def mint(life_s: int = 900) -> Mint:
    return Mint(ISSUER, KEY, lambda size: b"r" * size, life_s)


def grant(ends_at: int = NOW + 86_400 * SECOND) -> Grant:
    return Grant("g-1", "CL-a", PersonId("ada"), None, "http://x/mcp", ("mcp:read",), NOW, ends_at)


@requirement("ID-6")
def test_no_token_lives_long() -> None:
    """Whatever a setting, an authorization or an exchange says."""
    assert mint(86_400).issue(grant(), "ada", ("mcp:read",), NOW).expires_in == 3600
    assert mint().issue(grant(NOW + 60 * SECOND), "ada", (), NOW).expires_in == 60
    assert mint().issue(grant(), "ada", (), NOW, until=NOW + 5 * SECOND).expires_in == 5
    for end in (NOW, NOW - SECOND):
        with pytest.raises(Refused, match="has ended"):
            mint().issue(grant(end), "ada", (), NOW)


@requirement("ID-7")
def test_it_reads_back_its_own_until_they_end() -> None:
    token = mint().issue(grant(), "ada", ("mcp:read",), NOW).access_token
    claims = mint().read(token, NOW + 899 * SECOND)
    assert (claims["sub"], claims["aud"], claims["grant"]) == ("ada", "http://x/mcp", "g-1")
    with pytest.raises(Refused):
        mint().read(token, NOW + 900 * SECOND)
    (public,) = mint().jwks()["keys"]
    assert "d" not in public and public["kid"] == KEY.thumbprint()


def signed(header: dict[str, Any], key: Any, **changes: Any) -> str:
    claims = {
        "iss": ISSUER, "sub": "ada", "aud": "x", "client_id": "c", "exp": NOW // SECOND + 60,
        "jti": "j", "scope": "mcp:read", "grant": "g-1", **changes,
    }  # fmt: skip
    return jwt.encode(header, claims, key, algorithms=[header["alg"]], default_type=None)


def bare(header: dict[str, Any]) -> str:
    parts = (header, {"iss": ISSUER, "sub": "ada", "exp": NOW // SECOND + 60, "grant": "g-1"})
    return ".".join(
        [*(urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts), ""]
    )


def confused() -> str:
    """Signed with our public key, as if it were a shared secret."""
    text = bare({"alg": "HS256", "typ": "at+jwt"}).removesuffix(".")
    mac = hmac.digest(KEY.as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@requirement("ID-7")
@pytest.mark.parametrize(
    "token",
    [
        "",
        "x.y.z",
        bare({"alg": "none", "typ": "at+jwt"}),
        bare({"alg": "ES256", "typ": "at+jwt"}),
        signed({"alg": "ES256", "typ": "JWT"}, KEY),
        signed({"alg": "ES256"}, KEY),
        signed({"alg": "ES256", "typ": "at+jwt"}, KEY, iss="http://other"),
        signed({"alg": "ES256", "typ": "at+jwt"}, KEY, exp="soon"),
        signed({"alg": "ES256", "typ": "at+jwt"}, KEY, grant=7),
        signed({"alg": "ES256", "typ": "at+jwt"}, ECKey.generate_key("P-256", private=True)),
        confused(),
    ],
)  # fmt: skip
def test_what_is_none_of_its_own(token: str) -> None:
    with pytest.raises(Refused) as caught:
        mint().read(token, NOW)
    assert caught.value.code == "invalid_grant"


@requirement("ID-7")
@given(st.text(max_size=80), st.integers(0, 400))
def test_nothing_else_reads(text: str, cut: int) -> None:
    token = mint().issue(grant(), "ada", (), NOW).access_token
    for strange in (text, token[:cut] + text + token[cut:] if text else token[:-1]):
        with pytest.raises(Refused):
            mint().read(strange, NOW)
