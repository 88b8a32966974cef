"""The control listener's own address, and what a browser may be sent to on it."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from exeat.core.errors import Invalid

_OWN_PATH: Final = re.compile(
    r"/(?:passkeys)?|/oauth/authorize\?[\x21-\x5b\x5d-\x7e]*|/upstreams/consent/[A-Za-z0-9._-]+"
    r"|/holds/[a-z0-9-]{1,64}(?:/(?:approve|deny))?"
)
NEXT_MAX_CHARS: Final = 8192
_ADDRESS: Final = re.compile(r"https?://(?:\[[0-9a-f:]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Site:
    """``issuer``: scheme, host and port as everybody writes them, without a slash at the end.
    ``hosts``: the Host headers that may come."""

    issuer: str
    hosts: frozenset[str]

    @property
    def secure(self) -> bool:
        return self.issuer.startswith("https:")

    @property
    def host(self) -> str:
        return urlsplit(self.issuer).netloc

    @property
    def port(self) -> int | None:
        return urlsplit(self.issuer).port

    @property
    def name(self) -> str:
        """The WebAuthn relying party: a host name without port."""
        return urlsplit(self.issuer).hostname or ""


def site_at(issuer: str, port: int, more_hosts: frozenset[str]) -> Site:
    """Raises Invalid for an issuer that browsers and clients would write in another way."""
    if _ADDRESS.fullmatch(issuer) is None:
        raise Invalid(
            f"setting 'issuer_url': {issuer!r} is not an address like https://exeat.example:8443",
            remedy="write scheme, host in lower case and port, without path and slash at the end",
        )
    here = {f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]")}
    return Site(issuer, frozenset(here | {urlsplit(issuer).netloc} | more_hosts))


def own_path(wanted: str) -> str:
    """``wanted`` if it is one of our own pages that somebody may be sent to after signing in, else
    the first page.  Anything that a browser could take for another host is none (open redirect)."""
    if len(wanted) <= NEXT_MAX_CHARS and _OWN_PATH.fullmatch(wanted):
        return wanted
    return "/"
