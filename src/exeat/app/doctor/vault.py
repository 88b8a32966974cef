"""The vault: is its key there, does every secret open, and are those there that servers name? (ID-10)
Could a call be held under it? (APP-4)"""

from collections.abc import Callable, Iterator
from typing import Final

from exeat.app.doctor.check import Finding, Patient, ok, problem, skipped, warn
from exeat.app.holding import asked, unsealable
from exeat.app.vault import open_vault
from exeat.core.errors import ExeatError
from exeat.identity.vault.model import Secret
from exeat.policy.bundle import compile_bundle
from exeat.storage.state import look_at_state

SHOWN_MAX: Final = 5


def vault(patient: Patient) -> Iterator[Finding]:
    """Every secret is opened; nothing of it is said."""
    if patient.snapshot is None:
        yield skipped("vault", "The registry cannot be read.")
        return
    yield from _missing(patient)
    state = look_at_state(patient.home, patient.settings.database_url)
    try:
        with state.vault.read() as read:
            secrets, current = read.secrets(), read.current_key()
        if not secrets:
            yield ok("vault", "The vault holds no secret.")
            return
        opened = open_vault(patient.home, patient.settings, state, patient.environ)
        closed = [each for each in secrets if _problem(opened.opens, each)]
        if closed:
            names = ", ".join(each.id.name for each in closed[:SHOWN_MAX])
            more = f" (and {len(closed) - SHOWN_MAX} more)" if len(closed) > SHOWN_MAX else ""
            yield problem(
                "vault",
                f"{len(closed)} of {len(secrets)} secrets do not open: {names}{more}. "
                f"{_problem(opened.opens, closed[0])}",
                "Put back the vault's key, or set these secrets again (exeat secret set).",
            )
        elif any(each.sealed.key != current for each in secrets):
            yield warn(
                "vault",
                "A rotation of the vault's key was stopped: some secrets are under the old one.",
                "Run `exeat secret rotate`; it goes on where it stopped.",
            )
        else:
            yield ok("vault", f"All {len(secrets)} secrets open under key {current}.")
    except ExeatError as error:
        yield problem("vault", f"{str(error).rstrip('.')}.", error.remedy or "See the log.")
    finally:
        state.close()


def approvals(patient: Patient) -> Iterator[Finding]:
    """A call that waits for people is denied where its arguments cannot be sealed."""
    snapshot = patient.snapshot
    if snapshot is None:
        yield skipped("approvals", "The registry cannot be read.")
        return
    controls = asked(
        compile_bundle(snapshot.policy, snapshot.tools, snapshot.servers, people=snapshot.people)
    )
    if not controls:
        yield ok("approvals", "No policy in force asks people.")
        return
    names = ", ".join(controls)
    state = look_at_state(patient.home, patient.settings.database_url)
    try:
        why = unsealable(patient.home, patient.settings, state, patient.environ)
    finally:
        state.close()
    if why is None:
        yield ok("approvals", f"Calls can be held ({names}).")
    else:
        yield warn(
            "approvals",
            f"Every call that waits for {names} is denied (approvals_unavailable): {why}",
            why.remedy or "See the log.",
        )


def _problem(opens: Callable[[Secret], None], secret: Secret) -> str:
    try:
        opens(secret)
    except ExeatError as error:
        return str(error)
    return ""


def _missing(patient: Patient) -> Iterator[Finding]:
    assert patient.snapshot is not None  # noqa: S101
    known = {(each.name, each.upstream) for each in patient.snapshot.secrets}
    for spec in patient.snapshot.specs.values():
        for name in spec.secrets:
            if not known & {(name, ""), (name, spec.id)}:
                yield problem(
                    f"secret:{name}",
                    f"Server {spec.id} needs secret {name}, which is not set.",
                    f"exeat secret set {name} --server {spec.id}",
                )
