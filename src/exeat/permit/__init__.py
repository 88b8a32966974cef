"""Signed, single-use permits (ID-11): what a tool server demands so that nobody goes around the gateway.

For Python MCP servers; needs ``cryptography`` and imports nothing else of exeat.

    app = PermitRequired(app, keys=load_keys(Path("permit-keys.json")), audience="https://bank/mcp")

or, where there is no HTTP, ``verify_call`` (params of a tools/call) and ``verify``.
"""

from exeat.permit.asgi import HEADER, PermitRequired
from exeat.permit.canonical import NotCanonical, canonical, definition_digest, digest
from exeat.permit.keys import KeysUnusable, load_keys
from exeat.permit.seen import Seen
from exeat.permit.token import Permit, PermitRefused, Refusal
from exeat.permit.verify import META_KEY, verify, verify_call

__all__ = [
    "HEADER",
    "META_KEY",
    "KeysUnusable",
    "NotCanonical",
    "Permit",
    "PermitRefused",
    "PermitRequired",
    "Refusal",
    "Seen",
    "canonical",
    "definition_digest",
    "digest",
    "load_keys",
    "verify",
    "verify_call",
]
