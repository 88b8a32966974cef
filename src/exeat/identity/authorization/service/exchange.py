"""Token exchange (RFC 8693): an agent goes on with somebody else's token, and the chain shows it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from exeat.core.ids import PersonId
from exeat.identity.authorization.model.client import EXCHANGE, Client
from exeat.identity.authorization.model.doing import ITSELF, SECOND_NS, Doing
from exeat.identity.authorization.model.grant import CHAIN_MAX, Grant
from exeat.identity.authorization.model.refusal import Refused, invalid_grant
from exeat.identity.authorization.rules.parameters import need
from exeat.identity.authorization.rules.resources import Resources
from exeat.identity.authorization.rules.scopes import in_order, narrowed
from exeat.identity.authorization.service.grants import bound_to
from exeat.identity.authorization.service.tokens import ACCESS_TOKEN_TYPE, Issued, Mint
from exeat.identity.authorization.store import AuthorizationChange, AuthorizationStore

Claims = Mapping[str, Any]


class Exchange:
    """The new token has the subject of the first and the actor in front of its chain; never more
    scope than the subject's nor more life than either, and exactly one endpoint of ours as its
    audience: that of the subject's token, or one of all where that is for all.  It ends with the
    person's authorization that it came of."""

    def __init__(self, store: AuthorizationStore, mint: Mint, resources: Resources) -> None:
        self._store, self._mint, self._resources = store, mint, resources

    def exchange(self, client: Client, form: Mapping[str, str], now: int, jkt: str = "") -> Issued:
        """1 types, 2 both tokens are ours, 3 the actor is this client's agent, 4 who shows them holds
        the keys that they are bound to, 5 both tokens and grants, the person and the agent live, 6
        depth, 7 target, 8 scope."""
        if client.agent is None or EXCHANGE not in client.grants:
            raise Refused("unauthorized_client", "This client may not exchange tokens.")
        for name in ("subject_token_type", "actor_token_type"):
            if need(form, name) != ACCESS_TOKEN_TYPE:
                raise Refused("invalid_request", "Only access tokens are exchanged here.")
        if form.get("requested_token_type", ACCESS_TOKEN_TYPE) != ACCESS_TOKEN_TYPE:
            raise Refused("invalid_request", "Only access tokens are given here.")
        subject = self._mint.read(need(form, "subject_token"), now)
        actor = self._mint.read(need(form, "actor_token"), now)
        if actor["sub"] != client.id or actor["client_id"] != client.id or "act" in actor:
            raise invalid_grant("The actor's token is not this client's own.")
        proven = bound_to(jkt).get("cnf")
        for claims in (subject, actor):
            if claims.get("cnf", proven) != proven:
                raise invalid_grant("A token is bound to a key that was not proven.")
        with self._store.change() as tx:
            grant = self._live(tx, subject, now)
            if grant.person is None:
                raise invalid_grant("Only a token that acts for a person is exchanged.")
            self._live(tx, actor, now)
            agent = tx.agent(client.agent)
            if agent is None or not agent.usable(now):
                raise invalid_grant("The agent of this client is not active.")
            act = _chain(client, grant, subject)
            target = self._resources.find(_target(form), tx.servers())
            given = self._resources.find(str(subject["aud"]), tx.servers())
            if given.server not in (None, target.server):
                raise Refused("invalid_target", "The subject's token is for another endpoint.")
            scopes = narrowed(in_order(subject["scope"].split(" ")), form.get("scope", ""))
            doing = Doing(ITSELF, "oauth", now, "token exchange")
            tx.tell(
                doing.event(
                    "token.exchanged", grant.subject, None,
                    {"resource": target.uri, "scopes": list(scopes), "act": act},
                )
            )  # fmt: skip
        until = min(subject["exp"], actor["exp"]) * SECOND_NS
        new = replace(grant, client=client.id, resource=target.uri)
        more = {"act": act, **bound_to(jkt)}
        issued = self._mint.issue(new, subject["sub"], scopes, now, until=until, more=more)
        return replace(issued, exchanged=True)

    def _live(self, tx: AuthorizationChange, claims: Claims, now: int) -> Grant:
        grant = tx.grant(claims["grant"])
        if tx.ended(str(claims.get("jti", ""))):
            raise invalid_grant("A token was revoked.")
        if grant is None or not grant.live(now):
            raise invalid_grant("An authorization behind these tokens has ended.")
        if grant.person is not None and not tx.person_live(PersonId(grant.person)):
            raise invalid_grant("The person has departed.")
        return grant


def _chain(client: Client, grant: Grant, subject: Claims) -> dict[str, Any]:
    """The actor, and inside it whoever acted before (RFC 8693 4.1): the subject token's own chain, or
    the client that the person gave it to."""
    act: dict[str, Any] = {"sub": client.agent, "client_id": client.id}
    if "act" in subject:
        act["act"] = subject["act"]
    else:
        act["act"] = {"sub": grant.agent or grant.client, "client_id": grant.client}
    depth, link = 0, act
    while isinstance(link, dict) and link:
        depth, link = depth + 1, link.get("act", {})
    if depth > CHAIN_MAX:
        raise invalid_grant(f"More than {CHAIN_MAX} actors would stand behind each other.")
    return act


def _target(form: Mapping[str, str]) -> str:
    """RFC 8693 2.1 knows ``resource`` and ``audience``; one endpoint, said once."""
    named = {form[name] for name in ("resource", "audience") if name in form}
    if len(named) != 1:
        raise Refused("invalid_target", "Exactly one endpoint is named as resource or audience.")
    return named.pop()
