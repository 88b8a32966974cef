"""What the vault holds: sealed secrets, and the keys that wrap their data keys (ID-10)."""

import base64
import binascii
import hmac
import re
from dataclasses import dataclass, field
from typing import Any, Final

from exeat.core.errors import Invalid
from exeat.core.ids import PersonId
from exeat.core.secret import OWN_MARK, SecretId

SECRET_MAX_BYTES: Final = 64 * 1024
KEY_BYTES: Final = 32
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_OWN_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,190}")
_KEY_ID: Final = b"exeat/vault/1/key-id"


@dataclass(frozen=True, slots=True)
class VaultKey:
    """A key-encryption key.  Its ``id`` says nothing of it and may stand in evidence."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        return hmac.digest(self.secret, _KEY_ID, "sha256").hex()[:16]

    def text(self) -> str:
        return base64.b64encode(self.secret).decode("ascii")


@dataclass(frozen=True, slots=True)
class Sealed:
    """``wrapped``: the data key, under the key ``key``.  ``body``: the value, under the data key."""

    key: str
    wrapped: bytes = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Secret:
    """A value at rest.  ``version`` grows with each value of this id.  ``at``: nanoseconds."""

    id: SecretId
    version: int
    sealed: Sealed
    by: PersonId
    at: int

    def as_json(self) -> dict[str, Any]:
        """For evidence and lists: neither the value, nor a digest of it, nor its length."""
        return {
            "name": self.id.name,
            "server": self.id.upstream,
            "agent": self.id.agent,
            "version": self.version,
            "key": self.sealed.key,
        }


@dataclass(frozen=True, slots=True)
class Rotation:
    """``before``: ids of the keys that no secret uses any more."""

    before: tuple[str, ...]
    after: str
    rewrapped: int


def parse_keys(text: str, source: str) -> tuple[VaultKey, ...]:
    """Base64 of 32 bytes each, apart by white space; the first seals, the others only open.

    ``source`` is named in the error, which never quotes the text.  Raises Invalid.
    """
    keys = []
    for word in text.split():
        try:
            secret = base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) != KEY_BYTES:
            raise Invalid(
                f"{source} does not hold keys of {KEY_BYTES} bytes in base64.",
                remedy="A key is made with: openssl rand -base64 32",
            )
        keys.append(VaultKey(secret))
    if len({key.id for key in keys}) != len(keys):
        raise Invalid(f"{source} holds one key twice.", remedy="Keep one of them.")
    return tuple(keys)


def check_id(id: SecretId) -> None:
    """Raises Invalid unless the name is one that a person, or exeat itself, can give."""
    pattern = _OWN_NAME if OWN_MARK in id.name else _NAME
    if not pattern.fullmatch(id.name):
        raise Invalid(
            f"{id.name!r} cannot be the name of a secret.",
            remedy="Use 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit.",
        )


def check_value(name: str, value: bytes) -> None:
    """Raises Invalid; the message names the secret and says nothing of the value."""
    if not value:
        raise Invalid(f"The value of secret {name} is empty.", remedy="Give it on standard input.")
    if len(value) > SECRET_MAX_BYTES:
        raise Invalid(
            f"The value of secret {name} is longer than {SECRET_MAX_BYTES} bytes.",
            remedy="Is it the right file?  Keep large data elsewhere and its key here.",
        )


def header_value(name: str, value: bytes) -> str:
    """The value as an HTTP header can carry it (RFC 9110 section 5.5).  Raises Invalid."""
    text = value.decode("ascii", "replace")
    if not value.isascii() or not text.isprintable() or text != text.strip():
        raise Invalid(
            f"Secret {name} cannot be sent in a header: it holds a line end, a NUL, other control "
            "characters, white space at an end, or is not ASCII.",
            remedy=f"Set it again without: exeat secret set {name}",
        )
    return text


def variable_value(name: str, value: bytes) -> str:
    """The value as an environment variable can carry it.  Raises Invalid."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:
        raise Invalid(
            f"Secret {name} cannot be an environment variable: it holds a NUL or is not UTF-8.",
            remedy=f"Set it again without: exeat secret set {name}",
        )
    return text
