"""What was switched off at once (APP-9): one look into a small set before anything else is decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exeat.core.facts import AgentFacts, PersonFacts


class Target(StrEnum):
    AGENT = "agent"
    OWNER = "owner"
    USER = "user"
    SERVER = "server"
    TOOL = "tool"
    RUN = "run"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Kills:
    """``of``: (target, id) → id of the kill; of ALL the id is empty."""

    of: Mapping[tuple[Target, str], str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.of)

    def hit(
        self, agent: "AgentFacts", user: "PersonFacts | None", server: str, action: str, run: str
    ) -> str:
        """The kill that stops such a call; empty if none does."""
        of = self.of
        found = (
            of.get((Target.ALL, ""))
            or of.get((Target.AGENT, agent.id))
            or of.get((Target.OWNER, agent.owner))
            or of.get((Target.SERVER, server))
            or of.get((Target.TOOL, action))
        )
        if not found and user is not None:
            found = of.get((Target.USER, user.id))
        if not found and run:
            found = of.get((Target.RUN, run))
        return found or ""


NO_KILLS: Final = Kills()
