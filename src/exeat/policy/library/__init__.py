"""Policies to start from, each with the cases that it keeps (``exeat policy library``, POL-5).

A folder per policy: ``<name>.cedar`` (its first comment says what it is for and what to change), perhaps
``controls.yaml``, and ``cases/<name>.yaml``, which hold against ``catalogue.yaml``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from exeat.core.errors import NotFound

CATALOGUE: Final = "catalogue.yaml"
_HERE: Final = Path(__file__).parent


def names() -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in _HERE.glob("*/*.cedar")))


def catalogue() -> str:
    """What the cases were written against, as text for ``load_catalogue``."""
    return (_HERE / CATALOGUE).read_text(encoding="utf-8")


def files(name: str) -> Mapping[str, str]:
    """Relative name → text, of policies, controls and cases.  Raises NotFound."""
    if name not in names():
        raise NotFound(
            f"There is no policy {name!r} in the library.",
            remedy=f"There are: {', '.join(names())}.",
        )
    folder = _HERE / name
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".cedar", ".yaml"}
    }


def about(name: str) -> str:
    """The first comment of a policy: what it is for.  Raises NotFound."""
    lines = files(name)[f"{name}.cedar"].splitlines()
    found = []
    for line in lines:
        if not line.startswith("//"):
            break
        found.append(line.removeprefix("//").strip())
    return " ".join(found)
