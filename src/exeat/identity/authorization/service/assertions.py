"""ID-JAG: an enterprise's identity provider vouches for a person, and no browser is needed
(draft-ietf-oauth-identity-assertion-authz-grant; the Enterprise-Managed Authorization extension of MCP).

1. the assertion is signed by a trusted issuer, of the right type, for our issuer, and for this client
2. its subject is a person whom the registry knows, and who is live
3. it serves once
4. the token is for the one endpoint that it names, with no more scope and no longer life
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from exeat.core.ids import PersonId
from exeat.identity.authorization.model.client import JWT_BEARER, Client
from exeat.identity.authorization.model.doing import ITSELF, SECOND_NS, Doing
from exeat.identity.authorization.model.grant import Grant, handle_digest
from exeat.identity.authorization.model.refusal import Refused, invalid_grant
from exeat.identity.authorization.rules.parameters import need
from exeat.identity.authorization.rules.resources import Resources
from exeat.identity.authorization.rules.scopes import LEAST, in_order, narrowed
from exeat.identity.authorization.service.grants import GRANT_RANDOM_BYTES, bound_to
from exeat.identity.authorization.service.tokens import Draw, Issued, Mint
from exeat.identity.authorization.store import AuthorizationStore
from exeat.identity.model.token import Claims
from exeat.identity.model.token import Refused as BadToken

Vouched = tuple[Claims, Mapping[str, Any]]
Check = Callable[[str, int], Awaitable[Vouched | BadToken]]
"""Signature, type, issuer and times of an assertion (bytes, now in nanoseconds)."""
Who = Callable[[str, str], PersonId | None]
"""(issuer, subject) → the person whom the registry knows by that."""


class Assertions:
    def __init__(
        self,
        store: AuthorizationStore,
        mint: Mint,
        resources: Resources,
        draw: Draw,
        check: Check,
        who: Who,
    ) -> None:
        self._store, self._mint, self._resources = store, mint, resources
        self._draw, self._check, self._who = draw, check, who

    async def read(self, client: Client, form: Mapping[str, str], now: int) -> Vouched:
        """Step 1.  Raises Refused."""
        if JWT_BEARER not in client.grants or not client.confidential:
            raise Refused("unauthorized_client", "This client may not bring assertions.")
        found = await self._check(need(form, "assertion"), now)
        if isinstance(found, BadToken):
            raise invalid_grant(f"{found.says.replace('token', 'assertion')}.")
        claims, _ = found
        if claims.audience != {self._mint.issuer}:
            raise invalid_grant("The assertion is for another authorization server.")
        if claims.client != client.id:
            raise invalid_grant("The assertion was given to another client.")
        if not claims.subject or not claims.names or claims.actors:
            raise invalid_grant("The assertion lacks a claim that it needs.")
        return found

    def redeem(
        self, client: Client, form: Mapping[str, str], vouched: Vouched, now: int, jkt: str
    ) -> Issued:
        """Steps 2 to 4."""
        claims, raw = vouched
        bound = claims.confirmation
        if bound is not None and (bound.method, bound.thumbprint) != ("dpop", jkt):
            raise invalid_grant("The assertion is bound to a key that was not proven.")
        person = self._who(claims.issuer, claims.subject)
        named = raw.get("resource", form.get("resource"))
        if not isinstance(named, str) or form.get("resource", named) != named:
            raise Refused("invalid_target", "Exactly one endpoint is named as resource.")
        scopes = narrowed(in_order(claims.scopes) or LEAST, form.get("scope", ""))
        end = min(now + self._mint.life_s * SECOND_NS, client.ends_at)
        once = handle_digest(f"jag\n{claims.names[0]}")
        with self._store.change() as tx:
            if person is None or not tx.person_live(person):
                raise invalid_grant("The assertion is of nobody who is registered here.")
            if not tx.first_use(once, claims.expires_at):
                raise invalid_grant("The assertion was used before.")
            resource = self._resources.find(named, tx.servers())
            name = f"g-{self._draw(GRANT_RANDOM_BYTES).hex()}"
            grant = Grant(name, client.id, person, None, resource.uri, scopes, now, end)
            tx.sweep(now)
            tx.save_grant(grant)
            doing = Doing(ITSELF, "oauth", now, f"vouched for by {claims.issuer}")
            tx.tell(doing.event("authorization.granted", grant.subject, None, grant.as_json()))
        return self._mint.issue(grant, person, scopes, now, more=bound_to(jkt))
