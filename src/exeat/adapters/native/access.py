"""The token of a native client: kept, renewed, or obtained from a person; one at a time (GW-6, ID-7).

Two requests, and two processes with one sign-in, never obtain a token at once.  A failure is
Unauthenticated: a sentence for the person, without any token in it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from exeat.adapters.native.kept import NOTHING, Keeper, Kept
from exeat.core.errors import ExeatError, Unauthenticated
from exeat.core.upstream_auth import NO_CREDENTIAL, Credential, CredentialFailed, Refused
from exeat.identity.upstream.challenge import read_challenge

if TYPE_CHECKING:
    from exeat.adapters.native.sign_in import NativeClient

PATIENCE_S: Final = 300.0
EARLY_PATIENCE_S: Final = 10.0
"""A request whose token still holds waits no longer for a new one."""
SETTLE_MAX_S: Final = 6.0
REST_S: Final = 10.0
"""After a sign-in that failed, the person is not asked again for so long, whatever the client sends."""
_FINAL: Final = frozenset(
    {"invalid_grant", "invalid_client", "unauthorized_client", "invalid_target", "invalid_scope",
     "unsupported_grant_type"}
)  # fmt: skip
"""With these a refresh token has ended; with others the server may only be in trouble."""
_NEXT: Final = "send the request again to be asked once more, or use a key with --key-file"


class _Origin(Enum):
    KEPT = "kept"
    RENEWED = "renewed"
    SIGNED_IN = "signed in"


class SignedIn:
    """``native``: makes the client when there is something to ask (it takes a while to load).
    ``clock``: nanoseconds since the epoch.  ``patience_s``: how long a request waits for a person."""

    def __init__(
        self,
        keeper: Keeper,
        native: Callable[[], "NativeClient"],
        say: Callable[[str], None],
        clock: Callable[[], int],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._keeper, self._native, self._say = keeper, native, say
        self._clock, self._patience_s = clock, patience_s
        self._held, self._origin, self._proved = keeper.read(), _Origin.KEPT, False
        self._unsaved, self._renewing = False, False
        self._under_way: asyncio.Future[None] | None = None
        self._changed = asyncio.Event()
        self._failed: tuple[ExeatError, float] | None = None

    async def current(self) -> Credential:
        """What a request carries now; renewed if it ends soon and can be.  Never asks a person."""
        due = self._held.refresh and 0 < self._held.renew_at <= self._clock() / 1_000_000_000
        if due and self._under_way is None:
            with suppress(Unauthenticated):  # then the gateway's answer decides
                await self._together(self._renew_early)
        return self.held()

    def accepted(self, used: Credential) -> None:
        """The gateway took it."""
        if used == self.held():
            self._proved = True

    async def obtain(self, refused: Refused) -> None:
        """Another credential than the refused one.  Raises Unauthenticated."""
        if refused.credential != self.held():
            return
        if self._failed is not None and asyncio.get_running_loop().time() < self._failed[1]:
            raise self._failed[0]
        await self._together(lambda: self._better(refused))

    async def other_than(self, used: Credential) -> None:
        """Waits until somebody obtained another one.  Asks nobody."""
        while self.held() == used:
            await self._changed.wait()

    async def close(self) -> None:
        """A renewal under way is seen to its end: its old token is void already."""
        if self._under_way is not None:
            if self._renewing:
                await asyncio.wait({self._under_way}, timeout=SETTLE_MAX_S)
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)

    def held(self) -> Credential:
        """What there is, as it is."""
        access = self._held.access
        return Credential(f"Bearer {access}") if access else NO_CREDENTIAL

    async def _together(self, work: Callable[[], Awaitable[None]]) -> None:
        """All who need a token wait for one attempt, which goes on if one of them is cancelled."""
        if self._under_way is None:
            self._under_way = asyncio.ensure_future(work())
            self._under_way.add_done_callback(self._done)
        await asyncio.shield(self._under_way)

    def _done(self, ended: asyncio.Future[None]) -> None:
        self._under_way = None
        if not ended.cancelled():
            ended.exception()  # seen, though all who waited may be gone

    # ---- one at a time

    async def _renew_early(self) -> None:
        with suppress(TimeoutError, CredentialFailed):
            async with asyncio.timeout(EARLY_PATIENCE_S), self._turn() as kept:
                if kept.access != self._held.access:
                    self._hold(kept, _Origin.KEPT)
                else:
                    await self._renewed(kept)

    async def _better(self, refused: Refused) -> None:
        try:
            async with asyncio.timeout(self._patience_s), self._turn() as kept:
                await self._obtain(refused, kept)
            return
        except TimeoutError:
            minutes = f"{self._patience_s / 60:g} minutes"
            error = Unauthenticated(f"Nobody signed in within {minutes}", remedy=_NEXT)
        except ExeatError as why:
            error = Unauthenticated(str(why), remedy=why.remedy or _NEXT)
        self._failed = error, asyncio.get_running_loop().time() + REST_S
        raise error

    async def _obtain(self, refused: Refused, kept: Kept) -> None:
        same = kept.access == self._held.access
        if kept.access and not same:  # another process was quicker
            self._hold(kept, _Origin.KEPT)
            return
        if refused.status == 401:
            if same and kept.access and self._origin is _Origin.SIGNED_IN and not self._proved:
                self._origin = _Origin.KEPT
                raise Unauthenticated(
                    "The gateway does not accept the token that was just given for it",
                    remedy="look at the gateway's log: its clock, public_url and issuers",
                )
            if not (self._origin is _Origin.RENEWED and not self._proved):
                if await self._renewed(kept):
                    return
                kept = self._held
        before = kept.scopes if refused.status == 403 else ()
        challenge = read_challenge(refused.challenge)
        new = await self._native().sign_in(kept, challenge, before, self._registered)
        self._save(new)
        self._hold(new, _Origin.SIGNED_IN)
        self._say("Signed in.")

    async def _renewed(self, kept: Kept) -> bool:
        """Raises CredentialFailed if it cannot be known: the authorization server is away."""
        from exeat.adapters.oauth_client import TokenRefused

        self._held = kept
        if not kept.refresh:
            return False
        self._renewing = True
        try:
            new = await self._native().renew(kept)
        except TokenRefused as refused:
            if refused.error not in _FINAL:
                raise
            gone = replace(kept, access="", refresh="", renew_at=0)
            if refused.error in ("invalid_client", "unauthorized_client"):
                gone = NOTHING
            self._save(gone)
            self._hold(gone, _Origin.KEPT)
            return False
        finally:
            self._renewing = False
        self._save(new)
        self._hold(new, _Origin.RENEWED)
        return True

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Kept]:
        """What is kept, while no other process changes it.  Raises Unauthenticated."""
        try:
            async with self._keeper.alone():
                kept = self._keeper.read()
                yield self._held if kept == NOTHING and self._unsaved else kept
        except OSError as error:
            raise Unauthenticated(
                f"{self._keeper.path.parent} cannot be used ({error.strerror})",
                remedy="check the folder's permissions, or name another home with --home",
            ) from None

    def _registered(self, kept: Kept) -> None:
        """While its person decides, a registration is kept beside the token that there is, if any."""
        held = self._held if self._held.client_id == kept.client_id else NOTHING
        self._save(
            replace(kept, access=held.access, refresh=held.refresh, renew_at=held.renew_at,
                    scopes=held.scopes)
        )  # fmt: skip

    def _save(self, kept: Kept) -> None:
        try:
            self._keeper.write(kept)
            self._unsaved = False
        except OSError as error:
            self._unsaved = True
            self._say(f"The sign-in cannot be kept for the next start ({error.strerror}).")

    def _hold(self, kept: Kept, origin: _Origin) -> None:
        self._held, self._origin, self._proved = kept, origin, False
        self._changed.set()
        self._changed = asyncio.Event()
