"""The MCP methods that exeat knows, and what each is to a gateway (mcp.md; MCP 2025-11-25, 2026-07-28)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class Era(StrEnum):
    LEGACY = "legacy"
    MODERN = "modern"


MODERN_VERSIONS: Final = ("2026-07-28",)
LEGACY_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LEGACY_LATEST: Final = LEGACY_VERSIONS[-1]
LEGACY_DEFAULT: Final = "2025-03-26"
"""What an absent MCP-Protocol-Version header means (2025-11-25, Transports)."""

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT: Final = "io.modelcontextprotocol/clientInfo"
META_LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
META_FORWARDED: Final = frozenset(
    {"progressToken", META_LOG_LEVEL, "traceparent", "tracestate", "baggage"}
)
"""``params._meta`` members that go upstream beside the envelope; anything else stays here."""

META_UNSHOWN: Final = frozenset({"baggage", META_CLIENT})
"""Of these, what the client is free to say: it does not go with a call that people approved, who saw
nothing of it."""

NAME_KEY: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/result": "taskId",
    "tasks/cancel": "taskId",
}
"""Method → the parameter that Mcp-Name mirrors (2026-07-28, Transports)."""

TARGET_KEY: Final[Mapping[str, str]] = {
    **NAME_KEY,
    "resources/subscribe": "uri",
    "resources/unsubscribe": "uri",
}
_RETRY: Final = frozenset({"inputResponses", "requestState"})
LIST_KEY: Final[Mapping[str, str]] = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
RETRYABLE_WITH_INPUT: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Methods whose modern result may be ``input_required`` (SEP-2322)."""
_BOTH: Final = frozenset({*RETRYABLE_WITH_INPUT, *LIST_KEY, "completion/complete"})
CLIENT_METHODS: Final[Mapping[Era, frozenset[str]]] = {
    Era.LEGACY: _BOTH
    | {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"},
    Era.MODERN: _BOTH | {"server/discover", "subscriptions/listen"},
}
SERVER_METHODS: Final = frozenset({"sampling/createMessage", "elicitation/create", "roots/list"})
"""What a server asks of a client: egress towards a model or a person, decided like any action."""

_KINDS: Final = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
_PARTS: Final = {
    "elicitation": ("form", "url"),
    "sampling": ("context", "tools"),
    "roots": (),
}


def kind_of(method: str) -> str:
    """The client's capability that a question needs."""
    return _KINDS[method]


def askable(capabilities: object) -> dict[str, Any]:
    """What a client of either era may be asked for, as the other era says it: the known parts only, so
    that a principal has few connections that differ in nothing but this."""
    if type(capabilities) is not dict:
        return {}
    return {
        kind: {part: {} for part in parts if type(capabilities[kind].get(part)) is dict}
        for kind, parts in _PARTS.items()
        if type(capabilities.get(kind)) is dict
    }


CANCELLED: Final = "notifications/cancelled"
SERVER_NOTIFICATIONS: Final = frozenset(
    {
        CANCELLED,
        "notifications/elicitation/complete",
        "notifications/message",
        "notifications/progress",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
    }
)
CLIENT_NOTIFICATIONS: Final = frozenset(
    {
        CANCELLED,
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
    }
)


MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "tools/call": _RETRY | {"name", "arguments", "task"},
    "prompts/get": _RETRY | {"name", "arguments"},
    "resources/read": _RETRY | {"uri"},
    "resources/subscribe": frozenset({"uri"}),
    "resources/unsubscribe": frozenset({"uri"}),
    "tasks/get": frozenset({"taskId"}),
    "tasks/result": frozenset({"taskId"}),
    "tasks/cancel": frozenset({"taskId"}),
    "completion/complete": frozenset({"ref", "argument", "context"}),
    "logging/setLevel": frozenset({"level"}),
    "subscriptions/listen": frozenset({"notifications"}),
    **{method: frozenset({"cursor"}) for method in LIST_KEY},
}
"""What ``params`` of a known method may hold beside ``_meta``.  Other members are dropped at the door:
what leaves is what was decided and recorded, and no reader beyond can find more in it (GW-2)."""
