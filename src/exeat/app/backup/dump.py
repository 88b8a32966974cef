"""What PostgreSQL's own tools must do where state and record are in a database."""

import shlex
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit


def dump_command(url: str, beside: Path) -> str:
    """One consistent moment of registry, policy and every log, in a file beside the backup."""
    file = shlex.quote(str(beside.with_suffix(".dump")))
    return f"pg_dump --format=custom --no-owner --file={file} {shlex.quote(without_password(url))}"


def without_password(url: str) -> str:
    """The address for a screen; libpq takes the password from PGPASSWORD or ~/.pgpass."""
    parts = urlsplit(url)
    user, _, place = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    query = [(key, value) for key, value in parse_qsl(parts.query) if key != "password"]
    shown = f"postgresql://{f'{name}@' if name else ''}{place}{parts.path}"
    return f"{shown}?{urlencode(query)}" if query else shown
