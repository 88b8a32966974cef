"""Trusted issuers as ``exeat.toml`` writes them (ID-3): ``[[issuers]]``, one table for each."""

from pydantic import BaseModel, ConfigDict, Field

from exeat.identity.model.issuer import USUAL_SIGNATURES, Introspection, TrustedIssuer

URL: str = r"^(https?|spiffe)://[^\s?#@]+$"


class IntrospectionSettings(BaseModel):
    """RFC 7662, for opaque tokens.  ``secret_from``: name of the environment variable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: str
    secret_from: str = ""
    key_file: str = ""
    endpoint: str = ""
    cache_max_s: float = Field(default=30.0, ge=0, le=300)

    def value(self) -> Introspection:
        return Introspection(
            self.client_id, self.secret_from, self.key_file, self.endpoint, self.cache_max_s
        )


class IssuerSettings(BaseModel):
    """As ``TrustedIssuer`` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=URL)
    jwks_url: str = ""
    algorithms: tuple[str, ...] = tuple(sorted(USUAL_SIGNATURES))
    introspection: IntrospectionSettings | None = None
    audiences: dict[str, str] = Field(default_factory=dict)
    client_claims: tuple[str, ...] = ("client_id", "azp", "appid")
    user_claim: str = "sub"
    workload: dict[str, str] = Field(default_factory=dict)
    scopes: dict[str, str] = Field(default_factory=dict)
    unscoped: bool = False
    life_max_s: int = Field(default=86_400, ge=60, le=30 * 86_400)

    def value(self) -> TrustedIssuer:
        """Raises Invalid."""
        return TrustedIssuer(
            url=self.url,
            jwks_url=self.jwks_url,
            algorithms=frozenset(self.algorithms),
            introspection=self.introspection.value() if self.introspection is not None else None,
            audiences=self.audiences,
            client_claims=self.client_claims,
            user_claim=self.user_claim,
            workload=self.workload,
            scopes=self.scopes,
            unscoped=self.unscoped,
            life_max_s=self.life_max_s,
        )
