"""A permit, its keys and its call, for tests of what tool servers check."""

import json
from typing import Any, Final

from exeat.permit import Permit, load_keys
from exeat.permit.canonical import digest
from exeat.permit.token import Signer

SIGNER, OTHER = Signer(b"k" * 32), Signer(b"o" * 32)
KEYS: Final = load_keys(json.dumps({"keys": [SIGNER.public()]}))
KID: Final = SIGNER.public()["kid"]
NOW: Final = 1_800_000_000
AT: Final = "https://bank.example/mcp"
ARGUMENTS: Final[dict[str, Any]] = {"to": "supplier-17", "amount": 80}
PERMIT: Final = Permit(
    id="a1", issuer="exeat/gw1", audience=AT, agent="bot", user="ada", run="bot/ada",
    decision="gw1-12", tool="transfer", definition="d" * 64, arguments=digest(ARGUMENTS), beside="",
    issued_at=NOW, expires_at=NOW + 10,
)  # fmt: skip
