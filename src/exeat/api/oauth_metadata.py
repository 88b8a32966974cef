"""What the authorization server says of itself (RFC 8414), and its keys."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exeat.identity.authorization.model.client import (
    CODE,
    CREDENTIALS,
    EXCHANGE,
    JWT_BEARER,
    REFRESH,
)
from exeat.identity.authorization.rules.scopes import SCOPES
from exeat.identity.authorization.service.tokens import Mint
from exeat.identity.dpop import ALGORITHMS
from exeat.identity.jwt import FAMILY

ID_JAG: Final = "urn:ietf:params:oauth:grant-profile:id-jag"
METHODS: Final = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]


def metadata(issuer: str, registration: bool) -> Mapping[str, Any]:
    """``registration``: whether clients may register themselves now (RFC 7591)."""
    said: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth/authorize",
        "token_endpoint": f"{issuer}/oauth/token",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "jwks_uri": f"{issuer}/oauth/jwks",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [CODE, REFRESH, CREDENTIALS, EXCHANGE, JWT_BEARER],
        "authorization_grant_profiles_supported": [ID_JAG],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": METHODS,
        "token_endpoint_auth_signing_alg_values_supported": sorted(FAMILY),
        "revocation_endpoint_auth_methods_supported": METHODS,
        "scopes_supported": list(SCOPES),
        "prompt_values_supported": ["none", "consent"],
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
        "client_id_metadata_document_supported": True,
        "authorization_response_iss_parameter_supported": True,
    }
    if registration:
        said["registration_endpoint"] = f"{issuer}/oauth/register"
    return said


def routes(issuer: str, mint: Mint, registration: Callable[[], Any]) -> list[Route]:
    """``registration``: an awaitable that says whether the window is open."""

    async def say(_request: Request) -> Response:
        return JSONResponse(dict(metadata(issuer, registration=await registration())))

    async def jwks(_request: Request) -> Response:
        return JSONResponse(mint.jwks(), headers={"Cache-Control": "max-age=300"})

    return [
        Route("/.well-known/oauth-authorization-server", say, methods=["GET"]),
        Route("/.well-known/openid-configuration", say, methods=["GET"]),
        Route("/oauth/jwks", jwks, methods=["GET"]),
    ]
