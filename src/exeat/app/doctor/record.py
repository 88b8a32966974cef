"""The ledger and its keys: whole, ours, and not ahead of the clock.  Read only (EVD-1, EVD-9)."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from exeat.app.doctor.check import Finding, Patient, ok, problem, skipped, warn
from exeat.core.errors import ExeatError, Invalid, NotFound
from exeat.evidence.canonical import decode_leaf
from exeat.evidence.keys import load_master, load_signer
from exeat.evidence.model import LogLeaf
from exeat.evidence.note import Verifier
from exeat.evidence.quota import LedgerLimits
from exeat.evidence.recovery import Recovered, recover
from exeat.evidence.sealed import unwrap_key
from exeat.evidence.store import LedgerReader, StoredLedger, StoreFailed, unpack_leaves
from exeat.storage.copies import LedgerMoment
from exeat.storage.places import LedgerPlace, places

_DATABASE: Final = "Look at the database, then ask again."
_DUMP: Final = "Keep the database as it is, restore a dump (docs/how-to/back-up-and-restore.md)."
_BACKUP: Final = "Keep the file, restore a backup (docs/how-to/back-up-and-restore.md)."


def ledger(patient: Patient) -> Iterator[Finding]:
    """Every ledger of the home, its keys, and the clock against its last entry: files, and logs in
    the database, of which only our own is signed with a key of this home."""
    try:
        found = places(patient.home, patient.settings.database_url)
    except (ExeatError, StoreFailed) as error:
        remedy = getattr(error, "remedy", "") or _DATABASE
        why = str(error).rstrip(".")
        yield problem("ledger", f"The ledgers in the database cannot be read: {why}.", remedy)
        return
    if not found:
        yield skipped("ledger", "There is no ledger yet.", "The first `exeat up` begins one.")
    for place in found:
        yield from _one(patient, place)
    yield from _keys(patient, {place.name for place in found if _ours(patient, place)})


def _ours(patient: Patient, place: LedgerPlace) -> bool:
    return place.path is not None or place.name in patient.writers


def _one(patient: Patient, place: LedgerPlace) -> Iterator[Finding]:
    check = f"ledger:{place.name}"
    try:
        with closing(place.reader()) as reader:
            enrolled = enrolled_key(reader)
            if enrolled is None:
                yield skipped(check, f"{place.shown} holds no entry yet.", "`exeat up` goes on.")
                return
            moment = LedgerMoment(reader)
            found = recover(moment, enrolled)
            yield _whole(check, place, moment, found)
            yield clock_finding(place.name, found.at, patient.now)
            if _ours(patient, place):
                yield from _signing_key(patient, place.name, enrolled)
                yield from _master_key(patient, place, reader)
    except (ExeatError, StoreFailed) as error:
        yield problem(check, f"The ledger {place.shown}: {error}.", _remedy(place, error))


def _remedy(place: LedgerPlace, error: ExeatError | StoreFailed) -> str:
    if place.path is not None:
        return getattr(error, "remedy", "") or _BACKUP
    return _DATABASE if isinstance(error, StoreFailed) else _DUMP


def _whole(check: str, place: LedgerPlace, moment: LedgerMoment, found: Recovered) -> Finding:
    signed = moment.last_checkpoint()
    if signed is None:
        return warn(
            check,
            f"{place.shown} holds {found.frontier.size} entries and no checkpoint.",
            "The gateway signs one every few seconds; ask again while it runs.",
        )
    return ok(
        check,
        f"{place.shown}: the tail verifies up to entry {found.frontier.size}, "
        f"signed up to {signed[0]}.  `exeat evidence verify` checks all of it.",
    )


def enrolled_key(reader: LedgerReader) -> Verifier | None:
    """The key that the ledger's first entry names; None if there is no entry.

    Raises Invalid, LedgerBroken, StoreFailed.
    """
    for row in reader.rows():
        leaf = decode_leaf(unpack_leaves(row.leaves)[0])
        if isinstance(leaf, LogLeaf) and leaf.what == "enrolled" and isinstance(leaf.facts, dict):
            return Verifier.parse(str(leaf.facts.get("key", "")))
        raise Invalid("it does not begin with the enrolment of its writer")
    return None


def clock_finding(instance: str, last_at: int, now: int) -> Finding:
    behind = (last_at - now) / 1e9
    if behind * 1e9 > LedgerLimits().clock_backwards_max_ns:
        return problem(
            f"clock:{instance}",
            f"The clock is {behind:.0f} s behind the ledger's last entry: calls are denied.",
            "Set the clock (chronyc, timedatectl), then start again.",
        )
    return ok(f"clock:{instance}", "The clock is not behind the ledger's last entry.")


def _signing_key(patient: Patient, instance: str, enrolled: Verifier) -> Iterator[Finding]:
    """Without it nothing can be added; a ledger of an earlier name is only read, so that is known."""
    check, path = f"keys.signing:{instance}", patient.home / "keys" / f"{instance}.ed25519"
    found = problem if instance in patient.writers else warn
    other = "Put the right key back, or go on under a new EXEAT_INSTANCE."
    try:
        signer = load_signer(path)
    except NotFound:
        yield found(check, f"The key that signed {instance}'s ledger is gone ({path.name}).", other)
        return
    except (Invalid, OSError) as error:
        remedy = getattr(error, "remedy", "") or "Put the key back from its copy."
        yield found(check, f"The signing key of {instance} cannot be used: {error}.", remedy)
        return
    if signer.verifier != enrolled:
        yield found(check, f"{path.name} is not the key that signed {instance}'s ledger.", other)
    else:
        yield ok(check, f"The signing key of {instance} is the one in its ledger.")


def _master_key(patient: Patient, place: LedgerPlace, reader: StoredLedger) -> Iterator[Finding]:
    """Tried on a key of a data subject that it has wrapped, if there is one."""
    check = f"keys.master:{place.name}"
    remedy = "Put back the keys/master.key that belongs to this home."
    try:
        master = load_master(patient.home / "keys" / "master.key")
        wrapped = next((key for key in reader.subject_keys() if key.wrapped), None)
        if wrapped is not None:
            unwrap_key(master, wrapped)
    except NotFound:
        yield problem(check, "The master key is gone: sealed values cannot be opened.", remedy)
    except (ExeatError, OSError) as error:
        yield problem(check, f"The master key: {error}.", getattr(error, "remedy", "") or remedy)
    else:
        yield ok(check, f"The master key opens the values of {place.shown}.")


def _keys(patient: Patient, known: set[str]) -> Iterator[Finding]:
    """Key files that no ledger has spoken of yet."""
    folder = patient.home / "keys"
    loads: list[tuple[str, Path, Callable[[Path], object]]] = [
        ("keys.state", folder / "state.key", load_master),
        ("keys.permit", folder / "permit.key", load_master),
    ]
    new = [name for name in patient.writers if name not in known]
    loads += [(f"keys.signing:{name}", folder / f"{name}.ed25519", load_signer) for name in new]
    if new:
        loads.append(("keys.master", folder / "master.key", load_master))
    for check, path, load in loads:
        try:
            load(path)
        except NotFound:
            yield skipped(check, f"{path.name} is not there yet.", "The next `exeat up` makes it.")
        except (ExeatError, OSError) as error:
            remedy = getattr(error, "remedy", "") or "Put the file back from its copy."
            yield problem(check, f"{path.name} cannot be used: {error}.", remedy)
        else:
            yield ok(check, f"{path.name} can be used.")
