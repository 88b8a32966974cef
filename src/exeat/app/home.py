"""Where exeat keeps its state on one machine."""

import os
from pathlib import Path


def home_path(given: Path | None = None) -> Path:
    """``given``, else $EXEAT_HOME, else ``~/.exeat``.  It need not exist yet."""
    if given is not None:
        return given.expanduser().absolute()
    named = os.environ.get("EXEAT_HOME")
    return Path(named).expanduser().absolute() if named else Path.home() / ".exeat"
