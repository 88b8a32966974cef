"""One tree of errors that may leave the process.

Each class says its meaning; each carries a stable code, its HTTP and JSON-RPC faces, and what the
reader can do next.  JSON-RPC codes of our own stay in -31999 … -31000 (mcp.md, POL-3).
"""


class ExeatError(Exception):
    """Base.  ``str(error)`` is one plain sentence; ``remedy`` is the next step, or empty."""

    code = "internal"
    http_status = 500
    rpc_code = -32603

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class NotFound(ExeatError):
    """The named thing does not exist."""

    code, http_status, rpc_code = "not_found", 404, -31004


class Conflict(ExeatError):
    """The change does not fit the present state (revision, lifecycle, duplicate)."""

    code, http_status, rpc_code = "conflict", 409, -31009


class Invalid(ExeatError):
    """The input is not well formed, or breaks a rule that the message names."""

    code, http_status, rpc_code = "invalid", 422, -31022


class Unauthenticated(ExeatError):
    """No credential, or one that is unknown, expired or revoked."""

    code, http_status, rpc_code = "unauthenticated", 401, -31401


class LedgerUnavailable(ExeatError):
    """The decision could not be made durable, so the action must not happen (GW-1)."""

    code, http_status, rpc_code = "ledger_unavailable", 503, -31503


class UpstreamFailed(ExeatError):
    """The upstream is down, slow, or answered nonsense (GW-11)."""

    code, http_status, rpc_code = "upstream_failed", 502, -31502


class StateUnavailable(ExeatError):
    """The state of registry and policy cannot be read, or is too old to decide on."""

    code, http_status, rpc_code = "state_unavailable", 503, -31504


class VaultFailed(ExeatError):
    """A secret cannot be opened: its key is not there, or its row was altered (ID-10)."""

    code, http_status, rpc_code = "vault_failed", 503, -31506
