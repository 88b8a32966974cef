"""The name of a secret in the vault (ID-10): for whom, for which server, called what.  Never its value."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

TENANT: Final = "default"
"""One home is one tenant; the name is bound into every secret, so that two never mix."""
OWN_MARK: Final = ":"
"""In the name of what exeat keeps for itself, such as a token of an authorization server."""


@dataclass(frozen=True, slots=True, order=True)
class SecretId:
    """``agent`` empty: for every agent.  ``upstream`` empty: for every server."""

    tenant: str
    agent: str
    upstream: str
    name: str

    @property
    def subject(self) -> str:
        return f"secret:{self.name}"

    @property
    def own(self) -> bool:
        """exeat keeps it for itself: no server names it, and no person sets it."""
        return OWN_MARK in self.name

    @property
    def shown(self) -> str:
        """For a sentence: what an operator would type after ``exeat secret set``."""
        server = f" --server {self.upstream}" if self.upstream else ""
        return self.name + server + (f" --agent {self.agent}" if self.agent else "")


def places(agent: str, upstream: str, name: str) -> Iterator[SecretId]:
    """Where a secret that a server names may lie, the most particular first; the first that is there
    counts.  ``agent`` empty: nobody in particular asks (the gateway itself does)."""
    for who in dict.fromkeys((agent, "")):
        for where in dict.fromkeys((upstream, "")):
            yield SecretId(TENANT, who, where, name)
