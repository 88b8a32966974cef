"""An order to stop something at once (APP-9)."""

from dataclasses import dataclass, replace
from typing import Any, Final

from exeat.core.errors import Conflict
from exeat.core.event import Event
from exeat.core.ids import PersonId
from exeat.core.kills import Target
from exeat.registry.model.act import Act
from exeat.registry.model.names import plain_text

RUN_MAX_CHARS: Final = 256
_KIND: Final = {Target.OWNER: "person", Target.USER: "person"}


@dataclass(frozen=True, slots=True)
class Kill:
    """``name``: of what is stopped; of ALL it is empty.  It stands until a person revives."""

    id: str
    target: Target
    name: str
    by: PersonId
    reason: str
    at: int
    ended_by: PersonId | None = None
    ended_at: int | None = None
    revision: int = 1

    def __post_init__(self) -> None:
        if self.target is not Target.ALL:
            plain_text(f"id of the {self.target}", self.name, RUN_MAX_CHARS)

    @property
    def stands(self) -> bool:
        return self.ended_at is None

    @property
    def what(self) -> str:
        return f"{self.target} {self.name}" if self.name else "everything"

    @property
    def subject(self) -> str:
        kind = _KIND.get(self.target, str(self.target))
        return f"{kind}:{self.name or '*'}"

    @classmethod
    def order(cls, id: str, target: Target, name: str, act: Act) -> tuple["Kill", Event]:
        kill = cls(id, target, name, act.actor, act.reason, act.at)
        return kill, act.event("kill.ordered", kill.subject, None, kill.as_json())

    def end(self, act: Act) -> tuple["Kill", Event]:
        if not self.stands:
            raise Conflict(f"{self.id} was ended by {self.ended_by} already.")
        ended = replace(self, ended_by=act.actor, ended_at=act.at, revision=self.revision + 1)
        return ended, act.event("kill.ended", self.subject, self.as_json(), ended.as_json())

    def as_json(self) -> dict[str, Any]:
        return {"kill": self.id, "target": str(self.target), "of": self.name, "stands": self.stands}
