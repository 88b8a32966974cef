"""Approvals of this home, wired: rows in its database, arguments sealed by its vault."""

import os
import time

from exeat.adapters.approval_seals import VaultSeals
from exeat.app.vault import HomeVault
from exeat.approvals.service.approvals import Approvals
from exeat.approvals.service.claims import Caps
from exeat.registry.model.act import EXEAT, Act
from exeat.storage.state import State


def open_approvals(state: State, vault: HomeVault, caps: Caps = Caps()) -> Approvals:  # noqa: B008
    """Reads no key yet: a home in which nothing is held needs none."""
    return Approvals(state.approvals, VaultSeals(vault, os.urandom, _by), os.urandom, caps)


def _by() -> Act:
    return Act(EXEAT, "gateway", "seals the arguments of held calls", time.time_ns())
