"""Links to servers that want a credential of the gateway's (ID-9).

A refusal (401, or 403 ``insufficient_scope``) is proof that nothing was done, so a better credential is
obtained and the request sent once more; nothing else is ever sent twice (GW-11).  Before that the
action is looked at again, for time has passed (APP-10).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol, runtime_checkable

from exeat.core.errors import ExeatError
from exeat.core.facts import ServerSpec
from exeat.core.upstream_auth import NO_CREDENTIAL, Credential, CredentialFailed, Refused
from exeat.gateway.http1 import ResponseHead
from exeat.gateway.http_call import HttpCall
from exeat.gateway.inbound import RequestId
from exeat.gateway.link import Handle, MessageSink, Outbound
from exeat.gateway.link_http import LegacyHttpLink, ModernHttpLink, _LegacyCall, header_lines
from exeat.gateway.origin import Origin
from exeat.gateway.ports import Account

SENT_MAX: Final = 3
"""Times that one request may leave: refused, refused for want of scope, carried out."""
_INSUFFICIENT: Final = "insufficient_scope"


@runtime_checkable
class HearsOfCredentials(Protocol):
    """A sink that wants to know why there is no credential (ConsentNeeded among others)."""

    def link_unauthorized(self, error: ExeatError) -> None: ...


class NoCredentials:
    """Where no credentials can be obtained: at the command line."""

    def account(self, spec: ServerSpec, principal: str) -> Account:
        return _NoAccount(spec)


class _NoAccount:
    def __init__(self, spec: ServerSpec) -> None:
        self._spec = spec

    def current(self) -> Credential | None:
        return None

    async def obtain(self, refused: Refused | None) -> Credential:
        raise CredentialFailed(
            f"server {self._spec.id} is reached with a credential that only a running gateway has",
            remedy="start the gateway, and list its tools through it once",
        )

    async def consented(self, seconds: float) -> bool:
        return False


class Wallet:
    """The credential that one link sends."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.held = NO_CREDENTIAL

    @property
    def fresh(self) -> bool:
        return self._account.current() is not None

    async def ready(self) -> None:
        """Raises ConsentNeeded, CredentialFailed."""
        self.held = await self._account.obtain(None)

    async def better(self, refused: Refused) -> None:
        self.held = await self._account.obtain(refused)

    def take(self) -> Credential:
        """The newest: another request of the same principal may have renewed it."""
        newest = self._account.current()
        if newest is not None:
            self.held = newest
        return self.held

    def fields(self) -> dict[str, str]:
        value = self.take().value
        return {"authorization": value} if value else {}


Begin = Callable[[Callable[[ResponseHead], None]], HttpCall]
"""Build and send the request with the credential held now; the head of its answer is shown first."""


class Guarded:
    """One request.  ``Handle`` of whoever waits for it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wallet: Wallet,
        outbound: Outbound,
        sink: MessageSink,
        begin: Begin,
    ) -> None:
        self._loop, self._wallet, self._begin = loop, wallet, begin
        self._outbound, self._sink = outbound, sink
        self._call: HttpCall | None = None
        self._task: asyncio.Task[None] | None = None
        self._sent = 0
        self._over = False

    def start(self) -> "Guarded":
        self._sent += 1
        self._call = None
        call = self._begin(self._head)
        if self._task is None and not self._over:
            self._call = call
        return self

    def _head(self, head: ResponseHead) -> None:
        refused = refusal(head, self._wallet.held)
        if refused is None:
            return
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._task = self._loop.create_task(self._again(refused))

    async def _again(self, refused: Refused) -> None:
        try:
            if self._sent >= SENT_MAX:
                raise CredentialFailed(f"refused the gateway's credential (HTTP {refused.status})")
            await self._wallet.better(refused)
        except ExeatError as error:
            self._over, self._task = True, None
            tell(self._sink, error)
            return
        self._task = None
        if self._over:
            return
        still = self._outbound.still
        if still is not None and not still():
            self._over = True
            self._sink.link_failed("was not sent again: the state changed meanwhile", sent=False)
            return
        self.start()

    def cancel(self) -> None:
        self._over = True
        if self._task is not None:
            self._task.cancel()
        if self._call is not None:
            self._call.cancel()

    def pause(self) -> None:
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        if self._call is not None:
            self._call.resume()


def tell(sink: MessageSink, error: ExeatError) -> None:
    if isinstance(sink, HearsOfCredentials):
        sink.link_unauthorized(error)
    else:
        sink.link_failed(str(error), sent=False)


def refusal(head: ResponseHead, credential: Credential) -> Refused | None:
    """The answer, if it says that nothing was done for want of a credential."""
    challenge = head.fields.get("www-authenticate", "")
    if head.status == 401 or (head.status == 403 and _INSUFFICIENT in challenge):
        return Refused(credential, head.status, challenge)
    return None


class GuardedModernLink(ModernHttpLink):
    """One principal's (or the gateway's own) way to a modern server."""

    def __init__(self, origin: Origin, wallet: Wallet, own: Mapping[str, str]) -> None:
        """``own``: static headers besides."""
        super().__init__(origin, own)
        self._wallet = wallet

    @property
    def usable(self) -> bool:  # type: ignore[override]
        return self._wallet.fresh

    async def ready(self) -> None:
        await self._wallet.ready()

    def call(self, outbound: Outbound, sink: MessageSink) -> Handle:
        def begin(on_head: Callable[[ResponseHead], None]) -> HttpCall:
            call = HttpCall(self.origin, outbound.id, outbound, sink)
            call.on_head = on_head
            return call.start(self.raw(outbound, header_lines(self._wallet.fields())))

        return Guarded(self.origin.loop, self._wallet, outbound, sink, begin).start()


class GuardedLegacyLink(LegacyHttpLink):
    """A legacy session at a server that wants a credential on every request."""

    def __init__(self, origin: Origin, wallet: Wallet, own: Mapping[str, str]) -> None:
        self._alive = True
        super().__init__(origin, own)
        self._wallet = wallet

    @property
    def usable(self) -> bool:
        return self._alive and self._wallet.fresh

    @usable.setter
    def usable(self, value: bool) -> None:
        self._alive = value

    @property
    def alive(self) -> bool:
        """The session stands, though its credential may have to be renewed."""
        return self._alive

    async def ready(self) -> None:
        await self._wallet.ready()

    def _own(self) -> bytes:
        return header_lines(self._wallet.fields())

    def opening(
        self,
        outbound: Outbound,
        sink: MessageSink,
        on_head: Callable[[ResponseHead], None],
    ) -> Handle:
        return self._guarded(outbound, sink, outbound.id, on_head, None)

    def call(self, outbound: Outbound, sink: MessageSink) -> Handle:
        mine = self.next_id()
        guarded = self._guarded(outbound, sink, mine, self._watch, self._resume)
        return _LegacyCall(self, mine, guarded)

    def _guarded(
        self,
        outbound: Outbound,
        sink: MessageSink,
        mine: RequestId,
        watch: Callable[[ResponseHead], None],
        resume: Callable[[bytes], bytes] | None,
    ) -> Guarded:
        def begin(on_head: Callable[[ResponseHead], None]) -> HttpCall:
            def head(found: ResponseHead) -> None:
                watch(found)
                on_head(found)

            call = HttpCall(self.origin, mine, outbound, sink, resume)
            call.on_head = head
            return call.start(self.raw(outbound, mine))

        return Guarded(self.origin.loop, self._wallet, outbound, sink, begin).start()


GuardedLink = GuardedModernLink | GuardedLegacyLink
