"""Reading policy directories."""

from pathlib import Path
from typing import Final

from exeat.core.controls import CONTROLS_FILE
from exeat.core.errors import Invalid

FILES_MAX: Final = 10_000


def policy_files(directory: Path) -> dict[str, str]:
    """Every ``*.cedar`` below a directory, by its relative name, and its ``controls.yaml`` if there is
    one.  Raises Invalid."""
    if not directory.is_dir():
        raise Invalid(f"{directory} is not a directory", remedy="name the directory of policies")
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*.cedar")}
    if not files:
        raise Invalid(f"{directory} holds no *.cedar file", remedy="write a policy first")
    if len(files) > FILES_MAX:
        raise Invalid(f"{directory} holds more than {FILES_MAX} files", remedy="join some of them")
    if (directory / CONTROLS_FILE).is_file():
        files[CONTROLS_FILE] = directory / CONTROLS_FILE
    return {name: text_of(path) for name, path in sorted(files.items())}


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Invalid(f"{path} cannot be read as UTF-8 text", remedy="check the file") from None
