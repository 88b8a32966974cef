"""A signed checkpoint in a file beside the ledger, whole at any moment."""

import os
from pathlib import Path


def publish(path: Path, note: bytes) -> None:
    """Durable once it returns.  Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(note)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
