"""ID-3: an issuer of access tokens that an operator trusts, and how its tokens are read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from exeat.core.errors import Invalid

SIGNATURES: Final = frozenset(
    {"ES256", "ES384", "ES512", "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
)  # fmt: skip
"""What a token may be signed with at all: asymmetric, so that a published key proves nothing but origin."""
USUAL_SIGNATURES: Final = frozenset({"ES256", "ES384", "EdDSA", "Ed25519", "RS256", "PS256"})
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Introspection:
    """RFC 7662, for opaque tokens.  ``endpoint`` empty: the one that the issuer's metadata names.

    We authenticate as ``client_id`` with the secret in the environment variable ``secret_from``, or by
    ``private_key_jwt`` with the PEM in the file ``key_file``.  An answer is used again for ``cache_max_s``
    seconds at most, so a revocation there takes that long here.
    """

    client_id: str
    secret_from: str = ""
    key_file: str = ""
    endpoint: str = ""
    cache_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """``url``: as in ``iss``, compared exactly.  ``jwks_url`` empty: the one that its metadata names.

    ``audiences``: what the issuer writes into ``aud`` → the resource URI it stands for, where the two
    differ (``api://exeat`` → ``https://gateway.example/mcp``).  ``client_claims``: the first that is
    there names the client.  ``scopes``: the issuer's word → ours; others stay as they are.
    ``workload``: claim → text (``{client}`` is the client), all of which tell a token that a client got for
    itself where ``sub`` is another word than the client's.  ``unscoped``: its tokens carry none of
    ours, so registry and policy alone bound them.
    ``life_max_s``: tokens that have longer to live are refused (ID-6).
    Raises Invalid for algorithms that prove nothing (``none``, HS256 …).
    """

    url: str
    jwks_url: str = ""
    algorithms: frozenset[str] = USUAL_SIGNATURES
    introspection: Introspection | None = None
    audiences: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    client_claims: tuple[str, ...] = ("client_id", "azp", "appid")
    user_claim: str = "sub"
    workload: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    scopes: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    unscoped: bool = False
    life_max_s: int = 86_400

    def __post_init__(self) -> None:
        unfit = sorted(self.algorithms - SIGNATURES)
        if unfit or not self.algorithms:
            raise Invalid(
                f"issuer {self.url!r}: {', '.join(unfit) or 'no algorithm'} cannot be trusted",
                remedy=f"choose among {', '.join(sorted(SIGNATURES))}",
            )
        if "#" in self.url or "?" in self.url:
            raise Invalid(f"issuer {self.url!r} has a query or fragment (RFC 8414, section 2)")

    def resources(self, audience: Iterable[str]) -> frozenset[str]:
        """The resource URIs that ``aud`` stands for."""
        return frozenset(self.audiences.get(name, name) for name in audience)

    def scope(self, words: Iterable[str]) -> frozenset[str]:
        """Our words for the scopes of a token."""
        return frozenset(self.scopes.get(word, word) for word in words)

    def client(self, claims: Mapping[str, object]) -> str | None:
        """The client that a token was issued to, or None if it names none."""
        for name in self.client_claims:
            value = claims.get(name)
            if isinstance(value, str) and value:
                return value
        return None
