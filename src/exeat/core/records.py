"""Records of the hot path."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """A slotted dataclass that mypy holds to be frozen, without the cost of enforcing it at run time
    (0.2 µs per field and object, several objects per call)."""
    return dataclass(slots=True)(cls)
