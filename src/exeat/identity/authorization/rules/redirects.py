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
_PRIVATE: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{1,40})://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)"
    r"(?P<rest>(?:/[A-Za-z0-9._~-]+)*/?)"
)
_NOT_AN_APP: Final = frozenset(
    {"http", "https", "ws", "wss", "ftp", "file", "filesystem", "data", "blob", "about", "javascript",
     "vbscript", "view-source", "chrome", "resource", "jar", "intent", "mailto", "tel", "sms", "ssh"}
)  # fmt: skip
"""Schemes that a browser acts on itself, or that are somebody else's."""


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
    def native(self) -> bool:
        """It goes to a program on the person's machine, which cannot prove that it is the right one."""
        return self.loopback or self.scheme not in ("http", "https")

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


def read_private(uri: str) -> Redirect | None:
    """RFC 8252 7.1: an app's own scheme (``cursor://…``).  Only an admin may register one: any program
    can claim it.  It matches character by character."""
    match = _PRIVATE.fullmatch(uri)
    if match is None or len(uri) > REDIRECT_MAX_CHARS or match["scheme"] in _NOT_AN_APP:
        return None
    return Redirect(match["scheme"], match["host"], "", match["rest"])


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
