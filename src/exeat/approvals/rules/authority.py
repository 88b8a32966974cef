"""Who may give which control, and when what was given suffices (APP-3).  Pure.

Asked at approval and again at use, with the standing of that moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from exeat.approvals.model.hold import MINUTE_NS, SECOND_NS, Answer, Hold
from exeat.approvals.model.standing import Standing
from exeat.core.controls import APPROVED_BY, CONFIRMED_BY_USER, ApproverRole, Channel
from exeat.core.grant import Binding
from exeat.core.ids import PersonId

CONFIRM_WITHIN_NS: Final = 10 * MINUTE_NS
Alternatives = Sequence[Sequence[str]]


def stands(control: str, person: PersonId, binding: Binding, standing: Standing) -> bool:
    """Whether this person could give it now, whatever the channel."""
    if not standing.live(person):
        return False
    if control == CONFIRMED_BY_USER:
        return standing.solo and binding.user in (None, person)
    role = _role(control, standing)
    if role is None or person == binding.user:
        return False
    if person in role.people or standing.people[person].roles & role.roles:
        return True
    agent = standing.agents.get(binding.agent)
    return role.owner and agent is not None and person in (agent.owner, agent.deputy)


def gives(
    hold: Hold, person: PersonId, channel: Channel, at: int, standing: Standing
) -> frozenset[str]:
    """The hold's controls that this person gives by an answer through this channel at this time."""
    return frozenset(
        control
        for control in controls(hold.alternatives)
        if stands(control, person, hold.binding, standing)
        and channel in _channels(control, standing)
        and at < hold.asked_at + _within_ns(control, standing)
    )


def channels(control: str, standing: Standing) -> frozenset[Channel]:
    return _channels(control, standing)


def quorum(control: str, standing: Standing) -> int:
    """How many people are wanted; 0: it is nobody's to give."""
    role = _role(control, standing)
    if role is not None:
        return role.quorum
    return 1 if control == CONFIRMED_BY_USER and standing.solo else 0


def suffices(
    alternatives: Alternatives, given: Mapping[PersonId, frozenset[str]], standing: Standing
) -> frozenset[str] | None:
    """The first alternative whose every control is given by as many people as its quorum, each person
    counting once; None if there is none."""
    for alternative in alternatives:
        places = _places(alternative, standing)
        if places is not None and len(_seated(places, given)) == len(places):
            return frozenset(alternative)
    return None


def missing(
    alternatives: Alternatives, given: Mapping[PersonId, frozenset[str]], standing: Standing
) -> tuple[tuple[str, ...], ...]:
    """For each alternative that declared roles can meet, the controls still wanted, one name for each
    person."""
    wanted: list[tuple[str, ...]] = []
    for alternative in alternatives:
        places = _places(alternative, standing)
        if places is not None:
            seated = _seated(places, given)
            wanted.append(tuple(c for n, c in enumerate(places) if n not in seated))
    return tuple(wanted)


def able(
    alternatives: Alternatives, binding: Binding, standing: Standing
) -> Mapping[PersonId, frozenset[str]]:
    """Everybody who could give something of an alternative that could be met at all.  Empty: nobody
    could approve."""
    every = {
        person: found
        for person in standing.people
        if (
            found := frozenset(
                c for c in controls(alternatives) if stands(c, person, binding, standing)
            )
        )
    }
    possible = frozenset(
        control
        for alternative in alternatives
        if suffices((alternative,), every, standing) is not None
        for control in alternative
    )
    return {person: found & possible for person, found in every.items() if found & possible}


def deadline(alternatives: Alternatives, at: int, standing: Standing) -> int:
    """When the last alternative that declared roles can meet can no longer be met in time."""
    ends = [
        min(_within_ns(control, standing) for control in alternative)
        for alternative in alternatives
        if alternative and _places(alternative, standing) is not None
    ]
    return at + max(ends, default=0)


def still(
    answers: Iterable[Answer], binding: Binding, standing: Standing
) -> dict[PersonId, frozenset[str]]:
    """What approvals are worth now: who lost the authority no longer counts."""
    return {
        each.person: frozenset(
            c
            for c in each.controls
            if stands(c, each.person, binding, standing) and each.channel in _channels(c, standing)
        )
        for each in answers
    }


def controls(alternatives: Alternatives) -> tuple[str, ...]:
    return tuple(dict.fromkeys(control for each in alternatives for control in each))


def _role(control: str, standing: Standing) -> ApproverRole | None:
    if not control.startswith(APPROVED_BY):
        return None
    return standing.roles.get(control.removeprefix(APPROVED_BY))


def _channels(control: str, standing: Standing) -> frozenset[Channel]:
    if control == CONFIRMED_BY_USER:
        return frozenset({Channel.PASSKEY})
    role = _role(control, standing)
    return frozenset() if role is None else role.channels


def _within_ns(control: str, standing: Standing) -> int:
    role = _role(control, standing)
    return CONFIRM_WITHIN_NS if role is None else role.within_s * SECOND_NS


def _places(alternative: Sequence[str], standing: Standing) -> tuple[str, ...] | None:
    """One for each person who is wanted; None if a control is nobody's to give."""
    places: list[str] = []
    for control in alternative:
        wanted = quorum(control, standing)
        if not wanted:
            return None
        places.extend([control] * wanted)
    return tuple(places) or None


def _seated(places: Sequence[str], given: Mapping[PersonId, frozenset[str]]) -> frozenset[int]:
    """Which places distinct people can take at once: a maximum matching by augmenting paths."""
    seats: dict[int, PersonId] = {}
    taken = frozenset[int]()
    for person in sorted(given):
        if _sit(person, places, given, seats, set()):
            taken = frozenset(seats)
            if len(taken) == len(places):
                break
    return taken


def _sit(
    person: PersonId,
    places: Sequence[str],
    given: Mapping[PersonId, frozenset[str]],
    seats: dict[int, PersonId],
    tried: set[int],
) -> bool:
    for n, control in enumerate(places):
        if n in tried or control not in given[person]:
            continue
        tried.add(n)
        holder = seats.get(n)
        if holder is None or _sit(holder, places, given, seats, tried):
            seats[n] = person
            return True
    return False
