"""An upstream MCP server as registered (REG-1).  It holds names of secrets, never secrets."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from exeat.core.errors import Conflict, Invalid
from exeat.core.event import Event
from exeat.core.facts import ServerSpec, Transport, secret_of
from exeat.core.ids import PersonId, ServerId
from exeat.registry.model.act import Act
from exeat.registry.model.names import server_name
from exeat.registry.model.upstream_auth import check_auth

TRUST_MAX: Final = 100
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECRET_NAME: Final = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE_KEY)", re.I
)
_SECRET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TEMPLATE: Final = re.compile(r"([A-Za-z][A-Za-z-]{0,19} )?\{[^{}]*\}|[^{}]*")
"""An authentication scheme and no other text, so that no part of a secret can stand in the open."""
_RESERVED: Final = frozenset(
    {
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "accept",
        "exeat-permit",
    }
)
_AUDIENCE: Final = re.compile(r"[!-~]{1,256}")
_METHOD: Final = re.compile(r"[A-Za-z0-9_$][A-Za-z0-9_$./-]{0,127}")


@dataclass(frozen=True, slots=True)
class Server:
    """``trust``: 0 (unknown) to 100.  ``extra_methods``: methods beyond the known ones (GW-7)."""

    id: ServerId
    spec: ServerSpec
    owner: PersonId
    trust: int
    active: bool
    extra_methods: frozenset[str]
    revision: int

    @classmethod
    def add(
        cls, spec: ServerSpec, owner: PersonId, trust: int, extra: Iterable[str], act: Act
    ) -> tuple["Server", Event]:
        check_spec(spec)
        server = cls(spec.id, spec, owner, _trust(trust), True, _methods(extra), 1)
        return server, act.event("server.added", server.subject, None, server.as_json())

    @property
    def subject(self) -> str:
        return f"server:{self.id}"

    def change(
        self, spec: ServerSpec, owner: PersonId, trust: int, extra: Iterable[str], act: Act
    ) -> tuple["Server", Event]:
        check_spec(spec)
        new = replace(
            self,
            spec=spec,
            owner=owner,
            trust=_trust(trust),
            extra_methods=_methods(extra),
            revision=self.revision + 1,
        )
        if replace(new, revision=self.revision) == self:
            raise Conflict(f"Nothing of server {self.id} changes.")
        return new, act.event("server.changed", self.subject, self.as_json(), new.as_json())

    def suspend(self, act: Act) -> tuple["Server", Event]:
        if not self.active:
            raise Conflict(f"Server {self.id} is already suspended.")
        new = replace(self, active=False, revision=self.revision + 1)
        return new, act.event("server.suspended", self.subject, self.as_json(), new.as_json())

    def resume(self, act: Act) -> tuple["Server", Event]:
        if self.active:
            raise Conflict(f"Server {self.id} is not suspended.")
        new = replace(self, active=True, revision=self.revision + 1)
        return new, act.event("server.resumed", self.subject, self.as_json(), new.as_json())

    def as_json(self) -> dict[str, Any]:
        s = self.spec
        where: dict[str, Any]
        if s.transport is Transport.HTTP:
            where = {
                "url": s.url,
                "headers_from": dict(sorted(s.headers_from.items())),
                "headers_secret": dict(sorted(s.headers_secret.items())),
                "auth": s.auth.pairs(),
            }
        else:
            where = {
                "command": list(s.command),
                "env": dict(sorted(s.env.items())),
                "env_from": list(s.env_from),
                "env_secret": dict(sorted(s.env_secret.items())),
                "cwd": s.cwd,
                "run_as": s.run_as,
                "shared": s.shared,
            }
        return {
            "id": self.id,
            "transport": s.transport.value,
            **where,
            "permit": s.permit,
            "mode": s.mode.value,
            "owner": self.owner,
            "trust": self.trust,
            "active": self.active,
            "extra_methods": sorted(self.extra_methods),
            "revision": self.revision,
        }


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is never kept with a plain value."""
    return _SECRET_NAME.search(name) is not None


def check_spec(spec: ServerSpec) -> None:
    """Raises Invalid if the server could not be reached so, or a secret stands in the open."""
    server_name(spec.id)
    if spec.transport is Transport.HTTP:
        _check_http(spec)
    else:
        _check_stdio(spec)
    _check_secrets(spec)
    if spec.permit and not _AUDIENCE.fullmatch(spec.permit):
        raise Invalid(
            f"{spec.permit!r} cannot be the audience of a permit.",
            remedy="Use up to 256 printable ASCII characters without a space: the server's address.",
        )
    check_auth(spec)
    own = spec.auth.variables
    named = (*spec.headers_from.values(), *spec.env_from, *spec.env, *spec.env_secret)
    for name in (*named, *filter(None, own)):
        if not _ENV_NAME.fullmatch(name):
            raise Invalid(f"{name!r} is not the name of an environment variable.")


def _check_http(spec: ServerSpec) -> None:
    try:
        parts = urlsplit(spec.url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.fragment
        userinfo = "@" in parts.netloc
        _ = parts.port
    except ValueError:
        fits, userinfo = False, False
    if not fits or any(c.isspace() or ord(c) < 32 for c in spec.url):
        raise Invalid(
            f"{spec.url!r} is not the address of an MCP server.",
            remedy="Write it as https://host/path.",
        )
    if userinfo:
        raise Invalid(
            f"The address of server {spec.id} holds a user name or password.",
            remedy="Leave it out; `exeat secret set NAME`, then "
            "--header-secret 'Authorization=Bearer {NAME}'.",
        )
    for header in (*spec.headers_from, *spec.headers_secret):
        if not _HEADER_NAME.fullmatch(header):
            raise Invalid(f"{header!r} is not the name of an HTTP header.")
    if spec.command or spec.env or spec.env_from or spec.env_secret:
        raise Invalid(f"Server {spec.id} has both an address and a command.", remedy="Give one.")


def _check_stdio(spec: ServerSpec) -> None:
    if not spec.command or not spec.command[0] or any("\x00" in part for part in spec.command):
        raise Invalid(
            f"Server {spec.id} has neither an address nor a command.",
            remedy="Give --url URL, or the command after `--`.",
        )
    if spec.url or spec.headers_from or spec.headers_secret:
        raise Invalid(f"Server {spec.id} has both an address and a command.", remedy="Give one.")
    for name in spec.env:
        if is_secret_name(name):
            raise Invalid(
                f"The variable {name} of server {spec.id} looks like a secret in plain text.",
                remedy=f"Put it into the vault, then --env-secret {name}=NAME; or hand it down from "
                f"the gateway's own environment: --env-from {name}.",
            )


def _check_secrets(spec: ServerSpec) -> None:
    for header, template in spec.headers_secret.items():
        if not _TEMPLATE.fullmatch(template) or not _SECRET.fullmatch(secret_of(template)[1]):
            raise Invalid(  # what stands there may be a secret, so it is not repeated
                f"The header {header} of server {spec.id} names no secret.",
                remedy="Write NAME, or an authentication scheme and it: 'Bearer {NAME}'; "
                "its value goes into `exeat secret set NAME`.",
            )
    for variable, name in spec.env_secret.items():
        if not _SECRET.fullmatch(name):
            raise Invalid(
                f"The variable {variable} of server {spec.id} names no secret.",
                remedy="Write VARIABLE=NAME; its value goes into `exeat secret set NAME`.",
            )
    once = [name.lower() for name in (*spec.headers_from, *spec.headers_secret)]
    for name in once:
        if once.count(name) > 1:
            raise Invalid(f"Server {spec.id} has the header {name} twice.", remedy="Give one.")
        if name in _RESERVED or name.startswith("mcp-"):
            raise Invalid(f"The header {name} belongs to the protocol.", remedy="Choose another.")
    for name in spec.env_secret:
        if name in spec.env or name in spec.env_from:
            raise Invalid(f"Server {spec.id} has the variable {name} twice.", remedy="Give one.")


def _trust(trust: int) -> int:
    if not 0 <= trust <= TRUST_MAX:
        raise Invalid(f"Trust {trust} is not between 0 and {TRUST_MAX}.")
    return trust


def _methods(extra: Iterable[str]) -> frozenset[str]:
    methods = frozenset(extra)
    for method in methods:
        if not _METHOD.fullmatch(method):
            raise Invalid(f"{method!r} is not the name of an MCP method.")
    return methods
