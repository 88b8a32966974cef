"""How the gateway shows an upstream who asks (ID-9).  Holds names of secrets, never secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from exeat.core.errors import ExeatError, Invalid


class AuthMode(StrEnum):
    """``NONE`` also stands for static headers: those are their own settings."""

    NONE = "none"
    CLIENT_CREDENTIALS = "client-credentials"
    """The gateway's own access, for all principals (RFC 6749 section 4.4)."""
    AUTHORIZATION_CODE = "authorization-code"
    """Each agent × user has access that the user consented to (OAuth 2.1, MCP authorization)."""
    TOKEN_EXCHANGE = "token-exchange"  # noqa: S105 - no secret
    """A token for the upstream, in exchange for one that the gateway holds (RFC 8693)."""
    ID_JAG = "id-jag"
    """The same through an identity provider's assertion (draft-ietf-oauth-identity-assertion)."""


EXCHANGES = frozenset({AuthMode.TOKEN_EXCHANGE, AuthMode.ID_JAG})
CALLER = "caller"


@dataclass(frozen=True, slots=True)
class UpstreamAuth:
    """``issuer``: the only authorization server that is accepted; a ``client_id`` belongs to it.

    The client shows itself with the secret named ``secret`` in the vault, with that in the gateway's
    environment variable ``secret_from``, or with the private key (PEM) in ``key_file``; with none it is
    public.  Without a ``client_id`` the gateway is known by its metadata document or registers itself.
    ``scopes`` are asked for besides those that the server asks for.

    Exchange: ``subject_from`` names the variable that holds the token given in exchange, of the type
    ``subject_type``, or is CALLER: then each agent × user's own token is exchanged, on behalf of the
    user.  ``idp`` is the identity provider that makes the assertion of ID-JAG, where we are the client
    ``idp_client_id``.
    """

    mode: AuthMode = AuthMode.NONE
    issuer: str = ""
    client_id: str = ""
    secret: str = ""
    secret_from: str = ""
    key_file: str = ""
    scopes: tuple[str, ...] = ()
    subject_from: str = ""
    subject_type: str = ""
    idp: str = ""
    idp_client_id: str = ""

    @property
    def for_caller(self) -> bool:
        """What the caller showed the gateway is exchanged, at the issuer that gave it, and goes nowhere
        else."""
        return self.mode in EXCHANGES and self.subject_from == CALLER

    @property
    def per_user(self) -> bool:
        return self.mode is AuthMode.AUTHORIZATION_CODE or self.for_caller

    @property
    def variables(self) -> tuple[str, ...]:
        """Of the gateway's environment."""
        named = (self.secret_from, "" if self.for_caller else self.subject_from)
        return tuple(filter(None, named))

    def pairs(self) -> dict[str, str]:
        """As it is declared and kept: names and texts, nothing for what is not set."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found |= {"mode": self.mode.value, "scopes": " ".join(self.scopes)}
        return (
            {name: value for name, value in found.items() if value} if self.mode != "none" else {}
        )


NO_AUTH = UpstreamAuth()


def read_auth(pairs: Mapping[str, str]) -> UpstreamAuth:
    """What ``UpstreamAuth.pairs`` wrote, or a person.  Raises Invalid."""
    if not pairs:
        return NO_AUTH
    known = {field.name for field in fields(UpstreamAuth)}
    for name in pairs:
        if name not in known:
            raise Invalid(f"auth has no {name!r}.", remedy=f"Known: {', '.join(sorted(known))}.")
    modes = [mode.value for mode in AuthMode]
    if pairs.get("mode", "") not in modes:
        raise Invalid(
            f"auth mode {pairs.get('mode', '')!r} is not known.",
            remedy=f"Use one of: {', '.join(modes)}.",
        )
    values = {name: value for name, value in pairs.items() if name not in ("mode", "scopes")}
    return UpstreamAuth(
        AuthMode(pairs["mode"]), scopes=tuple(pairs.get("scopes", "").split()), **values
    )


@dataclass(frozen=True, slots=True)
class Credential:
    """An Authorization header's value; empty: none is sent."""

    value: str

    def __repr__(self) -> str:
        return "Credential(…)"


NO_CREDENTIAL = Credential("")


@dataclass(frozen=True, slots=True)
class Refused:
    """The upstream's answer that shows that a request was not carried out for want of a credential:
    401, or 403 with ``insufficient_scope``.  ``challenge``: its WWW-Authenticate."""

    credential: Credential
    status: int
    challenge: str


class CredentialFailed(ExeatError):
    """The gateway has no credential for an upstream, and no person can help by consenting."""

    code, http_status, rpc_code = "upstream_credential", 502, -31505


class ConsentNeeded(ExeatError):
    """A person must give access first, at ``url``, a page of this gateway (ID-9)."""

    code, http_status, rpc_code = "consent_needed", 403, -31506

    def __init__(self, server: str, url: str, id: str) -> None:
        self.server, self.url, self.id = server, url, id
        super().__init__(
            f"server {server} needs your consent before it can be used",
            remedy=f"open {url} in a browser, then try again",
        )
