"""GW-8: what a principal could never use is left out of its lists, and answers like what is not there."""

from dataclasses import replace

from exeat.core.facts import PinState, ToolFacts
from exeat.core.ids import ActionId
from exeat.core.request import AccessRequest
from exeat.gateway.pipeline import Enforced, Pipeline
from exeat.gateway.unlinked import SAID_TO_ALL


class Visibility:
    """Asked of the policy in force, which can say of what it could permit with some arguments."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def hides(self, enforced: Enforced) -> bool:
        """Would this tool, prompt or resource be left out of this principal's lists?"""
        request = enforced.request
        if not request.target or request.caller.agent.lifecycle != "active":
            return False
        if enforced.decision.reason in SAID_TO_ALL:
            return False
        return not self.of(request)

    def of(self, request: AccessRequest) -> bool:
        """Could what is asked for be permitted, once its definition is pinned?"""
        tool: ToolFacts | None = request.tool
        if tool is not None:
            tool = replace(tool, state=PinState.PINNED)
        return self._pipeline.state.view.pdp.could_permit(
            request.caller, request.server, request.method, request.action, tool, request.target,
            request.now,
        )  # fmt: skip

    def of_reference(self, access: AccessRequest) -> bool:
        """What completion asks about must be something that the principal could ever use."""
        ref = access.arguments.get("ref")
        if not isinstance(ref, dict):
            return False
        name, uri = ref.get("name"), ref.get("uri")
        if isinstance(name, str) == isinstance(uri, str):
            return False
        method = "prompts/get" if isinstance(name, str) else "resources/read"
        target = name if isinstance(name, str) else ""
        return self._pipeline.state.view.pdp.could_permit(
            access.caller, access.server, method, ActionId(method), None, target, access.now
        )
