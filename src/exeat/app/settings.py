"""Settings: defaults, then ``exeat.toml`` in the home, then EXEAT_* environment variables."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from exeat.app.issuer_settings import IssuerSettings
from exeat.core import limits
from exeat.core.errors import Invalid
from exeat.gateway.permits import PERMIT_LIFE_S
from exeat.gateway.settings import GatewaySettings
from exeat.permit.token import LIFE_MAX_S

_URL = r"^https?://[^\s]+$"
_NAMED = r"^(env:[A-Za-z_][A-Za-z0-9_]*|[a-z0-9][a-z0-9._-]{0,62})$"
_PUBLIC = r"^https?://[A-Za-z0-9.\[\]:-]+$"


class Settings(BaseSettings):
    """Times in seconds, sizes in bytes.  ``instance`` names this gateway's log and decision ids."""

    model_config = SettingsConfigDict(env_prefix="EXEAT_", extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8717, ge=0, le=65535)
    control_host: str = "127.0.0.1"
    control_port: int = Field(default=8718, ge=0, le=65535)
    public_url: str | None = Field(default=None, pattern=_PUBLIC)
    issuer_url: str | None = Field(default=None, pattern=_PUBLIC)
    access_token_life_s: int = Field(default=900, ge=60, le=3600)
    issuers: tuple[IssuerSettings, ...] = ()
    sign_in_at_issuers: bool = False
    instance: str = Field(default="gw1", pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    workers: int = Field(default=1, ge=1, le=64)
    database_url: str | None = None
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()
    internal_hosts: frozenset[str] = frozenset()
    internal_ca: Path | None = None
    client_document_url: str | None = Field(default=None, pattern=r"^https://[^/]+/.+$")
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    request_body_max_bytes: int = Field(default=limits.REQUEST_BODY_MAX_BYTES, ge=1024)
    head_time_max_s: float = Field(default=limits.HEAD_TIME_MAX_S, gt=0)
    body_time_max_s: float = Field(default=limits.BODY_TIME_MAX_S, gt=0)
    idle_time_max_s: float = Field(default=limits.IDLE_TIME_MAX_S, gt=0)
    connections_max: int = Field(default=12_000, ge=1)
    upstream_answer_max_s: float = Field(default=limits.UPSTREAM_ANSWER_MAX_S, gt=0)
    hold_wait_s: float = Field(default=limits.HOLD_WAIT_S, ge=0, le=3600)
    state_poll_s: float = Field(default=limits.SNAPSHOT_POLL_S, gt=0, le=1)
    state_age_max_s: float | None = Field(default=None, gt=0)
    heartbeat_s: float = Field(default=10.0, gt=0)
    root_every_s: float = Field(default=60.0, gt=0)
    policy_approvals: int | None = Field(default=None, ge=1, le=2)
    permit_life_s: int = Field(default=PERMIT_LIFE_S, ge=1, le=LIFE_MAX_S)
    vault_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    vault_key_command: tuple[str, ...] = ()
    approval_webhook_url: str | None = Field(default=None, pattern=_URL)
    approval_webhook_secret: str | None = Field(default=None, pattern=_NAMED)
    approval_notifier_url: str | None = Field(default=None, pattern=_URL)

    @property
    def staleness_max_s(self) -> float:
        """APP-10: the oldest confirmation of the state that a call may leave on."""
        if self.state_age_max_s is not None:
            return self.state_age_max_s
        shared = self.database_url is not None
        return limits.SNAPSHOT_AGE_SHARED_MAX_S if shared else limits.SNAPSHOT_AGE_MAX_S

    @property
    def instances(self) -> tuple[str, ...]:
        """Those that write a log: the instance itself, or its workers (EVD-1)."""
        if self.workers == 1:
            return (self.instance,)
        return tuple(f"{self.instance}-{number}" for number in range(1, self.workers + 1))

    @property
    def issuer(self) -> str:
        """The URL of our own authorization server, which is the control listener's (ID-7)."""
        if self.issuer_url is not None:
            return self.issuer_url
        scheme = "https" if self.tls_certificate is not None else "http"
        return f"{scheme}://localhost:{self.control_port}"  # passkeys need a name, not an address

    @property
    def authorization_servers(self) -> tuple[str, ...]:
        """Where clients are told to get tokens (RFC 9728); most ask the first one.  Workloads' trust
        domains are no place to sign in."""
        others = tuple(each.url for each in self.issuers if not each.url.startswith("spiffe:"))
        return others if self.sign_in_at_issuers and others else (self.issuer, *others)

    def gateway(self) -> GatewaySettings:
        return GatewaySettings(
            public_url=self.public_url or "",
            tls=self.tls_certificate is not None,
            authorization_servers=self.authorization_servers,
            client_certificates=self.tls_client_ca is not None,
            hold_wait_s=self.hold_wait_s,
            holds_url=f"{self.issuer}/holds" if self.control_port else "",
            allowed_hosts=self.allowed_hosts,
            allowed_origins=self.allowed_origins,
            head_time_max_s=self.head_time_max_s,
            body_time_max_s=self.body_time_max_s,
            idle_time_max_s=self.idle_time_max_s,
            request_body_max_bytes=self.request_body_max_bytes,
            connections_max=self.connections_max,
            upstream_answer_max_s=self.upstream_answer_max_s,
        )

    def digest(self) -> str:
        """What evidence names as the configuration in force; the database's address is left out,
        and the notifier's, which is a secret of the chat."""
        shown = self.model_dump(mode="json", exclude={"database_url", "approval_notifier_url"})
        for key in ("allowed_hosts", "allowed_origins", "internal_hosts"):
            shown[key] = sorted(shown[key])
        return hashlib.sha256(msgspec.json.encode(shown, order="sorted")).hexdigest()


def load_settings(home: Path, **given: Any) -> Settings:
    """``given``: what the command line says; it wins.  Raises Invalid naming file and setting."""
    path = home / "exeat.toml"
    from_file: dict[str, Any] = {}
    if path.is_file():
        try:
            from_file = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"{path}: {error}", remedy="correct the file and start again") from None
    try:
        from_environment = Settings().model_dump(exclude_unset=True)
        chosen = {key: value for key, value in given.items() if value is not None}
        return Settings(**{**from_file, **from_environment, **chosen})
    except SettingsError as error:
        raise Invalid(
            f"an environment variable cannot be read: {error}",
            remedy="write sets as JSON, for example EXEAT_ALLOWED_HOSTS='[\"gateway.example\"]'",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        variable = f"EXEAT_{str(first['loc'][0]).upper()}" if first["loc"] else "EXEAT_…"
        raise Invalid(
            f"setting {name!r}: {'there is no such setting' if unknown else first['msg']}",
            remedy=f"correct it in {path} or in the environment variable {variable}",
        ) from None
