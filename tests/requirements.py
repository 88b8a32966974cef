"""Every promise that is kept so far, by its id in the design; test_requirements.py checks both ways."""

import pytest

REQUIREMENTS = {
    "GW-1": "The decision record is durable before one byte of the action reaches the upstream.",
    "GW-2": "One parse; what two readers could read differently is refused; what leaves is re-serialized.",
    "GW-3": "The official conformance suite scores the same through the gateway as directly.",
    "GW-4": "A client of either era reaches an upstream of either era.",
    "GW-5": "HTTP and stdio upstreams; the exit of a stdio server fails its calls and loses no record.",
    "GW-6": "Local stdio clients connect through `exeat bridge URL`.",
    "GW-7": "Everything that the protocol can carry is decided; unknown methods are denied.",
    "GW-8": "Lists hide what could never be permitted; hidden answers like unknown; denials are capped.",
    "GW-9": "Large results stream in bounded memory; cancelling on either side cancels the other.",
    "GW-10": "Host and Origin are checked; every URL followed on someone's word passes an SSRF guard.",
    "GW-11": "Upstream down, slow or nonsense: an error that names upstream and decision; no retries.",
    "GW-12": "A stdio upstream cannot read exeat's home, or its evidence says not isolated.",
    "GW-13": "Session ids are ours and bound to the principal; connections are reused only when clean.",
    "GW-14": "The HTTP edge: order, limits, and refusal of ambiguous requests.",
    "REG-1": "Agents, servers and tools carry what governance needs.",
    "REG-2": "No owner, no deputy, no end date: not active; neither live: denied.",
    "REG-3": "Every change is an event in the same transaction; revisions guard against lost updates.",
    "REG-4": "Lifecycle: draft, active, suspended, retired.",
    "REG-5": "What clients' files hold is found, moved behind the gateway, and put back byte for byte.",
    "REG-6": "Tools are pinned by digest; drift, new tools and look-alikes stop until seen.",
    "REG-8": "Everything as code: declared, planned, applied; drift is shown.",
    "REG-9": "Activation needs the owner's acceptance of a scope digest; every entry names it.",
    "REG-10": "`exeat answer AGENT` gives the three answers.",
    "ID-1": "Protected-resource metadata; issuer, signature, expiry and audience on every request.",
    "ID-2": "Too little scope: 403 with every scope of the operation in one challenge.",
    "ID-3": "Trusted issuers: discovery, key rotation, algorithms, introspection.",
    "ID-4": "Sender-constrained tokens (DPoP, mTLS) and SPIFFE workloads.",
    "ID-5": "The principal is agent x user; unknown clients are unregistered agents: denied, adoptable.",
    "ID-6": "One credential per agent; people's and agents' are not mixed; none without an end.",
    "ID-7": "The embedded authorization server, for local mode.",
    "ID-8": "People sign in with a passkey or a one-time link; there is no default password.",
    "ID-9": "Towards upstreams: never passthrough; each mode of credential.",
    "ID-10": "Secrets rest under envelope encryption; nothing secret is shown.",
    "ID-11": "A signed single-use permit for servers that ask for one.",
    "APP-1": "A hold shows the real call, why, who is asked, and what happens if nobody answers.",
    "APP-3": "Approvers come from policy and are never the requester; solo mode confirms instead.",
    "APP-8": "Budgets and rates: reserved before the call, settled after, never exceeded.",
    "APP-9": "The kill switch: effective on every replica within a second, calls in flight cancelled.",
    "APP-2": "An approval is bound to what was shown, expires, and is used once, on any replica.",
    "APP-5": "Every answer is a person's; webhooks are signed both ways; nothing is approved by a GET.",
    "APP-6": "Bounded grants: time-boxed, counted, by argument, revocable, listed with last use.",
    "APP-7": "Rubber-stamp figures are kept.",
    "APP-11": "A grant binds call, definition, policy and labels; its use is durable first.",
    "APP-12": "Holds are coalesced and capped per agent.",
    "APP-10": "Just before a call leaves, the state was confirmed by a poll begun under its limit ago.",
    "POL-1": "Default deny.",
    "POL-2": "A verdict is a pure function of bundle, entities and request.",
    "POL-3": "Every denial gives a closed reason, the policies, and a remedy; nothing leaks.",
    "POL-4": "What is forwarded is our serialization of exactly the decided value.",
    "POL-5": "Policy is files, versioned with author, approver and reason; shadow policies never decide.",
    "POL-6": "`exeat policy test`, `replay`, `suggest`, `diff` and `explain`.",
    "POL-7": "Observe mode records what would have been denied, and is marked in evidence for ever.",
    "POL-10": "Observe mode is bounded; in team mode policy and observe mode take two people.",
    "POL-9": "Oversize values, numbers that do not round-trip; memo only after full validation.",
    "APP-4": "The waiting client is served in the way it understands; a retry finds its grant.",
    "POL-8": "AuthZEN 1.0 answers from the same PDP.",
    "EVD-1": "Merkle tree per RFC 6962; one log per gateway instance.",
    "EVD-3": "Group commit; a kill at any moment leaves no executed call without an entry.",
    "EVD-4": "Cutting, editing, reordering or inserting entries is detected offline.",
    "EVD-9": "Noise is counted and sampled; time that runs backwards is detected.",
}
KEPT: dict[str, set[str]] = {}  # test -> the ids it keeps, filled while collecting


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Name the promises that a test holds up."""
    for req_id in ids:
        assert req_id in REQUIREMENTS, req_id
    return pytest.mark.requirement(*ids)
