"""All checks, in the order in which a newcomer would ask."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from exeat.app.doctor import governed, place, program, reach, record, vault
from exeat.app.doctor.check import Check, Finding, Patient, problem
from exeat.app.settings import Settings, load_settings
from exeat.core.errors import ExeatError

CHECKS: Final[tuple[Check, ...]] = (
    program.versions,
    place.settings,
    place.home,
    place.disk,
    place.file_system,
    place.flush,
    place.lock,
    place.descriptors,
    program.memory,
    reach.bind,
    reach.tls,
    reach.port,
    governed.state,
    record.ledger,
    governed.policy,
    governed.kills,
    governed.agents,
    governed.keys,
    governed.tools,
    vault.vault,
    vault.approvals,
    reach.servers,
    reach.isolation,
)
"""``lock`` finds the pid and ``state`` the snapshot that those behind them use."""


def examine(home: Path, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Every finding as it is made.  A check that fails is itself a finding."""
    patient = _patient(home, os.environ if environ is None else environ)
    for check in CHECKS:
        try:
            yield from check(patient)
        except Exception as error:  # noqa: BLE001 - one check must not hide the others
            yield problem(
                check.__name__,
                f"This could not be examined ({type(error).__name__}: {error}).",
                "Please report it: a check should say what is wrong, not fail.",
            )
        if check is place.home and not home.is_dir():
            return


def _patient(home: Path, environ: Mapping[str, str]) -> Patient:
    try:
        return Patient(home, load_settings(home), environ)
    except ExeatError as error:
        return Patient(home, Settings.model_construct(), environ, str(error).rstrip("."))
