"""A passkey in software: what an authenticator and a browser send, also what they should not."""

import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


def text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def plain(said: str) -> bytes:
    return urlsafe_b64decode(said + "=" * (-len(said) % 4))


class Authenticator:
    """``verified`` False: it does not ask for PIN or finger."""

    def __init__(self, origin: str, *, verified: bool = True) -> None:
        self.origin, self.verified = origin, verified
        self.count = 0
        self.id = os.urandom(16)
        self.user = b""
        self._key = ec.generate_private_key(ec.SECP256R1())

    def create(self, options: dict[str, Any], **client: Any) -> dict[str, Any]:
        assert options["authenticatorSelection"]["userVerification"] == "required"
        assert options["authenticatorSelection"]["residentKey"] == "required"
        self.user = plain(options["user"]["id"])
        numbers = self._key.public_key().public_numbers()
        key = {
            1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big"),
        }  # fmt: skip
        attested = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cbor2.dumps(key)
        data = self._data(options["rp"]["id"], 0x40) + attested
        made = {"fmt": "none", "attStmt": {}, "authData": data}
        return self._said(
            attestationObject=text(cbor2.dumps(made)),
            clientDataJSON=self._client("webauthn.create", options["challenge"], client),
        )

    def get(self, options: dict[str, Any], **client: Any) -> dict[str, Any]:
        assert options["userVerification"] == "required"
        assert not options.get("allowCredentials")
        self.count += 1
        data = self._data(options["rpId"], 0)
        said = self._client("webauthn.get", options["challenge"], client)
        signed = data + sha256(plain(said)).digest()
        signature = self._key.sign(signed, ec.ECDSA(hashes.SHA256()))
        return self._said(
            clientDataJSON=said,
            authenticatorData=text(data),
            signature=text(signature),
            userHandle=text(self.user),
        )

    def _said(self, **response: str) -> dict[str, Any]:
        name = text(self.id)
        return {"id": name, "rawId": name, "type": "public-key", "response": response}

    def _client(self, kind: str, challenge: str, changes: dict[str, Any]) -> str:
        said = {"type": kind, "challenge": challenge, "origin": self.origin, **changes}
        return text(json.dumps(said).encode())

    def _data(self, rp: str, flags: int) -> bytes:
        flags |= 0x01 | (0x04 if self.verified else 0)
        return sha256(rp.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big")
