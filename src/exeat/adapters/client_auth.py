"""How we show an authorization server which client we are (RFC 6749 section 2.3.1, RFC 7523)."""

import base64
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_plus

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from exeat.core.errors import Invalid
from exeat.identity.model.client import Client, ClientAuth

ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFE_S: Final = 60
_BY_CURVE: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
PrivateKey = ECKey | OKPKey | RSAKey


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request to the authorization server carries besides its own parameters."""

    form: dict[str, str]
    headers: dict[str, str]


def show(client: Client, *, now_s: int, token_id: str) -> Shown:
    """``token_id``: random, never used before.  Raises Invalid if the key cannot sign."""
    if client.auth is ClientAuth.BASIC:
        pair = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"
        return Shown({}, {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"})
    if client.auth is ClientAuth.POST:
        return Shown({"client_id": client.client_id, "client_secret": client.secret}, {})
    if client.auth is ClientAuth.PRIVATE_KEY_JWT:
        claims = {
            "iss": client.client_id,
            "sub": client.client_id,
            "aud": client.issuer,
            "iat": now_s,
            "exp": now_s + ASSERTION_LIFE_S,
            "jti": token_id,
        }
        assertion = sign(client, claims, kind="JWT")
        form = {"client_assertion_type": ASSERTION, "client_assertion": assertion}
        return Shown({"client_id": client.client_id, **form}, {})
    return Shown({"client_id": client.client_id}, {})


def sign(client: Client, claims: dict[str, object], *, kind: str) -> str:
    """A JWT by the client's own key.  Raises Invalid."""
    try:
        key, usual = private_key(client.key)
        algorithm = client.algorithm or usual
        header = {"alg": algorithm, "typ": kind, "kid": key.thumbprint()}
        return jwt.encode(header, claims, key, algorithms=[algorithm])
    except (JoseError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(
            f"the key of client {client.client_id!r} cannot sign ({type(error).__name__})",
            remedy="use a private key in PEM (PKCS 8): P-256, Ed25519 or RSA of 2048 bits or more",
        ) from None


def private_key(pem: str) -> tuple[PrivateKey, str]:
    """The key and the signature algorithm that its type suggests.  Raises ValueError."""
    raw = load_pem_private_key(pem.encode(), None)
    if isinstance(raw, ec.EllipticCurvePrivateKey):
        curve = ECKey.import_key(pem)
        return curve, _BY_CURVE[curve.curve_name]
    if isinstance(raw, ed25519.Ed25519PrivateKey):
        return OKPKey.import_key(pem), "EdDSA"
    if isinstance(raw, rsa.RSAPrivateKey):
        return RSAKey.import_key(pem), "RS256"
    raise ValueError("no key that can sign")
