"""GW-10: which URLs a stranger may have us call, and which addresses they may lead to.

Pure.  A name proves nothing about where it leads, so the addresses are judged after resolution, and
the connection goes to a judged address (``exeat.adapters.fetch``).
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from exeat.core.errors import ExeatError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_MAX_CHARS: Final = 2048
_FORBIDDEN: Final = re.compile(r"[^\x21-\x7e]|[\\\"<>^`{|}]")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_USERINFO: Final = re.compile(r"//.*@")
_NETLOC: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(:(?P<port>[0-9]{1,5}))?")
_GLOBAL_UNICAST_6: Final = ipaddress.IPv6Network("2000::/3")
_NEVER_6: Final = (
    ipaddress.IPv6Network("2001::/23"),  # Teredo (an IPv4 address inside), protocol assignments
    ipaddress.IPv6Network("2002::/16"),  # 6to4: an IPv4 address inside
    ipaddress.IPv6Network("3fff::/20"),  # documentation
)
"""Within 2000::/3; IPv4-mapped ::ffff:0:0/96 and NAT64 64:ff9b::/96 are outside of it."""
_NEVER_4: Final = (
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's host service: public, and only its own
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocol assignments; older Pythons know only a part
)


class FetchRefused(ExeatError):
    """A URL was not fetched, or its answer not taken: forbidden, unreachable, too slow, too large."""

    code, http_status, rpc_code = "fetch_refused", 502, -31510


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL that may be called if its addresses may.  ``host``: lower case, no brackets or final dot."""

    https: bool
    host: str
    port: int
    target: str
    """Path and query, as on the request line."""
    literal: Address | None

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.https else 80) else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """For errors and logs: without the query, which may hold a secret."""
        scheme = "https" if self.https else "http"
        return f"{scheme}://{self.authority}{self.target.partition('?')[0]}"


class AllowList:
    """Exceptions an operator made, for internal hosts: ``host``, ``host:port``, or a CIDR.

    A listed host may be called by plain http and may have a private address; a listed network makes
    its addresses good for any name.  Raises ValueError on an entry that is none of the three.
    """

    def __init__(self, entries: frozenset[str] = frozenset()) -> None:
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        for entry in entries:
            text = entry.strip().lower()
            if "/" in text:
                self._networks.append(ipaddress.ip_network(text))
                continue
            if text.count(":") > 1 and not text.startswith("["):
                text = f"[{ipaddress.IPv6Address(text)}]"
            host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
            if not colon:
                host = text
            elif not _PORT.fullmatch(port):
                raise ValueError(f"{entry!r} is not a host, host:port or network")
            bare = host.strip("[]").removesuffix(".")
            if not bare or (":" not in bare and not _is_name(bare)):
                raise ValueError(f"{entry!r} is not a host, host:port or network")
            self._hosts.add(f"{bare} {port}" if colon else bare)

    def host(self, host: str, port: int) -> bool:
        return host in self._hosts or f"{host} {port}" in self._hosts

    def port(self, host: str, port: int) -> bool:
        return f"{host} {port}" in self._hosts

    def address(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def covers(self, destination: Destination) -> bool:
        """Whether the operator vouched for this host itself."""
        literal = destination.literal
        return self.host(destination.host, destination.port) or (
            literal is not None and self.address(literal)
        )


def destination(url: str, allow: AllowList) -> Destination:
    """The parts of ``url``, if it may be called at all.  Raises FetchRefused and says why not."""
    if len(url) > URL_MAX_CHARS:
        raise FetchRefused(f"a URL of {len(url)} characters is too long (at most {URL_MAX_CHARS})")
    if _FORBIDDEN.search(url):
        raise FetchRefused(
            f"{_shown(url)} has characters that no URL may have",
            remedy="write an international name in its xn-- form, and percent-encode the rest",
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise FetchRefused(f"{_shown(url)} is not a URL") from None
    if parts.scheme not in ("http", "https"):
        raise FetchRefused(f"{_shown(url)}: only https URLs are called")
    if "@" in parts.netloc:
        raise FetchRefused("the URL holds a user name or password", remedy="leave it out")
    if "#" in url:
        raise FetchRefused(f"{_shown(url)} has a fragment", remedy="leave it out")
    https = parts.scheme == "https"
    netloc = _NETLOC.fullmatch(parts.netloc.lower())
    if netloc is None:
        raise FetchRefused(f"{_shown(url)} has no host and port that could be meant")
    host, literal = _host(netloc["host"], url)
    port = int(netloc["port"] or (443 if https else 80))
    if not 0 < port < 65536:
        raise FetchRefused(f"{_shown(url)} has no port that could be meant")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    found = Destination(https, host, port, target, literal)
    if not https and not allow.covers(found):
        raise FetchRefused(
            f"{found.shown} is not https",
            remedy=f"use https, or put {host!r} on the list of allowed internal hosts",
        )
    if port < 1024 and port not in (80, 443) and not allow.port(host, port):
        raise FetchRefused(
            f"{found.shown}: port {port} is no port for such a service",
            remedy=f"put '{host}:{port}' on the list of allowed internal hosts if it is meant",
        )
    return found


def _host(text: str, url: str) -> tuple[str, Address | None]:
    host = text.strip("[]").removesuffix(".")
    try:
        if text.startswith("["):
            if "%" in host:
                raise ValueError
            address = ipaddress.IPv6Address(host)
            return str(address), address
        if _NUMBER.fullmatch(
            host.rpartition(".")[2]
        ):  # then every parser reads it as IPv4, or none
            address4 = ipaddress.IPv4Address(host)
            return str(address4), address4
    except ValueError:
        raise FetchRefused(
            f"{_shown(url)}: {host!r} is not a plain address",
            remedy="write it as 192.0.2.1 or [2001:db8::1]",
        ) from None
    if not _is_name(host):
        raise FetchRefused(f"{_shown(url)}: {host!r} is not a host name")
    return host, None


def _shown(url: str) -> str:
    """For an error: without what may be a password or, in the query, another secret."""
    return ascii(_USERINFO.sub("//…@", url.partition("?")[0])[:200])


def _is_name(host: str) -> bool:
    return 0 < len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split("."))


def check_addresses(
    found: Destination, addresses: Sequence[str], allow: AllowList
) -> tuple[Address, ...]:
    """All of ``addresses``, if each may be called; one that may not spoils all (a name that mixes them
    is an attack or a mistake).  Raises FetchRefused."""
    if not addresses:
        raise FetchRefused(f"{found.host!r} has no address")
    vouched = allow.host(found.host, found.port)
    checked = []
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise FetchRefused(
                f"{found.host!r} resolves to {text!r}, which is no address"
            ) from None
        if not (is_public(address) or allow.address(address) or (vouched and _is_host(address))):
            raise FetchRefused(
                f"{found.host!r} leads to {address}, which is not a public address",
                remedy=f"put {found.host!r} on the list of allowed internal hosts if it is meant",
            )
        checked.append(address)
    return tuple(checked)


def is_public(address: Address) -> bool:
    """Whether the whole Internet would reach the same machine there (IANA special-purpose registries)."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NEVER_4)
    if address.scope_id is not None or address not in _GLOBAL_UNICAST_6:
        return False
    return not any(address in network for network in _NEVER_6)


def _is_host(address: Address) -> bool:
    """An address that one machine may have: no group, and not "any"."""
    return not (address.is_multicast or address.is_unspecified)
