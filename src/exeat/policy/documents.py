"""YAML that people write for checks: what is of the wrong kind is named, with its place (POL-6)."""

from collections.abc import Mapping
from typing import Any

import yaml

from exeat.core.errors import Invalid


def document(text: str, name: str) -> Any:
    """The one document of ``text``.  Raises Invalid."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise Invalid(f"{name} is not YAML: {said}", remedy="correct it") from None
    except (RecursionError, ValueError) as error:  # ValueError: a date that there is not
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Invalid(f"{name} cannot be read: {what}", remedy="correct it") from None


def mapping(value: object, where: str) -> Mapping[Any, Any]:
    """``value``, or nothing where it was left empty.  Raises Invalid."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(f"{where} is not a mapping", remedy="see the policy reference for its form")
    return value


def items(value: object, where: str) -> list[Any]:
    """The same of a list."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Invalid(f"{where} is not a list", remedy="write it as [one, two]")
    return value


def words(value: object, where: str) -> tuple[str, ...]:
    return tuple(map(str, items(value, where)))
