"""The gateways' public keys, as a tool server is given them: a JWK Set (RFC 7517) in a file or a text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from exeat.permit.token import PermitRefused, _unbase64, key_id, parse_object

KEYS_MAX_BYTES: Final = 64 * 1024
Keys = Mapping[str, Ed25519PublicKey]


class KeysUnusable(ValueError):
    """The text is no JWK Set with keys of gateways; the message says why."""


def load_keys(*sources: Path | str) -> dict[str, Ed25519PublicKey]:
    """Key id → key.  A ``Path`` is read; a text is a JWK Set itself, as `exeat permit keys` prints it.
    Several gateways: several sources, or one set with all keys.  Raises KeysUnusable, OSError."""
    keys: dict[str, Ed25519PublicKey] = {}
    for source in sources:
        keys |= dict(map(_key, _members(source)))
    if not keys:
        raise KeysUnusable("there is no key in it")
    return keys


def _members(source: Path | str) -> list[Any]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            raw = file.read(KEYS_MAX_BYTES + 1)
    else:
        raw = source.encode("utf-8", "surrogatepass")
    if len(raw) > KEYS_MAX_BYTES:
        raise KeysUnusable(f"it is longer than {KEYS_MAX_BYTES} bytes")
    try:
        members = parse_object(raw.decode("utf-8")).get("keys")
    except (ValueError, RecursionError):
        raise KeysUnusable("it is not a JWK Set") from None
    if type(members) is not list:
        raise KeysUnusable("it is not a JWK Set")
    return members


def _key(jwk: Any) -> tuple[str, Ed25519PublicKey]:
    if type(jwk) is not dict or jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise KeysUnusable("a key in it is not one of Ed25519")
    if "d" in jwk:
        raise KeysUnusable("it holds a private key, which nobody but its gateway may have")
    try:
        key = Ed25519PublicKey.from_public_bytes(_unbase64(str(jwk.get("x"))))
    except (PermitRefused, ValueError):
        raise KeysUnusable("a key in it cannot be read") from None
    if jwk.get("kid", key_id(key)) != key_id(key):
        raise KeysUnusable("a key in it bears another key's id")
    return key_id(key), key
