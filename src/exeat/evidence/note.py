"""C2SP signed-note v1 and tlog-checkpoint v1 with Ed25519 keys, to the letter (EVD-1, EVD-4).

A private key is kept in the encoding of Go's ``golang.org/x/mod/sumdb/note``
(``PRIVATE+KEY+<name>+<id>+<base64>``), a public one as its verifier key (``<name>+<id>+<base64>``).
"""

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from exeat.core.errors import Invalid

ED25519: Final = b"\x01"
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SIGNATURES_MAX: Final = 16
NOTE_MAX_BYTES: Final = 100_000
_MARK: Final = "— "
_PRIVATE: Final = "PRIVATE+KEY+"
_WHOLE: Final = (
    "Copy it whole, in quotes: the line `key` of `exeat evidence verify` at its gateway."
)


def check_name(name: str) -> str:
    """signed-note: key names are non-empty, without Unicode spaces and plus."""
    if not name or "+" in name or not name.isprintable() or any(c.isspace() for c in name):
        raise Invalid(f"{name!r} cannot be the name of a key: no spaces, no plus, not empty")
    return name


def key_id(name: str, public: bytes) -> bytes:
    """SHA-256(name || 0x0A || 0x01 || key)[:4]."""
    return sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def _split_key(text: str) -> tuple[str, bytes, bytes]:
    """``name+id+base64(type || key)`` → name, id, key."""
    try:
        name, hex_id, encoded = text.strip().split("+", 2)
        blob = base64.b64decode(encoded, validate=True)
        wanted = bytes.fromhex(hex_id)
    except (ValueError, binascii.Error):
        raise Invalid("not a note key: NAME+ID+BASE64 is wanted", remedy=_WHOLE) from None
    if blob[:1] != ED25519 or len(blob) != 1 + KEY_BYTES or len(wanted) != len(b"hash"):
        raise Invalid("not an Ed25519 note key (type 0x01)")
    return check_name(name), wanted, blob[1:]


@dataclass(frozen=True, slots=True)
class Verifier:
    name: str
    id: bytes
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Raises Invalid unless the id belongs to name and key."""
        name, wanted, public = _split_key(vkey)
        if key_id(name, public) != wanted:
            raise Invalid(
                "the verifier key's id does not belong to its name and key", remedy=_WHOLE
            )
        return cls(name, wanted, public)

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """Holds a private key; ``repr`` never shows it."""

    __slots__ = ("_key", "_seed", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.verifier = Verifier(check_name(name), key_id(name, public), public)

    @classmethod
    def parse(cls, text: str) -> "Signer":
        if not text.startswith(_PRIVATE):
            raise Invalid("not a private note key")
        name, wanted, seed = _split_key(text.removeprefix(_PRIVATE))
        signer = cls(name, seed)
        if signer.verifier.id != wanted:
            raise Invalid("the private key's id does not belong to its name and key")
        return signer

    def export(self) -> str:
        """The secret itself, for the key file only."""
        encoded = base64.b64encode(ED25519 + self._seed).decode()
        return f"{_PRIVATE}{self.verifier.name}+{self.verifier.id.hex()}+{encoded}"

    def sign(self, text: str) -> bytes:
        """A signed note over ``text``, which ends in a newline."""
        if not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
            raise Invalid("a note's text ends in a newline and holds no control characters")
        signature = self.verifier.id + self._key.sign(text.encode())
        line = f"{_MARK}{self.verifier.name} {base64.b64encode(signature).decode()}\n"
        return f"{text}\n{line}".encode()


def open_note(note: bytes, verifier: Verifier) -> str:
    """The text, if ``verifier`` signed it.  Signatures of unknown keys are ignored."""
    text, lines = _parse(note)
    verified = False
    for name, signature in lines:
        if name != verifier.name or signature[:4] != verifier.id:
            continue
        if not verifier.verifies(text.encode(), signature[4:]):
            raise Invalid(f"the signature of {verifier.name} does not fit the text")
        verified = True
    if not verified:
        raise Invalid(f"the note is not signed by {verifier.name} (key {verifier.id.hex()})")
    return text


def signers(note: bytes) -> list[str]:
    """The names under its signatures, none of them checked.  Empty if it is no note."""
    try:
        return [name for name, _ in _parse(note)[1]]
    except Invalid:
        return []


def _parse(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid("the note is not UTF-8") from None
    if len(note) > NOTE_MAX_BYTES or any(c < " " and c != "\n" for c in whole):
        raise Invalid("the note is too long or holds control characters")
    cut = whole.rfind("\n\n")
    tail = whole[cut + 2 :]
    if cut < 0 or not tail.endswith("\n"):
        raise Invalid("not a signed note: text, an empty line and signatures are wanted")
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise Invalid(f"more than {SIGNATURES_MAX} signatures")
    return whole[: cut + 1], [_signature_line(line) for line in lines]


def _signature_line(line: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(_MARK).partition(" ")
    try:
        signature = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        signature = b""
    if not line.startswith(_MARK) or len(signature) <= len(b"hash"):
        raise Invalid("not a signature line: em dash, name and base64 are wanted")
    return check_name(name), signature


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """tlog-checkpoint: origin, tree size, root; no extension lines are written."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Raises Invalid.  Extension lines are opaque and ignored, but never empty."""
        lines = text.split("\n")
        if len(lines) < len(("origin", "size", "root", "end")) or lines[-1] or not all(lines[:-1]):
            raise Invalid("not a checkpoint: origin, size and root on three lines are wanted")
        origin, size, encoded = lines[:3]
        if not (size.isascii() and size.isdigit()) or (size != "0" and size.startswith("0")):
            raise Invalid("the checkpoint's size is not a plain decimal number")
        try:
            root = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            root = b""
        if len(root) != KEY_BYTES or base64.b64encode(root).decode() != encoded:
            raise Invalid("the checkpoint's root is not 32 bytes in base64")
        return cls(origin, int(size), root)


def open_checkpoint(note: bytes, verifier: Verifier) -> Checkpoint:
    """A checkpoint that ``verifier`` signed for the log of its own name."""
    checkpoint = Checkpoint.parse(open_note(note, verifier))
    if checkpoint.origin != verifier.name:
        raise Invalid(f"the checkpoint is of {checkpoint.origin}, the key of {verifier.name}")
    return checkpoint
