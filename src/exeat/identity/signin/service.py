"""People's sign-in: a one-time link, then passkeys (WebAuthn Level 3); there is no password (ID-8)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import webauthn
from webauthn.helpers import (
    options_to_json_dict,
    parse_authentication_credential_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticationCredential,
    AuthenticatorSelectionCriteria,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from exeat.core.errors import Conflict, NotFound, Unauthenticated
from exeat.core.ids import PersonId
from exeat.identity.authorization.model.doing import SECOND_NS, Doing
from exeat.identity.authorization.model.grant import handle_digest
from exeat.identity.signin.model import (
    CHALLENGE_LIFE_S,
    LINK_LIFE_S,
    LINK_SESSION_LIFE_S,
    PASSKEYS_MAX,
    SEEN_EVERY_S,
    SESSION_IDLE_S,
    SESSION_LIFE_S,
    Challenge,
    Link,
    Method,
    Passkey,
    Session,
    user_handle,
)
from exeat.identity.signin.store import SignInChange, SignInStore

HANDLE_RANDOM_BYTES: Final = 32
PASSKEY_ID_RANDOM_BYTES: Final = 6
CHANNEL: Final = "console"
_ENDED: Final = "This page was open too long, or was used before."
_REFUSED: Final = "The passkey could not be verified."
Draw = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """WebAuthn 5.4.2: ``id`` is a host name; ``origin`` as the browser writes it."""

    id: str
    origin: str


class SignIn:
    """Every verb raises NotFound, Conflict or Unauthenticated, and then nothing has changed."""

    def __init__(self, store: SignInStore, party: RelyingParty, draw: Draw) -> None:
        self._store, self._party, self._draw = store, party, draw

    # ---- one-time links

    def make_link(self, person: PersonId, doing: Doing) -> str:
        """A token for one sign-in within LINK_LIFE_S; it replaces an older one of that person.  Takes an
        admin."""
        with self._store.change() as tx:
            if not tx.is_admin(doing.actor):
                raise Conflict(
                    f"{doing.actor} may not make links: that takes the role admin.",
                    remedy="Ask an admin.",
                )
            return self._link(tx, person, doing)

    def make_first_link(self, person: PersonId, doing: Doing) -> str:
        """The same for who starts exeat, as long as nobody has a passkey; then Conflict."""
        with self._store.change() as tx:
            if tx.any_passkey():
                raise Conflict("Somebody has a passkey.", remedy="Run `exeat person link NAME`.")
            return self._link(tx, person, doing)

    def _link(self, tx: SignInChange, person: PersonId, doing: Doing) -> str:
        if not tx.person_live(person):
            raise NotFound(f"There is no live person {person}.", remedy="See `exeat person list`.")
        token = self._handle()
        tx.sweep(doing.at)
        end = doing.at + LINK_LIFE_S * SECOND_NS
        tx.add_link(Link(handle_digest(token), person, end))
        tx.tell(doing.event("link.made", f"person:{person}", None, {"person": person}))
        return token

    def link_stands(self, token: str, now: int) -> bool:
        with self._store.read() as read:
            link = read.link(handle_digest(token))
        return link is not None and not link.used and link.ends_at > now

    def use_link(self, token: str, now: int) -> tuple[str, Session]:
        """A session, and the cookie that is its only key."""
        with self._store.change() as tx:
            link = tx.link(handle_digest(token))
            if link is None or link.used or link.ends_at <= now or not tx.person_live(link.person):
                raise Unauthenticated(
                    "This link is unknown, was used, or is older than 15 minutes.",
                    remedy="An admin makes a new one with `exeat person link NAME`.",
                )
            tx.use_link(link.digest)
            doing = Doing(link.person, CHANNEL, now, "signed in with a one-time link")
            tx.tell(doing.event("link.used", f"person:{link.person}", None, None))
            return self._session(tx, link.person, Method.LINK, now)

    # ---- sessions

    def session(self, cookie: str, now: int) -> Session | None:
        """ID-8: of a live person, neither too old nor unused for too long."""
        if not cookie:
            return None
        with self._store.read() as read:
            found = read.session(handle_digest(cookie))
            live = found is not None and read.person_live(found.person)
        if found is None or not live:
            return None
        if found.ends_at <= now or found.seen_at + SESSION_IDLE_S * SECOND_NS <= now:
            return None
        if found.seen_at + SEEN_EVERY_S * SECOND_NS <= now:
            with self._store.change() as tx:
                tx.seen(found.digest, now)
        return found

    def sign_out(self, cookie: str) -> None:
        with self._store.change() as tx:
            tx.end_session(handle_digest(cookie))

    def _session(
        self, tx: SignInChange, person: PersonId, method: Method, now: int
    ) -> tuple[str, Session]:
        cookie = self._handle()
        life = SESSION_LIFE_S if method is Method.PASSKEY else LINK_SESSION_LIFE_S
        made = Session(handle_digest(cookie), person, method, now, now, now + life * SECOND_NS)
        tx.add_session(made)
        return cookie, made

    # ---- enrolment

    def begin_enrolment(self, cookie: str, session: Session, now: int) -> dict[str, Any]:
        """What ``navigator.credentials.create()`` needs."""
        challenge = self._draw(HANDLE_RANDOM_BYTES)
        with self._store.change() as tx:
            present = tx.passkeys_of(session.person)
            if len(present) >= PASSKEYS_MAX:
                raise Conflict("There are too many passkeys.", remedy="Remove one first.")
            tx.sweep(now)
            tx.put_challenge(self._challenge("enrol", cookie, challenge, session.person, now))
        options = webauthn.generate_registration_options(
            rp_id=self._party.id,
            rp_name="exeat",
            user_name=session.person,
            user_id=user_handle(session.person),
            challenge=challenge,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                require_resident_key=True,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(p.credential) for p in present],
        )
        return options_to_json_dict(options)

    def finish_enrolment(
        self, cookie: str, session: Session, said: dict[str, Any], now: int
    ) -> tuple[str, Session]:
        """The passkey is kept, and the session starts anew as one of a passkey."""
        waiting = self._take("enrol", cookie, now)
        if waiting.person != session.person:
            raise Unauthenticated(_ENDED)
        try:
            verified = webauthn.verify_registration_response(
                credential=said,
                expected_challenge=waiting.challenge,
                expected_rp_id=self._party.id,
                expected_origin=self._party.origin,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, KeyError, TypeError):
            raise Unauthenticated(_REFUSED, remedy="Try again on this page.") from None
        passkey = Passkey(
            f"pk-{self._draw(PASSKEY_ID_RANDOM_BYTES).hex()}",
            session.person,
            verified.credential_id,
            verified.credential_public_key,
            verified.sign_count,
            now,
            now,
            verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        )
        with self._store.change() as tx:
            if not tx.person_live(session.person) or tx.session(session.digest) is None:
                raise Unauthenticated(_ENDED)
            if tx.passkey_by(passkey.credential) is not None:
                raise Conflict("This passkey is known already.")
            tx.add_passkey(passkey)
            doing = Doing(session.person, CHANNEL, now, "enrolled by its owner")
            tx.tell(doing.event("passkey.enrolled", passkey.subject, None, passkey.as_json()))
            tx.end_session(session.digest)
            return self._session(tx, session.person, Method.PASSKEY, now)

    def passkeys_of(self, person: PersonId) -> tuple[Passkey, ...]:
        with self._store.read() as read:
            return read.passkeys_of(person)

    def any_passkey(self) -> bool:
        with self._store.read() as read:
            return read.any_passkey()

    def remove_passkey(self, passkey: str, person: PersonId, doing: Doing) -> Passkey:
        """By its owner or an admin; the person's sessions end, as whoever holds it may be in one."""
        with self._store.change() as tx:
            if doing.actor != person and not tx.is_admin(doing.actor):
                raise Conflict(f"{doing.actor} may not remove passkeys of others.")
            for each in tx.passkeys_of(person):
                if each.id == passkey:
                    tx.remove_passkey(each.id)
                    tx.end_sessions_of(person)
                    tx.tell(doing.event("passkey.removed", each.subject, each.as_json(), None))
                    return each
        raise NotFound(f"{person} has no passkey {passkey}.")

    # ---- sign-in

    def begin_sign_in(self, visit: str, now: int) -> dict[str, Any]:
        """What ``navigator.credentials.get()`` needs.  ``visit``: what only this browser holds."""
        challenge = self._draw(HANDLE_RANDOM_BYTES)
        with self._store.change() as tx:
            tx.sweep(now)
            tx.put_challenge(self._challenge("sign-in", visit, challenge, None, now))
        return self._options(challenge)

    def _options(self, challenge: bytes) -> dict[str, Any]:
        options = webauthn.generate_authentication_options(
            rp_id=self._party.id,
            challenge=challenge,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return options_to_json_dict(options)

    def _shown(self, said: dict[str, Any]) -> tuple[AuthenticationCredential, Passkey]:
        """What the browser says, and the passkey that it names.  Raises Unauthenticated."""
        try:
            shown = parse_authentication_credential_json(said)
        except (WebAuthnException, ValueError, KeyError, TypeError):
            raise Unauthenticated(_REFUSED) from None
        with self._store.read() as read:
            known = read.passkey_by(shown.raw_id)
        if known is None or shown.response.user_handle != user_handle(known.person):
            raise Unauthenticated(_REFUSED, remedy="It may have been removed; ask for a link.")
        return shown, known

    # ---- one answer

    def begin_answer(self, cookie: str, session: Session, about: str, now: int) -> dict[str, Any]:
        """What ``navigator.credentials.get()`` needs, to confirm one thing alone.  ``about``: what, in
        full; the challenge serves this session for nothing else."""
        challenge = self._draw(HANDLE_RANDOM_BYTES)
        holder = f"{cookie}\n{about}"
        with self._store.change() as tx:
            tx.sweep(now)
            tx.put_challenge(self._challenge("answer", holder, challenge, session.person, now))
        return self._options(challenge)

    def finish_answer(
        self, cookie: str, session: Session, about: str, said: dict[str, Any], now: int
    ) -> Passkey:
        """Once per challenge, and by a passkey of the session's own person."""
        waiting = self._take("answer", f"{cookie}\n{about}", now)
        shown, known = self._shown(said)
        if known.person != session.person or waiting.person != session.person:
            raise Unauthenticated(_REFUSED, remedy="Use a passkey of your own.")
        count = self._verified(shown, waiting, known)
        with self._store.change() as tx:
            if (
                tx.passkey_by(known.credential) != known
                or not tx.person_live(known.person)
                or tx.session(session.digest) is None
            ):
                raise Unauthenticated(_REFUSED)
            tx.used_passkey(known.id, count, now)
        return known

    # ---- sign-in, finished

    def finish_sign_in(self, visit: str, said: dict[str, Any], now: int) -> tuple[str, Session]:
        """WebAuthn 7.2.  A counter that does not grow means a copied passkey: refused."""
        waiting = self._take("sign-in", visit, now)
        shown, known = self._shown(said)
        count = self._verified(shown, waiting, known)
        with self._store.change() as tx:
            again = tx.passkey_by(known.credential)
            if again != known or not tx.person_live(known.person):
                raise Unauthenticated(_REFUSED)
            tx.used_passkey(known.id, count, now)
            doing = Doing(known.person, CHANNEL, now, "signed in with a passkey")
            tx.tell(
                doing.event(
                    "person.signed_in", f"person:{known.person}", None, {"passkey": known.id}
                )
            )
            return self._session(tx, known.person, Method.PASSKEY, now)

    def _verified(self, shown: AuthenticationCredential, waiting: Challenge, known: Passkey) -> int:
        try:
            return webauthn.verify_authentication_response(
                credential=shown,
                expected_challenge=waiting.challenge,
                expected_rp_id=self._party.id,
                expected_origin=self._party.origin,
                credential_public_key=known.public_key,
                credential_current_sign_count=known.sign_count,
                require_user_verification=True,
            ).new_sign_count
        except (WebAuthnException, ValueError, KeyError, TypeError):
            raise Unauthenticated(_REFUSED) from None

    # ---- ceremonies

    def _challenge(
        self, kind: str, holder: str, challenge: bytes, person: PersonId | None, now: int
    ) -> Challenge:
        end = now + CHALLENGE_LIFE_S * SECOND_NS
        return Challenge(handle_digest(f"{kind}\n{holder}"), challenge, person, end)

    def _take(self, kind: str, holder: str, now: int) -> Challenge:
        """Each answers once, whether it holds or not."""
        with self._store.change() as tx:
            found = tx.take_challenge(handle_digest(f"{kind}\n{holder}"))
        if found is None or found.ends_at <= now:
            raise Unauthenticated(_ENDED, remedy="Load it again.")
        return found

    def _handle(self) -> str:
        return self._draw(HANDLE_RANDOM_BYTES).hex()
