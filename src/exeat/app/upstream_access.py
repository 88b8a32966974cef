"""The gateway's credentials for upstreams, wired: guarded client, vault, links, record (ID-9)."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from exeat.adapters.consent_links import ConsentLinks
from exeat.adapters.oauth_client import OAuthClient
from exeat.adapters.upstream_credentials import UpstreamCredentials
from exeat.app.fetching import LOCAL_HOSTS, make_fetcher
from exeat.app.settings import Settings
from exeat.app.vault import HomeVault, Opener
from exeat.core.errors import ExeatError, NotFound
from exeat.core.ids import ServerId
from exeat.core.secret import TENANT, SecretId
from exeat.core.upstream_auth import CredentialFailed
from exeat.registry.model.act import EXEAT, Act

_log = structlog.get_logger("exeat.upstreams")
Tell = Callable[[str, ServerId, Mapping[str, Any]], None]
"""(kind, server, details) → an event."""
DOCUMENT_PATH: Final = "/upstreams/client.json"


class VaultTokens:
    """``TokenStore`` in the vault: sealed, bound to agent and server, and in every change an event."""

    def __init__(self, vault: HomeVault) -> None:
        self._vault = vault
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exeat-tokens")

    async def get(self, agent: str, upstream: str, name: str) -> bytes | None:
        found: bytes | None = await self._run(self._get, SecretId(TENANT, agent, upstream, name))
        return found

    async def put(self, agent: str, upstream: str, name: str, value: bytes) -> None:
        await self._run(self._put, SecretId(TENANT, agent, upstream, name), value)

    async def remove(self, agent: str, upstream: str, name: str) -> None:
        await self._run(self._remove, SecretId(TENANT, agent, upstream, name))

    async def _run(self, work: Any, *given: Any) -> Any:
        """What is wrong with the vault is told to the log alone: an agent may read the error."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, *given)
        except ExeatError as error:
            _log.error("a token for an upstream cannot be kept or read", why=str(error))
            raise CredentialFailed("the gateway's access cannot be kept or read now") from None

    def _get(self, id: SecretId) -> bytes | None:
        try:
            return self._vault.get(id)
        except NotFound:
            return None

    def _put(self, id: SecretId, value: bytes) -> None:
        self._vault.put(id, value, _act())

    def _remove(self, id: SecretId) -> None:
        try:
            self._vault.remove(id, _act())
        except NotFound:
            return


def _act() -> Act:
    return Act(EXEAT, "gateway", "a credential of the gateway at an upstream", time.time_ns())


def make_credentials(
    settings: Settings, vault: HomeVault, secrets: Opener, state_key: bytes, tell: Tell
) -> UpstreamCredentials:
    """Raises Invalid for settings of the guarded client."""
    strict = OAuthClient(make_fetcher(settings), time.time_ns)
    local = OAuthClient(make_fetcher(settings, also=LOCAL_HOSTS), time.time_ns)

    def client_for(url: str) -> OAuthClient:
        """What a server on this machine names may be on this machine; what another names, not."""
        return local if urlsplit(url).hostname in LOCAL_HOSTS else strict

    def notice(kind: str, server: str, details: Mapping[str, Any]) -> None:
        tell(kind, ServerId(server), details)

    own = settings.issuer + DOCUMENT_PATH if settings.issuer.startswith("https://") else ""
    return UpstreamCredentials(
        client_for,
        VaultTokens(vault),
        ConsentLinks(state_key, time.time_ns),
        time.time_ns,
        notice,
        page=f"{settings.issuer}/upstreams",
        document=settings.client_document_url or own,
        open_secret=secrets.open,
    )
