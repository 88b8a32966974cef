"""What else Cedar would permit where it does not permit the call as it is (decisions.md, Outcomes).  Pure.

In this order: narrowed; with controls that the gateway fulfils itself; with approvals.  Cedar decides each
try and stays the only authority: a wrong proposal loses convenience and opens nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from exeat.core.controls import APPROVED_BY, CONFIRMED_BY_USER, Controls, Fulfilled
from exeat.core.decision import Reason
from exeat.core.facts import ToolFacts
from exeat.policy.encode import Refused
from exeat.policy.narrow import dry, lawful, proposals
from exeat.policy.question import Outcome
from exeat.policy.slices import Slice

TRIES_MAX: Final = 64
"""Questions to Cedar beyond the first; then the call is denied as it is."""
REFUSALS: Final = frozenset({Reason.NOT_PERMITTED, Reason.FORBIDDEN, Reason.USER_NOT_PERMITTED})
"""Only what policy alone refused can be permitted otherwise."""

Say = Callable[[Mapping[str, Any], frozenset[str]], Outcome]
"""Cedar's word on these arguments with these controls.  May raise Refused."""


@dataclass(frozen=True, slots=True)
class Way:
    """``arguments``: as they would leave.  ``hold``: sets of controls of which people have to give one;
    empty: nobody has to be asked."""

    outcome: Outcome
    arguments: Mapping[str, Any]
    fulfilled: tuple[Fulfilled, ...] = ()
    hold: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """``parts``: the policies that decide it, the agent's and the user's.  ``given``: controls proven
    already.  ``solo``: there is one person, who may confirm what nobody else could approve (APP-3)."""

    parts: Sequence[Slice]
    tool: ToolFacts | None
    arguments: Mapping[str, Any]
    given: frozenset[str]
    known: Controls
    solo: bool
    has_result: bool


def otherwise(asked: Asked, say: Say) -> Way | None:
    """The first way that Cedar permits, or None."""
    named = frozenset().union(*(part.controls for part in asked.parts))
    if not named and not any(part.narrows for part in asked.parts):
        return None
    tries = _Tries(asked, say)
    try:
        return tries.narrowed() or tries.fulfilled(named) or tries.approved(named)
    except _Enough:
        return None


class _Enough(Exception):
    pass


class _Tries:
    def __init__(self, asked: Asked, say: Say) -> None:
        self._asked, self._say = asked, say
        self._left = TRIES_MAX
        self._smaller = list(self._proposals())
        self._sets: list[tuple[Fulfilled, ...]] = []

    def _proposals(self) -> Iterator[Mapping[str, Any]]:
        asked = self._asked
        if asked.tool is None:
            return
        for part in asked.parts:
            for proposed in proposals(part, asked.tool, asked.arguments):
                if lawful(asked.tool, asked.arguments, proposed):
                    yield proposed

    def _try(
        self, arguments: Mapping[str, Any], fulfilled: Sequence[Fulfilled], people: frozenset[str]
    ) -> Way | None:
        if self._left <= 0:
            raise _Enough
        self._left -= 1
        if any(each.dry_run for each in fulfilled):
            flagged = dry(self._asked.tool, arguments)
            if flagged is None:
                return None
            arguments = flagged
        controls = self._asked.given | people | {each.name for each in fulfilled}
        try:
            outcome = self._say(arguments, controls)
        except Refused:  # the smaller call would be no call of this tool
            return None
        if outcome.reason is not Reason.PERMITTED:
            return None
        return Way(outcome, arguments, tuple(fulfilled))

    def narrowed(self) -> Way | None:
        for arguments in self._smaller:
            if (way := self._try(arguments, (), frozenset())) is not None:
                return way
        return None

    def fulfilled(self, named: frozenset[str]) -> Way | None:
        own = [each for name, each in self._asked.known.fulfilled.items() if name in named]
        if not self._asked.has_result:
            own = []
        self._sets = [*((each,) for each in own), *((tuple(own),) if len(own) > 1 else ())]
        for arguments in (self._asked.arguments, *self._smaller):
            for chosen in self._sets:
                if (way := self._try(arguments, chosen, frozenset())) is not None:
                    return self._least(way, arguments)
        return None

    def _least(self, way: Way, arguments: Mapping[str, Any]) -> Way:
        """Without what it does not need."""
        for each in way.fulfilled if len(way.fulfilled) > 1 else ():
            fewer = tuple(other for other in way.fulfilled if other is not each)
            if fewer and (found := self._try(arguments, fewer, frozenset())) is not None:
                way = found
        return way

    def approved(self, named: frozenset[str]) -> Way | None:
        asked = self._asked
        people = [role.control for role in asked.known.approvers.values() if role.control in named]
        if asked.solo and CONFIRMED_BY_USER in named:
            people.append(CONFIRMED_BY_USER)
        people = [each for each in people if each not in asked.given]
        for arguments in (asked.arguments, *self._smaller) if people else ():
            for chosen in ((), *self._sets):
                way = self._alternatives(arguments, chosen, people)
                if way is not None:
                    return way
        return None

    def _alternatives(
        self, arguments: Mapping[str, Any], chosen: Sequence[Fulfilled], people: list[str]
    ) -> Way | None:
        """One answer that suffices, whosever it is; else as few as suffice together."""
        ways = [(each, self._try(arguments, chosen, frozenset({each}))) for each in people]
        alone = [(each, way) for each, way in ways if way is not None]
        if alone:
            way = alone[0][1]
            asking = {policy for _, each in alone for policy in each.outcome.policies}
            outcome = replace(way.outcome, policies=tuple(sorted(asking)))
            return Way(outcome, way.arguments, way.fulfilled, tuple((each,) for each, _ in alone))
        needed = [each for each in people if each.startswith(APPROVED_BY)]
        if len(needed) < 2:
            return None
        found = self._try(arguments, chosen, frozenset(needed))
        if found is None:
            return None
        for each in tuple(needed):
            fewer = [other for other in needed if other != each]
            if len(fewer) > 1 and (less := self._try(arguments, chosen, frozenset(fewer))):
                needed, found = fewer, less
        return Way(found.outcome, found.arguments, found.fulfilled, (tuple(sorted(needed)),))
