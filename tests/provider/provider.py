"""The certified OpenID provider of npm (oidc-provider) as a process, installed once and pinned by hash."""

import json
import os
import shutil
import socket
import sys
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from gateways import Server
from joserfc.jwk import ECKey

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
sys.path.insert(1, str(ROOT / "tests" / "interop"))

from install import NotInstalled, npm_install  # noqa: E402

__all__ = ["NotInstalled", "Provider", "installed"]
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"
SCOPE: Final = "mcp:read mcp:write mcp:delete mcp:execute mcp:send mcp:pay"
CALLBACK: Final = "http://127.0.0.1/callback"


def installed() -> tuple[Path, Path]:
    """Node, and the folder of the provider.  Raises NotInstalled."""
    root = ROOT / ".tools" / "provider"
    node = npm_install(root, HERE)
    shutil.copy(HERE / "provider.mjs", root)
    return node, root


def signing_key(kid: str) -> dict[str, Any]:
    made = ECKey.generate_key("P-256", private=True).as_dict(private=True)
    return {**made, "kid": kid, "use": "sig", "alg": "ES256"}


class Provider:
    """One provider on one port; ``restart`` gives it other keys."""

    def __init__(self) -> None:
        self._node, self._root = installed()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.server: Server | None = None
        self.restart(signing_key("one"))

    def restart(self, *keys: dict[str, Any]) -> None:
        self.stop()
        env = {**os.environ, "JWKS": json.dumps({"keys": keys})}
        argv = [str(self._node), str(self._root / "provider.mjs"), str(self.port)]
        self.server = Server(argv, "ready", env)

    def stop(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server = None

    def post(self, path: str, client: str, form: dict[str, str], **headers: str) -> dict[str, Any]:
        answer = httpx2.post(
            f"{self.issuer}/{path}", data=form, headers=headers,
            auth=(client, f"{client}-secret-of-the-tests"),
        )  # fmt: skip
        return dict(answer.json()) if answer.content else {}

    def token(self, client: str, resource: str, scope: str = SCOPE, **headers: str) -> str:
        """Client credentials with ``resource`` (RFC 8707)."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": resource}
        return str(self.post("token", client, form, **headers)["access_token"])

    def exchange(self, client: str, subject_token: str, resource: str) -> str:
        """RFC 8693: the client acts with that token."""
        form = {
            "grant_type": EXCHANGE, "subject_token": subject_token, "resource": resource,
            "subject_token_type": ACCESS_TOKEN, "scope": SCOPE,
        }  # fmt: skip
        return str(self.post("token", client, form)["access_token"])

    def vouch(self, client: str, subject_token: str, resource: str, to: str, as_: str) -> str:
        """An ID-JAG for the authorization server ``to``, where the client is known as ``as_``."""
        form = {
            "grant_type": EXCHANGE, "subject_token": subject_token, "resource": resource,
            "subject_token_type": ACCESS_TOKEN, "requested_token_type": ID_JAG, "audience": to,
            "scope": SCOPE, "known_there_as": as_,
        }  # fmt: skip
        return str(self.post("token", client, form)["access_token"])

    def sent_to(self, url: str, user: str) -> str:
        """Where the browser of ``user`` is sent after its login and consent at ``url``."""
        forms = iter([{"prompt": "login", "login": user, "password": "x"}, {"prompt": "consent"}])
        with httpx2.Client(base_url=self.issuer, timeout=20) as browser:
            answer = browser.get(url)
            while True:
                assert "location" in answer.headers, answer.text[-1500:]
                where = urljoin(str(answer.url), answer.headers["location"])
                if not where.startswith(f"{self.issuer}/"):
                    return where
                if "/interaction/" in where:
                    answer = browser.post(where, data=next(forms))
                else:
                    answer = browser.get(where)

    def sign_in(self, user: str, resource: str, client: str = "desktop") -> dict[str, Any]:
        """Code + PKCE through the provider's own login and consent pages, as a browser would."""
        verifier = "v" * 64
        digest = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        with httpx2.Client(base_url=self.issuer) as browser:
            answer = browser.get(
                "/auth",
                params={
                    "client_id": client, "response_type": "code", "redirect_uri": CALLBACK,
                    "scope": SCOPE, "resource": resource, "state": "s",
                    "code_challenge": digest, "code_challenge_method": "S256",
                },
            )  # fmt: skip
            forms = iter(
                [{"prompt": "login", "login": user, "password": "x"}, {"prompt": "consent"}]
            )
            while not (where := answer.headers["location"]).startswith(CALLBACK):
                if "/interaction/" in where:
                    answer = browser.post(where, data=next(forms))
                else:
                    answer = browser.get(where)
            found = parse_qs(urlsplit(where).query)
            assert found["iss"] == [self.issuer]  # RFC 9207
            token = browser.post(
                "/token",
                data={
                    "grant_type": "authorization_code", "code": found["code"][0],
                    "redirect_uri": CALLBACK, "client_id": client,
                    "code_verifier": verifier, "resource": resource,
                },
            )  # fmt: skip
            return dict(token.json())
