"""Buckets and slices: of all policies only those whose scope could match a request.

Buckets are {any, tool, method, server group, effect group} × {any, agent, group}; a policy whose
scope lists several actions stands in several.  A slice never misses a policy whose scope matches; a
property test holds slice = full set.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

import cedarpy

from exeat.core.facts import AgentFacts, PersonFacts
from exeat.policy.canonical import kind_of_use
from exeat.policy.model import PERSON, Kind, Path, Policy, Reads, ScopePart, reads_of

_ANY: Final = ""
_USER: Final = "Person::"
"""Any user: a policy that says so is none of an agent's."""
_K = TypeVar("_K")
_V = TypeVar("_V")


class Recent(Generic[_K, _V]):
    """A bounded mapping that forgets what was least recently used."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._kept: dict[_K, _V] = {}

    def get(self, key: _K) -> _V | None:
        value = self._kept.pop(key, None)
        if value is not None:
            self._kept[key] = value
        return value

    def put(self, key: _K, value: _V) -> None:
        self._kept[key] = value
        while len(self._kept) > self._size_max:
            self._kept.pop(next(iter(self._kept)), None)

    def __len__(self) -> int:
        return len(self._kept)


class Slice:
    """Some policies, parsed together on first use, and all that they can read."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        self.reads: Reads = reads_of(
            {path for policy in policies for path in policy.values},
            {path for policy in policies for path in policy.presence},
        )
        context = self.reads.at("context")
        self.reads_arguments = context is not None and any(
            context.at(part) is not None for part in ("input", *(kind.value for kind in Kind))
        )
        self.reads_time = self.reads.at("context", "session", "now") is not None
        self.reads_target = self.reads.at("context", "target") is not None or any(
            _names_target(policy) for policy in policies
        )
        self.reads_controls = self.reads.at("context", "session", "controls") is not None
        self.controls: frozenset[str] = frozenset().union(*(p.controls for p in policies))
        """Controls that some policy asks for."""
        self.narrows = any(policy.limits for policy in policies)
        self._cedar: cedarpy.PolicySet | None = None
        self._digest = ""
        self._uses: dict[Path, frozenset[Kind]] | None = None

    def memorable(self, *, by_target: bool) -> bool:
        """The outcome depends on caller and action alone; ``by_target``: the resource of the
        action is a prompt or resource that the call chooses."""
        changing = self.reads_arguments or self.reads_time or self.reads_controls
        return not (changing or (by_target and self.reads_target))

    @property
    def cedar(self) -> cedarpy.PolicySet:
        if self._cedar is None:
            self._cedar = cedarpy.PolicySet.from_str(text_of(self.policies))
        return self._cedar

    @property
    def digest(self) -> str:
        """SHA-256 in hex over the text of its policies: what an approval is bound to (APP-2)."""
        if not self._digest:
            self._digest = hashlib.sha256(text_of(self.policies).encode()).hexdigest()
        return self._digest

    @property
    def uses(self) -> dict[Path, frozenset[Kind]]:
        """Argument path → what the policies' own literals take the argument for."""
        if self._uses is None:
            found: dict[Path, set[Kind]] = {}
            for policy in self.policies:
                for match in policy.matches:
                    kind = kind_of_use(match)
                    if kind is not None and match.path[:2] == ("context", "input"):
                        found.setdefault(match.path[2:], set()).add(kind)
            self._uses = {path: frozenset(kinds) for path, kinds in found.items()}
        return self._uses

    def ids(self, cedar_ids: Iterable[str]) -> tuple[str, ...]:
        """``@id`` of the policies that Cedar names by position, sorted."""
        return tuple(
            sorted({self.policies[int(name.removeprefix("policy"))].id for name in cedar_ids})
        )


def text_of(policies: Iterable[Policy]) -> str:
    return "\n".join(policy.text for policy in policies)


def _names_target(policy: Policy) -> bool:
    """Whether the policy can tell one prompt or resource of a server from another."""
    if any(kind in {"Prompt", "Resource"} for kind, _ in policy.entities):
        return True
    return ("resource",) in policy.values


class Index:
    """All policies by the buckets of their scopes."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        self._buckets: dict[tuple[str, str], list[int]] = {}
        self._bounds_users = any(policy.of_users for policy in policies)
        for number, policy in enumerate(policies):
            for action in _action_keys(policy.action):
                for principal in _principal_keys(policy.principal):
                    self._buckets.setdefault((action, principal), []).append(number)

    @property
    def bounds_users(self) -> bool:
        """Some policy says what users may, so a user may only what one permits (ID-5)."""
        return self._bounds_users

    def pick(
        self,
        who: AgentFacts | PersonFacts,
        action: str,
        ancestors: Iterable[str],
        resource: tuple[str, str, str],
    ) -> tuple[int, ...]:
        """Numbers of the policies whose scope could match, in order.

        ``resource``: Cedar type, id (empty: any of this type on the server) and server id.
        """
        if isinstance(who, AgentFacts):
            principals = [_ANY, f"Agent::{who.id}", *(f"Group::{group}" for group in who.groups)]
        else:
            principals = [_USER, f"Person::{who.id}", *(f"Role::{role}" for role in who.roles)]
        found: set[int] = set()
        for of in (_ANY, action, *ancestors):
            for principal in principals:
                found.update(self._buckets.get((of, principal), ()))
        policies = self.policies
        return tuple(
            number for number in sorted(found) if could_lie(policies[number].resource, resource)
        )


def could_lie(part: ScopePart, resource: tuple[str, str, str]) -> bool:
    """Whether such a resource may lie in a resource scope."""
    kind, name, server = resource
    if part.entity_type and part.entity_type != kind:
        return False
    if not part.uids:
        return True
    for of, of_name in part.uids:
        if of == kind and (of_name == name or not name):
            return True
        if of == "Server" and of_name == server and not part.exact:
            return True
    return False


def _action_keys(part: ScopePart) -> Iterator[str]:
    yield from (name for _, name in part.uids) if part.uids else (_ANY,)


def _principal_keys(part: ScopePart) -> Iterator[str]:
    anybody = _USER if part.entity_type == PERSON else _ANY
    yield from (f"{kind}::{name}" for kind, name in part.uids) if part.uids else (anybody,)
