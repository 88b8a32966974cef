"""Approvals of this home, wired: rows in its database, arguments sealed by its vault."""

import os
import time

from exeat.adapters.approval_seals import VaultSeals
from exeat.app.vault import HomeVault
from exeat.approvals.model.standing import Standing
from exeat.approvals.service.approvals import Approvals
from exeat.approvals.service.claims import Caps
from exeat.core.controls import Controls
from exeat.core.facts import Snapshot
from exeat.policy.controls import read_controls
from exeat.registry.model.act import EXEAT, Act
from exeat.storage.state import State


def open_approvals(state: State, vault: HomeVault, caps: Caps = Caps()) -> Approvals:  # noqa: B008
    """Reads no key yet: a home in which nothing is held needs none."""
    return Approvals(state.approvals, VaultSeals(vault, os.urandom, _by), os.urandom, caps)


def standing_of(snapshot: Snapshot, controls: Controls) -> Standing:
    """Who stands where.  Solo: there is one live person, who confirms what nobody else could approve."""
    people = snapshot.people
    solo = sum(each.live for each in people.values()) == 1
    return Standing(controls.approvers, people, snapshot.agents, solo)


def standing_now(state: State) -> Standing:
    """As of the policy version in force; what it declares badly gives nobody any authority."""
    snapshot = state.snapshot()
    files = {} if snapshot.policy is None else snapshot.policy.files
    controls, findings = read_controls(files)
    if findings:
        controls = Controls(approvers={})
    return standing_of(snapshot, controls)


def _by() -> Act:
    return Act(EXEAT, "gateway", "seals the arguments of held calls", time.time_ns())
