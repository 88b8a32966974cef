"""Whom a token stands for: agent × user, or an agent that nobody registered (ID-5, ID-6).

1. the present agent: the outermost actor if the token was exchanged, else its client, else a subject
   that is itself an agent
2. the user: the subject, unless that is the agent
3. earlier links: each must be a registered agent, or the token stands for nobody
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from exeat.core.facts import AgentFacts, Lifecycle, PersonFacts, ScopeFacts, Snapshot
from exeat.core.ids import AgentId, Digest, PersonId
from exeat.core.request import Caller, TokenFacts
from exeat.identity.model.token import Actor, Claims, Flaw, Refused

UNREGISTERED: Final = "unregistered:"
_ID_CHARS: Final = 16
_NOBODY: Final = PersonId("")


def unregistered_id(issuer: str, client: str, subject: str) -> str:
    """``unregistered:`` and 16 hexadecimal digits: no registered id holds a colon."""
    seen = "\0".join((issuer, client, subject))
    return UNREGISTERED + sha256(seen.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_CHARS]


def principal(
    claims: Claims, snapshot: Snapshot, credential: str, scopes: frozenset[str] | None, own: str
) -> Caller | Refused:
    """``own``: our own issuer, whose subjects are ids of our registry.  ``scopes``: those of ours that
    the token carries; None if they bound nothing."""
    for name in claims.names:
        if name in snapshot.endings:
            return Refused(Flaw.ENDED)
    user = _user(claims, snapshot, own)
    user_id = user.id if user is not None and user.live else None
    first, *earlier = _links(claims)
    if first.issuer != claims.issuer:
        return Refused(Flaw.CHAIN)  # an issuer says who calls in its own words, not in another's
    agent = _agent(first, user_id, snapshot)
    workload = claims.issuer != own and user_id is None and not claims.actors and not claims.client
    if agent is None and user is not None and workload:
        first = Actor(claims.issuer, claims.subject)  # a workload that has no client
        agent = _agent(first, None, snapshot)
        user = None if agent is not None else user
    actors = [_agent(link, user_id, snapshot) for link in earlier]
    if any(each is None for each in actors):
        return Refused(Flaw.CHAIN)
    if agent is None:
        agent = stranger(_links(claims)[0], claims.subject)
    token = TokenFacts(
        claims.issuer,
        first.name,
        scopes,
        claims.expires_at,
        claims.names,
        tuple(each.id for each in actors if each is not None),
        _shown(claims, actors, scopes),
        claims.confirmation.thumbprint if claims.confirmation is not None else "",
        tuple((link.issuer, link.name) for link in earlier),
        claims.subject if (claims.issuer, claims.subject) in snapshot.subjects else "",
    )
    return Caller(agent, user, credential, token)


def still_stands(caller: Caller, snapshot: Snapshot, now: int) -> bool:
    """Whether the token's caller is still the one it was, on a newer snapshot."""
    token = caller.token
    if token is None or token.expires_at <= now:
        return False
    if any(name in snapshot.endings for name in token.names):
        return False
    if caller.agent.revision == 0:
        return True  # and still unregistered, so denied
    user = caller.user.id if caller.user is not None else None
    if token.subject and user and snapshot.subjects.get((token.issuer, token.subject)) != user:
        return False
    links = [(token.issuer, token.client), *token.before]
    for (issuer, name), agent in zip(links, [caller.agent.id, *token.actors], strict=True):
        found = _agent(Actor(issuer, name), user, snapshot)
        if found is None or found.id != agent:
            return False
    demanded = snapshot.proofs.get(caller.agent.id)
    return demanded is None or proves(token, demanded)


def proves(token: TokenFacts, demanded: str) -> bool:
    """ID-4: whether it is bound to a key in the way that the agent's credentials must be."""
    return bool(token.thumbprint) and (demanded == "any" or f"bound {demanded}" in token.chain)


def stranger(client: Actor, subject: str) -> AgentFacts:
    """Facts of an agent that is none: revision 0, a draft without owner, scope or end."""
    name = AgentId(unregistered_id(client.issuer, client.name, subject))
    scope = ScopeFacts(Digest(""), "", "", frozenset(), frozenset())
    return AgentFacts(name, 0, Lifecycle.DRAFT, _NOBODY, False, _NOBODY, False, _NOBODY, 0, scope)


def _links(claims: Claims) -> list[Actor]:
    """The present agent, then those before it, each once."""
    client = Actor(claims.issuer, claims.client)
    links = list(claims.actors) or [client]
    if claims.client and client not in links:
        links.append(client)
    return links


def _user(claims: Claims, snapshot: Snapshot, own: str) -> PersonFacts | None:
    """None if the token has no user.  One whom nobody registered is not live, so the call is denied."""
    subject = claims.subject
    if not subject or (subject == claims.client and not claims.actors):
        return None
    known = snapshot.subjects.get((claims.issuer, subject))
    if known is None and claims.issuer == own:
        known = PersonId(subject)
    person = snapshot.people.get(known) if known is not None else None
    if person is not None:
        return person
    return PersonFacts(PersonId(unregistered_id(claims.issuer, "", subject)), live=False)


def _agent(link: Actor, user: PersonId | None, snapshot: Snapshot) -> AgentFacts | None:
    if not link.name:
        return None
    clients: Mapping[tuple[str, str, str], AgentId] = snapshot.clients
    found = clients.get((link.issuer, link.name, user or ""))
    if found is None and user:
        found = clients.get((link.issuer, link.name, ""))
    return snapshot.agents.get(found) if found is not None else None


def _shown(
    claims: Claims, actors: list[AgentFacts | None], scopes: frozenset[str] | None
) -> tuple[str, ...]:
    """Each link on record (ID-5): issuer, client, scopes that bound, agents before."""
    shown = [f"issuer {claims.issuer}", f"client {claims.client}"]
    if scopes is not None:
        shown.append(f"scope {' '.join(sorted(scopes))}")
    if claims.confirmation is not None:
        shown.append(f"bound {claims.confirmation.method}")
    shown.extend(f"actor {each.id}" for each in actors if each is not None)
    return tuple(shown)
