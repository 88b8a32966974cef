"""Wires the sign-in of `exeat bridge` (GW-6, ID-7).  Loaded only where there is no key."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from exeat.adapters.native.access import SignedIn
from exeat.adapters.native.kept import NOTHING, Keeper
from exeat.core.errors import ExeatError, Invalid, Unauthenticated
from exeat.core.upstream_auth import Refused

if TYPE_CHECKING:
    from exeat.adapters.native.sign_in import NativeClient

FOLDER = "bridge"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class SignIn:
    """``url``: the gateway's endpoint.  ``plain_http``: hosts beside this machine to which secrets may
    travel unencrypted.  ``internal``: hosts with private addresses that may be called besides."""

    url: str
    home: Path
    ca_file: Path | None = None
    plain_http: frozenset[str] = frozenset()
    internal: frozenset[str] = frozenset()
    client_id: str = ""
    name: str = ""
    patience_s: float = 300.0


def access_for(what: SignIn, say: Callable[[str], None]) -> SignedIn:
    """Asks and loads nothing that is not needed yet."""
    return SignedIn(_keeper(what), lambda: _native(what, say), say, time.time_ns, what.patience_s)


async def sign_in(what: SignIn, say: Callable[[str], None]) -> None:
    """Now, before a program needs it.  Raises Unauthenticated."""
    access = access_for(what, say)
    try:
        await access.obtain(Refused(access.held(), 401, ""))
    finally:
        await access.close()


async def sign_out(what: SignIn, say: Callable[[str], None]) -> None:
    """Forgets, and revokes (RFC 7009).  Raises Unauthenticated if the server could not be told; then it
    is forgotten all the same."""
    keeper = _keeper(what)
    try:
        async with keeper.alone():
            kept = keeper.read()
            keeper.forget()
    except OSError as error:
        raise Invalid(f"{keeper.path} cannot be deleted ({error.strerror})") from None
    if kept == NOTHING or not (kept.refresh or kept.access):
        say("There was no sign-in to forget.")
        return
    try:
        await _native(what, say).revoke(kept)
    except ExeatError as why:
        raise Unauthenticated(
            f"The sign-in is forgotten here, but was not revoked: {why}",
            remedy=f"an admin runs `exeat client revoke {kept.client_id}`, or it ends by itself",
        ) from None
    say("Signed out: the sign-in is forgotten, and revoked.")


def _keeper(what: SignIn) -> Keeper:
    names = [name for name in (what.name, what.client_id) if name]
    return Keeper(what.home / FOLDER, what.url, "\n".join(names))


def _native(what: SignIn, say: Callable[[str], None]) -> "NativeClient":
    from exeat.adapters.fetch import Fetcher
    from exeat.adapters.native.browser import open_browser
    from exeat.adapters.native.sign_in import NativeClient, Place
    from exeat.adapters.oauth_client import OAuthClient

    def show(url: str) -> None:
        say(f"To sign in, open this page in a browser: {url}")
        open_browser(url)

    try:
        fetcher = Fetcher(_allowed(what), what.ca_file)
    except ValueError as error:
        raise Invalid(str(error), remedy="check --internal-host and --allow-http") from None
    except OSError:
        raise Invalid(
            f"{what.ca_file} is not a readable file of certificates (PEM)", remedy="check --ca-file"
        ) from None
    place = Place(what.url, LOOPBACK | what.plain_http, what.client_id, what.name)
    return NativeClient(place, OAuthClient(fetcher, time.time_ns), show, time.time_ns)


def _allowed(what: SignIn) -> frozenset[str]:
    """GW-10: the gateway's own host, which the person named; this machine only if it is there."""
    parts = urlsplit(what.url)
    host = parts.hostname or ""
    own = {host, f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}"}
    if parts.port is None:
        own = {host}
    beside = LOOPBACK if host in LOOPBACK else frozenset[str]()
    return frozenset(own) | beside | what.plain_http | what.internal
