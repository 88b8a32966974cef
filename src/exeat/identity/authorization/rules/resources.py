"""Resource indicators (RFC 8707): the gateway's own endpoints, in each of their spellings."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from exeat.core.ids import ServerId
from exeat.identity.authorization.model.refusal import Refused

_URI: Final = re.compile(
    r"(?P<base>https?://[^/?#@\\\s]+)/mcp(?:/(?P<server>[a-z0-9][a-z0-9-]{0,30}))?"
)


@dataclass(frozen=True, slots=True)
class Resource:
    """``uri`` is what the token's ``aud`` will hold.  ``server`` None: the endpoint of all."""

    uri: str
    server: ServerId | None


@dataclass(frozen=True, slots=True)
class Resources:
    """``bases``: scheme, host and port of each address that clients may know the gateway by."""

    bases: frozenset[str]

    @classmethod
    def at(
        cls, scheme: str, host: str, port: int, names: Iterable[str], public: str
    ) -> "Resources":
        """``host``, ``port``: where the gateway listens.  ``names``: further Host values, with or
        without a port.  ``public``: scheme and host under which clients reach it, or empty."""
        known = {"127.0.0.1", "localhost", "[::1]", *names}
        if host not in ("", "0.0.0.0", "::"):  # noqa: S104 - a comparison
            known.add(f"[{host}]" if ":" in host else host)
        usual = ":443" if scheme == "https" else ":80"
        here = {f"{scheme}://{name.lower()}" for name in known}
        here |= {f"{scheme}://{name.lower()}:{port}".removesuffix(usual) for name in known}
        return cls(frozenset(here | ({public.rstrip("/").lower()} - {""})))

    def find(self, uri: str, servers: Collection[ServerId]) -> Resource:
        """The MCP specification asks to accept capitals in scheme and host; the audience is written
        without.  Raises Refused (``invalid_target``)."""
        wanted = self.canonical(uri)
        match = _URI.fullmatch(wanted)
        server = ServerId(match["server"]) if match and match["server"] else None
        if match is None or match["base"] not in self.bases:
            raise Refused("invalid_target", "The resource is not an endpoint of this gateway.")
        if server is not None and server not in servers:
            raise Refused("invalid_target", "There is no such server behind this gateway.")
        return Resource(wanted, server)

    def canonical(self, uri: str) -> str:
        """Scheme and host in lower case, the rest as it is."""
        scheme, mark, rest = uri.partition("://")
        authority, slash, path = rest.partition("/")
        return scheme.lower() + mark + authority.lower() + slash + path
