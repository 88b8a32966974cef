"""The vault of this home, wired: rows in its database, keys as the settings say (ID-10)."""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from exeat.adapters.vault_keys import CommandKeys, EnvironmentKeys, FileKeys, SharedFileKeys
from exeat.app.settings import Settings
from exeat.core.errors import Invalid
from exeat.identity.vault.service import Vault
from exeat.identity.vault.store import KeySource
from exeat.storage.state import State
from exeat.storage.vault import SqlVaultChange

KEY_FILE: Final = "vault.key"
ENV: Final = "env:"
"""Before the name of a variable, where a setting names either one or a secret of the vault."""
HomeVault = Vault[SqlVaultChange]


def key_source(home: Path, settings: Settings, environ: Mapping[str, str]) -> KeySource:
    """Raises Invalid if the settings name two."""
    if settings.vault_key_command and settings.vault_key_env:
        raise Invalid(
            "Both vault_key_env and vault_key_command say where the vault's key is.",
            remedy="Take one of them out of exeat.toml or the environment.",
        )
    if settings.vault_key_command:
        return CommandKeys(settings.vault_key_command, environ)
    if settings.vault_key_env:
        return EnvironmentKeys(settings.vault_key_env, environ)
    path = home / "keys" / KEY_FILE
    return FileKeys(path) if settings.database_url is None else SharedFileKeys(path)


def open_vault(
    home: Path, settings: Settings, state: State, environ: Mapping[str, str] = os.environ
) -> HomeVault:
    """Reads no key yet: a home without secrets needs none."""
    source = key_source(home, settings, environ)
    return Vault(state.vault, source, os.urandom)


def without_vault_key(settings: Settings, environ: Mapping[str, str]) -> Mapping[str, str]:
    """What may be handed down to a server: never the vault's own key, nor the secret by which answers
    of people are signed."""
    named = settings.approval_webhook_secret or ""
    own = {settings.vault_key_env, named.removeprefix(ENV) if named.startswith(ENV) else None}
    return {name: value for name, value in environ.items() if name not in own}


class Opener:
    """Opens secrets for the gateway's links, one at a time, away from the loop."""

    def __init__(self, vault: HomeVault, loop: asyncio.AbstractEventLoop) -> None:
        self._vault, self._loop = vault, loop
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exeat-vault")

    async def open(self, agent: str, upstream: str, name: str) -> bytes:
        """Raises NotFound, VaultFailed, StateUnavailable."""
        return await self._loop.run_in_executor(
            self._thread, self._vault.find, agent, upstream, name
        )

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
