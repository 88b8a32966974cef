"""What an operator may set of the edge.  Sizes in bytes, times in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from exeat.core import limits

_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class GatewaySettings:
    """``allowed_hosts``: Host values served beside the local ones, e.g. ``gw.example.com`` or
    ``gw.example.com:8443``.  ``allowed_origins``: web origins served beside local ones.
    ``public_url``: scheme and authority under which clients reach the gateway, if not the ones that
    they name in Host.  ``tls``: the edge itself speaks it.  ``authorization_servers``: issuers whose
    tokens open an endpoint.  ``client_certificates``: clients show one.
    ``hold_wait_s``: how long a call that waits for people is kept open.  ``holds_url``: where it is shown
    how it stands, without the hold's id; empty: nowhere."""

    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()
    head_time_max_s: float = limits.HEAD_TIME_MAX_S
    body_time_max_s: float = limits.BODY_TIME_MAX_S
    idle_time_max_s: float = limits.IDLE_TIME_MAX_S
    request_body_max_bytes: int = limits.REQUEST_BODY_MAX_BYTES
    connections_max: int = 12_000
    upstream_answer_max_s: float = limits.UPSTREAM_ANSWER_MAX_S
    public_url: str = ""
    tls: bool = False
    authorization_servers: tuple[str, ...] = ()
    client_certificates: bool = False
    hold_wait_s: float = limits.HOLD_WAIT_S
    holds_url: str = ""
    _hosts_seen: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def base(self, fields: Mapping[str, str]) -> str:
        """Where the client finds us: what goes before the path of a resource (RFC 8707, RFC 9728).
        The Host was judged before."""
        if self.public_url:
            return self.public_url
        scheme, port = ("https", ":443") if self.tls else ("http", ":80")
        return f"{scheme}://{fields.get('host', '').lower().removesuffix(port)}"

    def refuses(self, fields: Mapping[str, str]) -> str:
        """DNS rebinding protection (2025-11-25, Transports, Security Warning); empty if served."""
        host = fields.get("host", "")
        if host not in self._hosts_seen:
            verdict = "" if self._serves_host(host) else "this Host is not served"
            if len(self._hosts_seen) > 64 or verdict:
                return verdict
            self._hosts_seen[host] = verdict
        origin = fields.get("origin")
        if origin is None:
            return ""
        return "" if self._serves_origin(origin) else "this Origin is not served"

    def _serves_host(self, host: str) -> bool:
        if host in self.allowed_hosts:
            return True
        try:
            name = urlsplit(f"//{host}").hostname
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        return "@" not in host and (name in _LOCAL or name in self.allowed_hosts)

    def _serves_origin(self, origin: str) -> bool:
        if origin in self.allowed_origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.hostname in _LOCAL
