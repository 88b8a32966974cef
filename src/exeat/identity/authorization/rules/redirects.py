"""Redirect URIs: which may be registered, and when the one asked for is a registered one.

One strict grammar instead of a URL parser: what two parsers could read differently (user info,
backslashes, control characters, odd hosts and ports) does not match it at all.
"""

import re
from dataclasses import dataclass
from typing import Final

REDIRECT_MAX_CHARS: Final = 2000
LOOPBACK: Final = frozenset({"127.0.0.1", "[::1]", "localhost"})
_URI: Final = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[::1\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<rest>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?)"
)


@dataclass(frozen=True, slots=True)
class Redirect:
    scheme: str
    host: str
    port: str
    rest: str

    @property
    def loopback(self) -> bool:
        return self.host in LOOPBACK

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}" + (f":{self.port}" if self.port else "")


def read_redirect(uri: str) -> Redirect | None:
    """None if it may not be registered: only https, or http to this machine (RFC 8252 7.3)."""
    match = _URI.fullmatch(uri)
    if match is None or len(uri) > REDIRECT_MAX_CHARS:
        return None
    found = Redirect(match["scheme"], match["host"], match["port"] or "", match["rest"])
    if found.port and int(found.port) > 65_535:
        return None
    if ".." in found.host or (found.scheme == "http" and not found.loopback):
        return None
    return found


def why_not_redirect(uri: str) -> str:
    """Empty if it may be registered."""
    if read_redirect(uri) is not None:
        return ""
    return (
        "a redirect URI is https, or http to 127.0.0.1, [::1] or localhost, in lower case, without"
        " user info, fragment, spaces or backslashes"
    )


def redirect_matches(registered: str, asked: str) -> bool:
    """OAuth 2.1 2.3.1: equal character by character; only the port of a loopback one may differ
    (RFC 8252 7.3)."""
    if registered == asked:
        return True
    one, other = read_redirect(registered), read_redirect(asked)
    if one is None or other is None or not one.loopback:
        return False
    return (one.scheme, one.host, one.rest) == (other.scheme, other.host, other.rest) and (
        one.scheme == "http"
    )
