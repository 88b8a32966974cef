"""Authorizations: given by a person, turned into tokens, taken back."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from exeat.core.ids import AgentId, PersonId
from exeat.identity.authorization.model.client import CREDENTIALS, REFRESH, Client
from exeat.identity.authorization.model.doing import ITSELF, SECOND_NS, Doing
from exeat.identity.authorization.model.grant import (
    ACCESS_LIFE_MAX_S,
    CODE_LIFE_S,
    GRANT_LIFE_DAYS,
    REFRESH_IDLE_DAYS,
    Code,
    Grant,
    Refresh,
    handle_digest,
)
from exeat.identity.authorization.model.refusal import Refused, invalid_grant
from exeat.identity.authorization.rules.asking import Asking
from exeat.identity.authorization.rules.parameters import need
from exeat.identity.authorization.rules.pkce import verifier_matches
from exeat.identity.authorization.rules.resources import Resources
from exeat.identity.authorization.rules.scopes import narrowed, read_scopes
from exeat.identity.authorization.service.tokens import Draw, Issued, Mint
from exeat.identity.authorization.store import AuthorizationChange, AuthorizationStore

End = Callable[[str, int, Doing], None]
"""Registry.end_tokens: from the next snapshot on, all gateways refuse tokens of that ``grant`` or
``jti``; until nanoseconds."""
HANDLE_RANDOM_BYTES: Final = 32
GRANT_RANDOM_BYTES: Final = 8
DAY_NS: Final = 86_400 * SECOND_NS
_INVALID_CODE: Final = "The code is unknown, used or too old."
_INVALID_REFRESH: Final = "The refresh token is unknown, used, or has ended."


class Grants:
    """Every verb raises Refused, and then nothing has changed but what its text says."""

    def __init__(
        self, store: AuthorizationStore, mint: Mint, resources: Resources, draw: Draw, end: End
    ) -> None:
        self._store, self._mint, self._resources = store, mint, resources
        self._draw, self._end = draw, end

    # ---- given by a person

    def approve(self, asking: Asking, person: PersonId, agent: AgentId | None, doing: Doing) -> str:
        """A code for the client, single use, CODE_LIFE_S seconds.  What may be remembered is."""
        grant = Grant(
            self._id(),
            asking.client.id,
            person,
            agent,
            asking.resource.uri,
            asking.scopes,
            doing.at,
            doing.at + GRANT_LIFE_DAYS * DAY_NS,
        )
        code = self._handle()
        with self._store.change() as tx:
            if not tx.person_live(person):
                raise Refused("access_denied", "The person has departed.")
            tx.sweep(doing.at)
            tx.save_grant(grant)
            tx.add_code(
                Code(
                    handle_digest(code),
                    grant.id,
                    asking.redirect_uri,
                    asking.challenge,
                    doing.at + CODE_LIFE_S * SECOND_NS,
                    jkt=asking.jkt,
                )
            )
            if not asking.impersonable:
                tx.consent(consent_key(asking, person), person, grant.client, grant.ends_at)
            after = {**grant.as_json(), "redirect": asking.redirect.origin}
            tx.tell(doing.event("authorization.granted", grant.subject, None, after))
        return code

    def consented(self, asking: Asking, person: PersonId, now: int) -> bool:
        """Whether the person said yes to exactly this before."""
        if asking.impersonable:
            return False
        with self._store.read() as read:
            return read.consented(consent_key(asking, person), now)

    # ---- turned into tokens

    def redeem(self, client: Client, form: Mapping[str, str], now: int, jkt: str = "") -> Issued:
        """OAuth 2.1 4.1.3.  A code that comes twice takes back what came of it the first time."""
        digest = handle_digest(need(form, "code"))
        reused: Grant | None = None
        with self._store.change() as tx:
            code = tx.take_code(digest)
            grant = tx.grant(code.grant) if code is not None else None
            if code is None or grant is None or grant.client != client.id:
                raise invalid_grant(_INVALID_CODE)
            if code.used:
                reused = grant
            else:
                self._check_code(code, grant, form, now, jkt)
                self._check_person(tx, grant, now)
                return self._tokens(tx, client, grant, grant.scopes, now, jkt)
        assert reused is not None  # noqa: S101
        self.revoke(reused.id, Doing(ITSELF, "oauth", now, "a code was presented twice"))
        raise invalid_grant(_INVALID_CODE)

    def _check_code(
        self, code: Code, grant: Grant, form: Mapping[str, str], now: int, jkt: str
    ) -> None:
        """What fails here leaves the code as it was: without the verifier it is worth nothing."""
        if code.ends_at <= now:
            raise invalid_grant(_INVALID_CODE)
        if form.get("redirect_uri", code.redirect_uri) != code.redirect_uri:
            raise invalid_grant("The redirect URI is not that of the authorization request.")
        if not verifier_matches(code.challenge, need(form, "code_verifier")):
            raise invalid_grant("The code verifier does not fit the challenge.")
        if code.jkt and code.jkt != jkt:
            raise invalid_grant("The code is bound to another key.")
        self._same_resource(grant, form)

    def renew(self, client: Client, form: Mapping[str, str], now: int, jkt: str = "") -> Issued:
        """OAuth 2.1 4.3: a new refresh token each time; an old one that comes again takes back the
        whole authorization, as one of the two who had it is a thief."""
        digest = handle_digest(need(form, "refresh_token"))
        with self._store.change() as tx:
            token = tx.refresh(digest)
            grant = tx.grant(token.grant) if token is not None else None
            if token is None or grant is None or grant.client != client.id:
                raise invalid_grant(_INVALID_REFRESH)
            if not token.used:
                if token.ends_at <= now:
                    raise invalid_grant(_INVALID_REFRESH)
                if token.jkt and token.jkt != jkt:
                    raise invalid_grant("The refresh token is bound to another key.")
                self._same_resource(grant, form)
                self._check_person(tx, grant, now)
                scopes = narrowed(grant.scopes, form.get("scope", ""))
                tx.take_refresh(digest)
                return self._tokens(tx, client, grant, scopes, now, jkt)
        self.revoke(grant.id, Doing(ITSELF, "oauth", now, "a refresh token was used twice"))
        raise invalid_grant(_INVALID_REFRESH)

    def by_credentials(
        self, client: Client, form: Mapping[str, str], now: int, jkt: str = ""
    ) -> Issued:
        """RFC 6749 4.4: the agent acts for nobody.  Only a client that is one agent has this grant."""
        if client.agent is None or CREDENTIALS not in client.grants:
            raise Refused("unauthorized_client", "This client is no agent by itself.")
        with self._store.change() as tx:
            agent = tx.agent(client.agent)
            if agent is None or not agent.usable(now):
                raise Refused("unauthorized_client", "The agent of this client is not active.")
            resource = self._resources.find(need(form, "resource"), tx.servers())
            scopes = read_scopes(form.get("scope", ""))
            end = min(now + self._mint.life_s * SECOND_NS, client.ends_at)
            grant = Grant(self._id(), client.id, None, client.agent, resource.uri, scopes, now, end)
            tx.sweep(now)
            tx.save_grant(grant)
        return self._mint.issue(grant, client.id, scopes, now, more=bound_to(jkt))

    def _tokens(
        self,
        tx: AuthorizationChange,
        client: Client,
        grant: Grant,
        scopes: tuple[str, ...],
        now: int,
        jkt: str,
    ) -> Issued:
        assert grant.person is not None  # noqa: S101 - a code or refresh token comes of a person
        issued = self._mint.issue(grant, grant.person, scopes, now, more=bound_to(jkt))
        if REFRESH not in client.grants:
            return issued
        handle = self._handle()
        end = min(now + REFRESH_IDLE_DAYS * DAY_NS, grant.ends_at)
        tx.add_refresh(
            Refresh(handle_digest(handle), grant.id, end, jkt="" if client.confidential else jkt)
        )
        return Issued(issued.access_token, issued.expires_in, issued.scopes, issued.bound, handle)

    def _check_person(self, tx: AuthorizationChange, grant: Grant, now: int) -> None:
        if not grant.live(now):
            raise invalid_grant("The authorization has ended.")
        if grant.person is None or not tx.person_live(grant.person):
            raise invalid_grant("The person has departed.")

    def _same_resource(self, grant: Grant, form: Mapping[str, str]) -> None:
        """RFC 8707 2.2: the one of the authorization, or none said."""
        asked = form.get("resource")
        if asked is not None and self._resources.canonical(asked) != grant.resource:
            raise Refused("invalid_target", "The resource is not that of the authorization.")

    # ---- taken back

    def revoke(self, grant_id: str, doing: Doing) -> None:
        """Its refresh tokens are void at once, its access tokens at every gateway's next look.
        Twice is harmless."""
        end_grant(self._store, grant_id, doing)
        self._end(grant_id, doing.at + ACCESS_LIFE_MAX_S * SECOND_NS, doing)

    def revoke_token(self, client: Client, token: str, now: int) -> None:
        """RFC 7009: of a refresh token, the authorization; of an access token, it alone.  What is
        unknown, or another client's, is left alone, and the answer is the same."""
        doing = Doing(ITSELF, "oauth", now, "the client gave it back")
        with self._store.read() as read:
            refresh = read.refresh(handle_digest(token))
            grant = read.grant(refresh.grant) if refresh is not None else None
        if grant is not None:
            if grant.client == client.id:
                self.revoke(grant.id, doing)
            return
        try:
            claims = self._mint.read(token, now)
        except Refused:
            return
        if claims["client_id"] == client.id:
            self._end(str(claims["jti"]), int(claims["exp"]) * SECOND_NS, doing)

    def _id(self) -> str:
        return f"g-{self._draw(GRANT_RANDOM_BYTES).hex()}"

    def _handle(self) -> str:
        return self._draw(HANDLE_RANDOM_BYTES).hex()


def end_grant(store: AuthorizationStore, grant_id: str, doing: Doing) -> None:
    """Raises Refused if there is none.  Its access tokens are still to be ended."""
    with store.change() as tx:
        grant = tx.grant(grant_id)
        if grant is None:
            raise Refused("invalid_request", "There is no such authorization.", status=404)
        if grant.revoked:
            return
        gone = grant.revoke()
        tx.save_grant(gone)
        if grant.person is not None:
            tx.forget_consents(grant.person, grant.client)
        before, after = grant.as_json(), gone.as_json()
        tx.tell(doing.event("authorization.revoked", grant.subject, before, after))


def consent_key(asking: Asking, person: PersonId) -> bytes:
    """What a remembered consent covers: this person, client, redirect host, resource and scopes."""
    parts = (
        person, asking.client.id, asking.redirect.origin, asking.resource.uri, *asking.scopes,
    )  # fmt: skip
    return handle_digest("\n".join(parts))


def bound_to(jkt: str) -> dict[str, Any]:
    """RFC 9449 6.1: the thumbprint of the key that must sign each use of the token."""
    return {"cnf": {"jkt": jkt}} if jkt else {}
