"""A client of an authorization server, as it shows who it is (RFC 6749 section 2.3, RFC 7523)."""

from dataclasses import dataclass, field
from enum import StrEnum

from exeat.core.errors import Invalid


class ClientAuth(StrEnum):
    """Token endpoint authentication methods (RFC 7591 section 2, IANA registry)."""

    NONE = "none"
    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    PRIVATE_KEY_JWT = "private_key_jwt"


@dataclass(frozen=True, slots=True)
class Client:
    """``issuer``: the authorization server that knows this client; it is shown to no other.

    ``secret`` for BASIC and POST; ``key`` (PEM, PKCS 8) for PRIVATE_KEY_JWT, signing with
    ``algorithm``, or with the one its type suggests if that is empty.
    """

    issuer: str
    client_id: str
    auth: ClientAuth = ClientAuth.NONE
    secret: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    algorithm: str = ""

    def __post_init__(self) -> None:
        if self.auth in (ClientAuth.BASIC, ClientAuth.POST) and not self.secret:
            raise Invalid(f"client {self.client_id!r} has no secret for {self.auth}")
        if self.auth is ClientAuth.PRIVATE_KEY_JWT and not self.key:
            raise Invalid(f"client {self.client_id!r} has no key for {self.auth}")
