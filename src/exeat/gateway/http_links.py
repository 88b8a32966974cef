"""How one HTTP server is reached, by whom: with one link for all, with an agent's own secrets (ID-10), or
with a credential that the gateway obtained for the principal (ID-9)."""

from typing import Final

from exeat.core.facts import ServerSpec
from exeat.core.upstream_auth import AuthMode
from exeat.gateway.guarded import GuardedLegacyLink, GuardedModernLink, Wallet
from exeat.gateway.link import Link
from exeat.gateway.link_http import LegacyHttpLink, ModernHttpLink
from exeat.gateway.origin import Origin
from exeat.gateway.ports import Account, CredentialSource
from exeat.gateway.server_secrets import ServerSecrets

GUARDED_MAX: Final = 4096
"""Principals with a link of their own to one server; beyond that all are made anew."""


class HttpLinks:
    def __init__(
        self, spec: ServerSpec, origin: Origin, secrets: ServerSecrets, source: CredentialSource
    ) -> None:
        self._spec, self._origin, self._secrets, self._source = spec, origin, secrets, source
        self.guarded = spec.auth.mode is not AuthMode.NONE
        self._shared: ModernHttpLink | None = None
        self._own: dict[str, ModernHttpLink] = {}
        self._guards: dict[str, GuardedModernLink] = {}

    def account(self, principal: str) -> Account:
        return self._source.account(self._spec, principal)

    def whose(self, principal: str) -> str:
        """What is asked of the server for one of these is asked for all of the same name."""
        if self.guarded and self._spec.auth.per_user:
            return principal
        return self._secrets.own_agent(principal)

    def modern_now(self, principal: str) -> Link | None:
        """The hot path."""
        if self.guarded:
            guard = self._guards.get(self.whose(principal))
            return guard if guard is not None and guard.usable else None
        agent = self._secrets.own_agent(principal)
        return self._own.get(agent) if agent else self._shared

    def any_now(self) -> Link | None:
        """One to look at the server through, whosever it is."""
        guards = (guard for guard in self._guards.values() if guard.usable)
        return self._shared or next(iter(self._own.values()), None) or next(guards, None)

    async def modern(self, principal: str) -> ModernHttpLink:
        """Raises UpstreamFailed, ConsentNeeded, CredentialFailed."""
        agent = self._secrets.own_agent(principal)
        if self.guarded:
            return await self._guard(principal, agent)
        found = self._own.get(agent) if agent else self._shared
        if found is None:
            found = ModernHttpLink(self._origin, await self._secrets.headers(agent))
            if agent:
                self._own[agent] = found
            else:
                self._shared = found
        return found

    async def _guard(self, principal: str, agent: str) -> GuardedModernLink:
        whose = self.whose(principal)
        found = self._guards.get(whose)
        if found is None:
            wallet = Wallet(self.account(principal))
            found = GuardedModernLink(self._origin, wallet, await self._secrets.headers(agent))
            if len(self._guards) >= GUARDED_MAX:
                self._guards.clear()
            self._guards[whose] = found
        await found.ready()
        return found

    async def legacy(self, principal: str) -> LegacyHttpLink:
        """A new one, without a session yet.  Raises as ``modern``."""
        own = await self._secrets.headers(self._secrets.own_agent(principal))
        if not self.guarded:
            return LegacyHttpLink(self._origin, own)
        link = GuardedLegacyLink(self._origin, Wallet(self.account(principal)), own)
        await link.ready()
        return link


async def renewed(link: Link) -> bool:
    """Whether a link kept from before can serve on, after its credential was renewed if it had ended.
    Raises ConsentNeeded, CredentialFailed."""
    if isinstance(link, GuardedLegacyLink) and link.alive:
        await link.ready()
    return link.usable
