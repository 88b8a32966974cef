"""A protected MCP resource and its authorization server, on real local sockets, as a test wants them."""

import itertools
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from local_site import Answer, Asked, LocalSite

from exeat.identity.upstream.rules import challenge_of


@dataclass
class LocalAs:
    """Gives codes and tokens, and keeps what it was asked.  ``metadata`` is added to its own."""

    site: LocalSite
    resource: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refreshes: dict[str, dict[str, str]] = field(default_factory=dict)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: list[dict[str, str]] = field(default_factory=list)
    """Token requests, with how the client showed itself as ``authorization``."""
    answer: dict[str, Any] = field(default_factory=dict)
    """Added to each token answer."""
    scopes: list[str] | None = None
    client_secret: str = "s3cret"
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.resource = self.resource or f"{self.site.url}/mcp"
        self.site.routes |= {
            "/.well-known/oauth-protected-resource/mcp": lambda _: Answer(self.about_resource()),
            "/.well-known/oauth-authorization-server": lambda _: Answer(self.about()),
            "/register": self.register,
            "/token": self.token,
        }

    @property
    def issuer(self) -> str:
        return self.site.url

    def about_resource(self) -> dict[str, Any]:
        found: dict[str, Any] = {"resource": self.resource, "authorization_servers": [self.issuer]}
        return found if self.scopes is None else {**found, "scopes_supported": self.scopes}

    def about(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.site.url}/authorize",
            "token_endpoint": f"{self.site.url}/token",
            "registration_endpoint": f"{self.site.url}/register",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }

    def register(self, asked: Asked) -> Answer:
        client = f"client-{next(self.numbers)}"
        self.clients[client] = asked.json
        made = {"client_id": client, "client_secret": self.client_secret, **asked.json}
        return Answer({"token_endpoint_auth_method": "client_secret_basic", **made}, 201)

    def authorize(self, url: str) -> dict[str, str]:
        """What the browser brings back once the person said yes at ``url``."""
        asked = dict(parse_qsl(urlsplit(url).query))
        code = f"code-{next(self.numbers)}"
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.issuer}

    def token(self, asked: Asked) -> Answer:
        form = asked.form
        self.tokens.append({**form, "authorization": asked.headers.get("authorization", "")})
        if form["grant_type"] == "authorization_code":
            begun = self.codes.pop(form["code"], None)
            if begun is None or challenge_of(form["code_verifier"]) != begun["code_challenge"]:
                return Answer({"error": "invalid_grant"}, 400)
            given = begun
        elif form["grant_type"] == "refresh_token":
            found = self.refreshes.pop(form["refresh_token"], None)
            if found is None:
                return Answer({"error": "invalid_grant"}, 400)
            given = found
        else:
            given = form
        number = next(self.numbers)
        self.refreshes[f"refresh-{number}"] = given
        made = {"access_token": f"access-{number}", "token_type": "Bearer", "expires_in": 3600}
        return Answer({**made, "refresh_token": f"refresh-{number}", **self.answer})
