"""Answering: an authenticated person approves or denies what was shown (APP-2, APP-3, APP-6)."""

from dataclasses import dataclass, replace
from typing import Final

from exeat.approvals.model.bounds import Bounds
from exeat.approvals.model.exact import exact
from exeat.approvals.model.grant import Grant
from exeat.approvals.model.hold import MINUTE_NS, Answer, Hold, HoldState, Shown, Word, committed
from exeat.approvals.model.standing import Standing
from exeat.approvals.rules import authority
from exeat.approvals.rules.fitting import check
from exeat.approvals.service.claims import Draw, asked_kind, new_id, told
from exeat.approvals.service.sealing import Extent, open_hold, seal_bounds, seal_extent
from exeat.approvals.store import ApprovalsChange, ApprovalsStore, Seals
from exeat.core.controls import CONFIRMED_BY_USER, Channel
from exeat.core.errors import Conflict, ExeatError, Invalid, NotFound
from exeat.core.event import Event
from exeat.core.ids import PersonId

USE_WITHIN_NS: Final = 60 * MINUTE_NS
REASON_MAX_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Said:
    """What a person says, and how we know that it was that person.  ``bounds``: an approval that is to
    become a grant; None: this one call only.  ``via``: the channel as evidence shows it (``cli:1000``),
    else its name."""

    person: PersonId
    channel: Channel
    word: Word
    reason: str = ""
    bounds: Bounds | None = None
    via: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """What a webhook carried the answer in.  ``id``: taken once.  ``until``: nanoseconds after which its
    time stamp is refused anyway."""

    id: str
    until: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """``missing``: while it is still pending, for each alternative the controls that are wanted."""

    hold: Hold
    grant: Grant | None = None
    missing: tuple[tuple[str, ...], ...] = ()


class Answers:
    def __init__(self, store: ApprovalsStore, seals: Seals, draw: Draw) -> None:
        self._store, self._seals, self._draw = store, seals, draw

    def answer(self, hold: str, said: Said, standing: Standing, now: int) -> Outcome:
        """Durable with its event once it returns.  Of two at once, one wins.

        Raises NotFound, Conflict (decided, expired, not for this person, said already), Invalid
        (reason, bounds), VaultFailed (nobody approves what cannot be shown).
        """
        self._prepare(said)
        with self._store.change() as tx:
            return self._answer(tx, hold, said, standing, now)

    def answer_once(
        self, message: Message, hold: str, said: Said, standing: Standing, now: int
    ) -> Outcome:
        """The same for a signed message: a second one of its id is a Conflict, whatever became of the
        first."""
        self._prepare(said)
        with self._store.change() as tx:
            if not tx.first_message(message.id, message.until, now):
                raise Conflict(
                    "This message was taken before.",
                    remedy="Send each answer under an id of its own.",
                )
            try:
                return self._answer(tx, hold, said, standing, now)
            except ExeatError as error:  # nothing was written but that the message came
                refused = error
        raise refused

    def _prepare(self, said: Said) -> None:
        _check_reason(said.reason)
        if said.word is Word.APPROVE:
            self._seals.ready()

    def _answer(
        self, tx: ApprovalsChange, id: str, said: Said, standing: Standing, now: int
    ) -> Outcome:
        """All that can be refused is refused before anything is written."""
        hold = _open(tx, id, said, now)
        given = authority.gives(hold, said.person, said.channel, now, standing)
        if not given:
            raise _may_not(hold, said, standing)
        answer = Answer(said.person, said.word, said.channel, now, said.reason, given)
        if said.word is Word.DENY:
            others = (each for each in hold.answers if each.person != said.person)
            denied = replace(
                hold, state=HoldState.DENIED, decided_at=now, answers=(*others, answer)
            )
            return self._close(tx, hold, denied, answer, asked_kind("denied", hold), said)
        shown = open_hold(self._seals, hold)
        if said.bounds is not None:
            if CONFIRMED_BY_USER in given:
                raise Invalid(
                    "A confirmation is for one call and never becomes a grant.",
                    remedy="Confirm this call alone.",
                )
            check(said.bounds, shown.leaving, now)
            sealed = seal_bounds(self._seals, hold, said.person, said.bounds)
            answer = replace(
                answer, bounds=committed(shown.salt, exact(said.bounds.as_json())), sealed=sealed
            )
        return self._approved(tx, hold, answer, said, shown, standing)

    def _approved(
        self,
        tx: ApprovalsChange,
        before: Hold,
        answer: Answer,
        said: Said,
        shown: Shown,
        standing: Standing,
    ) -> Outcome:
        """Enough people for a grant of the same bounds, else enough for this one call, else pending."""
        hold = replace(before, answers=(*before.answers, answer))
        given = authority.still(hold.approvals, hold.binding, standing)
        enough = authority.suffices(hold.alternatives, given, standing)
        if enough is None:
            tx.add_answer(hold.id, answer, _event("approval.answered", hold, answer, said))
            return Outcome(hold, None, authority.missing(hold.alternatives, given, standing))
        kind = "hold.confirmed" if enough == {CONFIRMED_BY_USER} else "approval.approved"
        grant = self._grant(hold, answer, said.bounds, shown, standing)
        if grant is None:
            until = answer.at + USE_WITHIN_NS
            after = replace(hold, state=HoldState.APPROVED, decided_at=answer.at, use_by=until)
        else:
            after = replace(hold, state=HoldState.GRANTED, decided_at=answer.at, grant=grant.id)
        outcome = self._close(tx, before, after, answer, kind, said)
        if grant is None:
            return outcome
        issued = _event("grant.issued", hold, answer, said)
        tx.add_grant(grant, replace(issued, subject=grant.subject, after=grant.as_json()))
        return replace(outcome, grant=grant)

    @staticmethod
    def _close(
        tx: ApprovalsChange, before: Hold, after: Hold, answer: Answer, kind: str, said: Said
    ) -> Outcome:
        if not tx.move(after, before.state, _event(kind, after, answer, said)):
            raise _decided(before.id, "meanwhile")
        tx.add_answer(before.id, answer, None)
        return Outcome(after)

    def _grant(
        self,
        hold: Hold,
        answer: Answer,
        bounds: Bounds | None,
        shown: Shown,
        standing: Standing,
    ) -> Grant | None:
        """None unless those who proposed these very bounds suffice by themselves."""
        if bounds is None:
            return None
        agreed = (each for each in hold.approvals if each.bounds == answer.bounds)
        given = authority.still(agreed, hold.binding, standing)
        controls = authority.suffices(hold.alternatives, given, standing)
        if controls is None:
            return None
        id = new_id("g", self._draw)
        sealed = seal_extent(self._seals, id, Extent(shown.leaving, bounds, shown.beside))
        return Grant(
            id, hold.binding, controls, hold.id, answer.bounds, sealed, bounds.any_run,
            bounds.uses, bounds.uses, answer.at, bounds.until,
        )  # fmt: skip


def _event(kind: str, hold: Hold, answer: Answer, said: Said) -> Event:
    channel = said.via or answer.channel.value
    event = told(kind, hold, answer.at, answer.person, channel, answer.reason)
    more = {"bounds": answer.bounds, "controls": sorted(answer.controls)}
    return replace(event, after={**(event.after or {}), **more})


def _open(tx: ApprovalsChange, id: str, said: Said, now: int) -> Hold:
    hold = tx.hold(id)
    if hold is None:
        raise NotFound(f"There is no held call {id[:40]!r}.", remedy="exeat approvals list")
    if hold.state is not HoldState.PENDING:
        raise _decided(id, hold.state.value)
    if now >= hold.expires_at:
        raise Conflict(
            f"Nobody answered {id} in time: it is expired, and the answer was no.",
            remedy="When the agent calls again, it is asked again.",
        )
    for each in hold.answers:
        reconsidered = each.word is Word.APPROVE and said.word is Word.DENY
        if each.person == said.person and not reconsidered:
            raise Conflict(
                f"{said.person} has already answered {id}: {each.word}.",
                remedy=f"Somebody else must answer; to take it back: exeat approvals deny {id}",
            )
    return hold


def _decided(id: str, state: str) -> Conflict:
    return Conflict(
        f"{id} was decided before: {state}.",
        remedy=f"exeat approvals show {id}",
    )


def _may_not(hold: Hold, said: Said, standing: Standing) -> Conflict:
    """Says which of its rules the answer meets first."""
    person, b = said.person, hold.binding
    if not standing.live(person):
        return Conflict(f"{person} is not a live person here.", remedy="exeat person list")
    asked = authority.controls(hold.alternatives)
    could = [c for c in asked if authority.stands(c, person, b, standing)]
    if could:
        through = sorted({c for each in could for c in authority.channels(each, standing)})
        return Conflict(
            f"{said.channel} is not enough for {', '.join(could)}, or its time is over.",
            remedy=f"Answer through: {', '.join(through)}.",
        )
    if person == b.user:
        return Conflict(
            f"The agent acts for {person}: who asks for something never approves it.",
            remedy="Ask one of: " + (", ".join(hold.asked) or "nobody"),
        )
    return Conflict(
        f"{person} may not answer {hold.id}: it asks for {' or '.join(asked)}.",
        remedy="Ask one of: " + (", ".join(hold.asked) or "nobody"),
    )


def _check_reason(reason: str) -> None:
    if len(reason) > REASON_MAX_CHARS or not reason.isprintable():
        raise Invalid(
            "The reason is long or holds control characters.",
            remedy=f"Say it in one line of at most {REASON_MAX_CHARS} characters.",
        )
