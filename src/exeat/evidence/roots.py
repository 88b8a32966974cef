"""Roots over all logs (EVD-1): no whole log can vanish unseen.

Each gateway has a log of its own.  From time to time one of them signs a root: the Merkle tree
(RFC 6962) of the latest checkpoint of every log, each leaf being the checkpoint's own text (origin,
size, root hash; C2SP tlog-checkpoint).  A root has the form of a checkpoint of the log
``exeat/roots``, with extension lines; it names the root before it, and never forgets a log.  Pure.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from exeat.core.errors import Invalid
from exeat.evidence.merkle import leaf_hash, root_of
from exeat.evidence.note import Checkpoint, Signer, Verifier, open_note, signers

ORIGIN: Final = "exeat/roots"
PUBLISHED: Final = "roots"
"""The file beside the ledgers with the last root that a gateway of this home signed."""
_FIRST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class SignedRoot:
    """``heads``: the checkpoint of each log that is under it, in the order of their origins."""

    number: int
    note: bytes
    heads: tuple[Checkpoint, ...]


def pack_heads(heads: Sequence[Checkpoint]) -> str:
    return json.dumps([[h.origin, h.size, base64.b64encode(h.root).decode()] for h in heads])


def read_heads(text: str) -> tuple[Checkpoint, ...]:
    """Raises Invalid."""
    try:
        return tuple(
            Checkpoint(str(origin), int(size), base64.b64decode(root, validate=True))
            for origin, size, root in json.loads(text)
        )
    except (ValueError, TypeError, binascii.Error):
        raise Invalid("the heads of a root cannot be read") from None


def joined(before: Iterable[Checkpoint], now: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    """The heads of the next root.  A log that is gone, or shorter than it was, stays as it was last
    seen, so that its loss shows for ever."""
    heads = {head.origin: head for head in before}
    for head in now:
        known = heads.get(head.origin)
        if known is None or head.size > known.size:
            heads[head.origin] = head
    return tuple(heads[origin] for origin in sorted(heads))


def sign_root(
    before: SignedRoot | None, heads: tuple[Checkpoint, ...], at: int, signer: Signer
) -> SignedRoot:
    """``at``: nanoseconds since the epoch."""
    number = 1 if before is None else before.number + 1
    previous = _FIRST if before is None else sha256(before.note).digest()
    return SignedRoot(number, signer.sign(_text(number, previous, heads, at)), heads)


def _text(number: int, previous: bytes, heads: Sequence[Checkpoint], at: int) -> str:
    root = root_of([leaf_hash(head.text().encode()) for head in heads])
    return (
        f"{Checkpoint(ORIGIN, len(heads), root).text()}number {number}\n"
        f"previous {base64.b64encode(previous).decode()}\nat {at}\n"
    )


def check_roots(
    roots: Iterable[SignedRoot], keys: Mapping[str, Verifier], held: Sequence[bytes] = ()
) -> tuple[list[str], dict[str, dict[int, bytes]]]:
    """1 numbers are dense and each root names the one before; 2 a gateway of ours signed it; 3 its
    tree is that of its heads; 4 no log vanishes or shrinks; 5 roots that others hold are among them.

    ``keys``: of the logs, by origin.  Returns the problems, and what each log must contain: origin →
    size → root hash."""
    problems: list[str] = []
    wanted: dict[str, dict[int, bytes]] = {}
    last: SignedRoot | None = None
    missing = dict.fromkeys(held)
    for root in roots:
        problem = _problem(root, last, keys)
        if problem:
            problems.append(f"root {root.number}: {problem}")
        missing.pop(root.note, None)
        for head in root.heads:
            wanted.setdefault(head.origin, {})[head.size] = head.root
        last = root
    if missing:
        problems.append("a root that was kept elsewhere is not among those here")
    return problems, wanted


def _problem(root: SignedRoot, last: SignedRoot | None, keys: Mapping[str, Verifier]) -> str:
    if root.number != (1 if last is None else last.number + 1):  # 1
        return "the root before it is missing"
    known = [keys[name] for name in signers(root.note) if name in keys]  # 2
    if not known:
        return "no gateway that has a log here signed it"
    try:
        text = open_note(root.note, known[0])
    except Invalid as error:
        return str(error)
    previous = _FIRST if last is None else sha256(last.note).digest()
    at = text.rstrip("\n").rpartition("\nat ")[2]
    if not at.isdigit() or text != _text(root.number, previous, root.heads, int(at)):  # 1, 3
        return "its heads, or the root before it, are not those that were signed"
    for head in last.heads if last is not None else ():  # 4
        now = {each.origin: each.size for each in root.heads}.get(head.origin, -1)
        if now < head.size:
            return f"the log {head.origin} had {head.size} entries before it"
    return ""


def number_of(note: bytes) -> int:
    """Of a root that nobody has checked; 0 if it is none."""
    for line in note.split(b"\n"):
        if line.startswith(b"number ") and line[7:].isdigit():
            return int(line[7:])
    return 0
