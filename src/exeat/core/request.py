"""What the PDP is asked: principal, action, resource, context (Cedar's PARC)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exeat.core.facts import AgentFacts, PersonFacts, ServerFacts, ToolFacts
from exeat.core.ids import ActionId, AgentId
from exeat.core.records import record


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a verified token bounds its caller by, beside registry and policy (ID-1, ID-2, ID-5).

    ``scopes`` None: its issuer's tokens carry no scopes of ours.  ``actors``: agents that the authority
    came through before; each must itself be able to do what is asked.  ``names``: of its grant and of
    itself, under which it may be ended.  ``chain``: the links as evidence shows them.  ``thumbprint``:
    of the key that it is bound to, or empty.  ``expires_at``: nanoseconds.  ``before``: the actors as
    their issuers call them.  ``subject``: what the issuer calls the user, empty if by their own id.
    """

    issuer: str
    client: str
    scopes: frozenset[str] | None
    expires_at: int
    names: tuple[str, ...] = ()
    actors: tuple[AgentId, ...] = ()
    chain: tuple[str, ...] = ()
    thumbprint: str = ""
    before: tuple[tuple[str, str], ...] = ()
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts, for whom, by which credential (its public id).  ``token`` None: an agent's key."""

    agent: AgentFacts
    user: PersonFacts | None
    credential: str
    token: TokenFacts | None = None


@record
class AccessRequest:
    """One action, before it happens, with every fact that the decision may read.

    ``method``: the MCP method.  ``action``: ``server/tool`` for tools/call, else the method.
    ``target``: tool or prompt name, resource URI, or empty.  ``tool``: the registered tool, None if
    the method is not tools/call or no such tool is registered.  ``observed_pin``: digest of the
    definition last seen at the server, empty if it was not seen.  ``arguments``: decoded JSON
    (str, int, Decimal, bool, None, list, dict) as it will be forwarded; for methods other than
    tools/call the params without ``_meta``.  ``now``: nanoseconds since the epoch.
    ``clock_trusted``: False when time runs behind the ledger's high-water mark (EVD-9).  ``run``: the span
    over which the agent may carry what it read.  ``controls``: evidence of approvals that were consumed
    for this very call.
    """

    caller: Caller
    method: str
    action: ActionId
    server: ServerFacts
    target: str
    tool: ToolFacts | None
    observed_pin: str
    arguments: Mapping[str, Any]
    now: int
    clock_trusted: bool = True
    run: str = ""
    controls: frozenset[str] = frozenset()
