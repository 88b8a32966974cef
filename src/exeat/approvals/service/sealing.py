"""What is sealed of a hold and of a grant, and how it is read again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exeat.approvals.model.bounds import Bounds, read_bounds
from exeat.approvals.model.exact import exact, read_exact
from exeat.approvals.model.grant import Grant
from exeat.approvals.model.hold import Answer, Hold, Shown
from exeat.approvals.store import Seals
from exeat.core.errors import NotFound
from exeat.core.grant import Held
from exeat.core.ids import PersonId


def seal_held(seals: Seals, id: str, held: Held, salt: str) -> bytes:
    named = {"arguments": held.arguments, "beside": held.beside, "narrowed": held.narrowed}
    text = exact({**named, "salt": salt})
    return seals.seal(f"hold:{id}", text.encode())


def open_hold(seals: Seals, hold: Hold) -> Shown:
    """Raises NotFound once it was forgotten, VaultFailed if its key is not there."""
    if not hold.sealed:
        raise NotFound(
            f"The arguments of {hold.id} were forgotten, as they are some time after the decision.",
            remedy="Evidence keeps what was decided: exeat evidence show",
        )
    value = read_exact(seals.open(hold.subject, hold.sealed).decode())
    return Shown(value["arguments"], value["narrowed"], value["beside"], value["salt"])


def seal_bounds(seals: Seals, hold: Hold, person: PersonId, bounds: Bounds) -> bytes:
    return seals.seal(_proposed(hold, person), exact(bounds.as_json()).encode())


def open_bounds(seals: Seals, hold: Hold, answer: Answer) -> Bounds | None:
    """What the answer proposes; None if it is for one call, or was forgotten.  Raises VaultFailed."""
    if not answer.sealed:
        return None
    text = seals.open(_proposed(hold, answer.person), answer.sealed).decode()
    return read_bounds(read_exact(text))


def _proposed(hold: Hold, person: PersonId) -> str:
    return f"bounds:{hold.id}:{person}"


@dataclass(frozen=True, slots=True)
class Extent:
    """What a grant was made of: the held call's arguments as they would have left, what would have left
    beside them, and the bounds."""

    held: Mapping[str, Any]
    bounds: Bounds
    beside: str = ""


def seal_extent(seals: Seals, id: str, extent: Extent) -> bytes:
    text = exact({"beside": extent.beside, "bounds": extent.bounds.as_json(), "held": extent.held})
    return seals.seal(f"grant:{id}", text.encode())


def open_extent(seals: Seals, grant: Grant) -> Extent:
    """Raises VaultFailed."""
    if not grant.sealed:
        raise NotFound(f"The bounds of {grant.id} were forgotten some time after its end.")
    value = read_exact(seals.open(grant.subject, grant.sealed).decode())
    return Extent(value["held"], read_bounds(value["bounds"]), value["beside"])
