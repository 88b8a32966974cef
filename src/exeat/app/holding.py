"""Whether a call could be held here at all.  What people are asked rests sealed, so the vault needs a key
(ADR 0040); where none can be had, each call that waits for people is denied ``approvals_unavailable``."""

import os
from collections.abc import Mapping
from pathlib import Path

from exeat.adapters.approval_seals import KEY
from exeat.adapters.vault_keys import FileKeys
from exeat.app.settings import Settings
from exeat.app.vault import key_source, open_vault
from exeat.core.controls import CONFIRMED_BY_USER
from exeat.core.errors import ExeatError, VaultFailed
from exeat.policy.decide import Pdp
from exeat.storage.state import State


def asked(pdp: Pdp) -> tuple[str, ...]:
    """Answers of people that the policies in force name, sorted; empty: nobody is ever asked."""
    named = frozenset[str]().union(*(policy.controls for policy in pdp.policies))
    people = {role.control for role in pdp.controls.approvers.values()}
    if pdp.solo:
        people.add(CONFIRMED_BY_USER)
    return tuple(sorted(named & people))


def unsealable(
    home: Path, settings: Settings, state: State, environ: Mapping[str, str] = os.environ
) -> ExeatError | None:
    """Why a call's arguments could not be sealed, or None.  Blocks; makes no key and writes nothing."""
    try:
        source = key_source(home, settings, environ)
        with state.vault.read() as read:
            kept, current = read.secret(KEY), read.current_key()
        if kept is not None:
            open_vault(home, settings, state, environ).opens(kept)
            return None
        keys = {key.id for key in source.read()}
        if current and current not in keys:
            return VaultFailed(
                f"The vault's key {current} is not in {source.name}.",
                remedy="Put it back, or copy it from a gateway that has it.",
            )
        if not current and not keys and not isinstance(source, FileKeys):
            return VaultFailed(
                f"There is no key in {source.name}, and gateways that share a database make none.",
                remedy="Make one (`openssl rand -base64 32`) and give it to every gateway: by vault_key_env, "
                "by vault_key_command, or as that file.",
            )
    except ExeatError as error:
        return error
    return None
