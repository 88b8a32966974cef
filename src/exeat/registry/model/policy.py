"""A version of the policy: files under one digest, with who wrote it, who approved it, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exeat.core.ids import Digest, PersonId
from exeat.registry.model.canonical import digest


def policy_digest(files: Mapping[str, str]) -> Digest:
    """SHA-256 over the canonical JSON object of file name → text."""
    return digest(dict(files))


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """``number`` counts versions from 1; numbers are never reused."""

    number: int
    digest: Digest
    author: PersonId
    approver: PersonId
    reason: str
    at: int
    files: Mapping[str, str] = field(compare=False)

    @property
    def subject(self) -> str:
        return f"policy:{self.number}"

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "digest": self.digest,
            "author": self.author,
            "approver": self.approver,
            "files": sorted(self.files),
        }
