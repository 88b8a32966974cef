"""A search for secrets: each in every spelling that a log, a file or a database could hold it in."""

import base64
import json
import os
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from joserfc.jwk import ECKey

BYTES_MIN = 8
"""Shorter ones would be found by chance."""


def spellings(secret: bytes) -> set[bytes]:
    """Plain, percent-encoded, as JSON escapes it, hexadecimal, and base64 in both alphabets wherever it
    may begin within a longer text: of each, the characters that the secret alone decides."""
    assert len(secret) >= BYTES_MIN, "too short to search for"
    found = {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        quote(secret, safe="").encode(),
    }
    found.add(json.dumps(secret.decode("latin-1"))[1:-1].encode())
    for before in range(3):
        first, last = -(-8 * before // 6), 8 * (before + len(secret)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(bytes(before) + secret)[first:last])
    return found


class Known:
    """The secrets of a test by kind, and where each may stand: names of places end with one of those."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[bytes, tuple[str, ...]]] = {}

    def add(self, kind: str, secret: str | bytes, *at_home: str) -> str:
        raw = secret.encode() if isinstance(secret, str) else secret
        self.kinds.setdefault(kind, {})[raw] = at_home
        return secret if isinstance(secret, str) else ""

    def found(self, places: Iterator[tuple[str, bytes]]) -> list[str]:
        """``KIND in PLACE`` for each that is where it must not be."""
        wanted = [
            (kind, spelling, at_home)
            for kind, secrets in self.kinds.items()
            for secret, at_home in secrets.items()
            for spelling in spellings(secret)
        ]
        return sorted(
            {
                f"{kind} in {name}"
                for name, held in places
                for kind, spelling, at_home in wanted
                if spelling in held and not name.endswith(at_home or ("\0",))
            }
        )


def files(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"{name}/{path.relative_to(folder)}", path.read_bytes()


def rows(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Every value of a SQLite database as SQL, whole also where it lies on several pages."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        yield name, "\n".join(database.iterdump()).encode()


def archived(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            if (file := tar.extractfile(member)) is not None:
                yield f"{name}/{member.name}", file.read()


def process(pid: int, name: str) -> Iterator[tuple[str, bytes]]:
    """What `ps` shows of it to others, and what its user may read."""
    for what in ("cmdline", "environ"):
        yield f"{name}/{what}", Path(f"/proc/{pid}/{what}").read_bytes()


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted({int(child) for task in tasks for child in task.read_text().split()})


def keys_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each private key of a home's ``keys`` with its file's name: as it stands there, and its bytes."""
    read: dict[str, Callable[[str], bytes]] = {
        "vault.key": base64.b64decode,
        "gw1.ed25519": lambda text: base64.b64decode(text.split("+", 4)[4])[1:],
    }
    for path in sorted(folder.iterdir()):
        text = path.read_text().strip()
        if "PRIVATE KEY" in text:
            number = ECKey.import_key(text).as_dict(private=True)["d"]
            yield path.name, base64.urlsafe_b64decode(f"{number}=")
            yield path.name, text.splitlines()[1].encode()
        else:
            yield path.name, read.get(path.name, bytes.fromhex)(text)
            yield path.name, text.encode()


def random_text(kind: str) -> str:
    return f"{kind}-{os.urandom(16).hex()}"
