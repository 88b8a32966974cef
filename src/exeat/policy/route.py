"""What calls of one caller to one action have in common, kept between them."""

from collections.abc import Mapping

import cedarpy

from exeat.core.facts import AgentFacts, PersonFacts, ServerFacts, ToolFacts
from exeat.core.request import AccessRequest, Caller
from exeat.policy.inputs import ArgumentEncoder
from exeat.policy.methods import TOOL_CALL, resource_type
from exeat.policy.question import Outcome
from exeat.policy.slices import Recent, Slice


class Route:
    """What stays the same between calls of one caller to one action.  Valid only for exactly the
    fact objects that it was made from."""

    __slots__ = (
        "action",
        "agent",
        "encoder",
        "entities",
        "kind",
        "met",
        "outcome",
        "reachable",
        "resource",
        "server",
        "slice",
        "standing",
        "targets",
        "tool",
        "user",
        "who",
    )

    def __init__(
        self,
        caller: Caller,
        server: ServerFacts,
        action: str,
        tool: ToolFacts | None,
        who: AgentFacts | PersonFacts,
    ) -> None:
        """``who``: the principal that Cedar is asked about, the agent or the user."""
        self.who = who
        self.agent: AgentFacts = caller.agent
        self.user: PersonFacts | None = caller.user
        self.server = server
        self.tool = tool
        self.action = action
        self.kind = "Tool" if tool is not None else resource_type(action)
        self.slice: Slice | None = None
        self.standing: bytes = b""
        self.encoder: ArgumentEncoder | None = None
        self.entities: cedarpy.Entities | None = None
        self.resource: Mapping[str, str] = {}
        self.outcome: Outcome | None = None
        self.reachable: bool | None = None
        self.met = False
        self.targets: Recent[str, cedarpy.Entities] | None = None

    def met_by(self, request: AccessRequest) -> bool:
        """Whether every precondition holds, since they did for these very facts: all of them but the
        three that change from call to call are read from the facts of the route.  ``met`` is set
        only where the action is a registered tool."""
        tool = self.tool
        return (
            self.met
            and tool is not None
            and request.now < self.agent.ends_at
            and request.clock_trusted
            and request.observed_pin == tool.pin
            and request.method == TOOL_CALL
        )

    def fits(self, caller: Caller, server: ServerFacts, tool: ToolFacts | None) -> bool:
        return (
            self.agent is caller.agent
            and self.server is server
            and self.tool is tool
            and self.user is caller.user
        )
