"""MCP methods as Cedar actions: which are known, what they do, and on what resource (GW-7)."""

from typing import Final

from exeat.core.facts import Effect

TOOL_CALL: Final = "tools/call"
ANY_TOOL: Final = "call_tool"
"""The action group of every tool."""
ANY_METHOD: Final = "mcp"
"""The action group of every method that is not a tool call."""

METHODS: Final[dict[str, Effect]] = {
    "prompts/get": Effect.READ,
    "resources/read": Effect.READ,
    "resources/subscribe": Effect.READ,
    "resources/unsubscribe": Effect.READ,
    "completion/complete": Effect.READ,
    "subscriptions/listen": Effect.READ,
    "logging/setLevel": Effect.READ,
    "tasks/get": Effect.READ,
    "tasks/result": Effect.READ,
    "tasks/list": Effect.READ,
    "tasks/cancel": Effect.WRITE,
    "tasks/update": Effect.WRITE,
    # These three carry what the upstream asks for to a model or a person, and answers back to it.
    "sampling/createMessage": Effect.SEND,
    "elicitation/create": Effect.SEND,
    "roots/list": Effect.SEND,
}
EXTRA_METHOD_EFFECT: Final = Effect.EXECUTE
"""A method that only a registration allows does the unknown: the cautious value."""

LIST_METHODS: Final = frozenset(
    {"tools/list", "prompts/list", "resources/list", "resources/templates/list"}
)
PROMPT_METHODS: Final = frozenset({"prompts/get"})
RESOURCE_METHODS: Final = frozenset(
    {"resources/read", "resources/subscribe", "resources/unsubscribe"}
)


def server_group(server: str) -> str:
    """The action group of one server's tools: ``git/*``."""
    return f"{server}/*"


def effect_group(effect: Effect) -> str:
    """The action group of all tools of one effect: ``effect:read``."""
    return f"effect:{effect.value}"


def reserved(action: str) -> bool:
    """A tool may not carry the name of a method or of a group: its server could then name itself
    into a policy that was written for something else."""
    return (
        action in METHODS or action in LIST_METHODS or action == TOOL_CALL or action.endswith("/*")
    )


def resource_type(method: str) -> str:
    """The Cedar type of the resource of a method that is not a tool call."""
    if method in PROMPT_METHODS:
        return "Prompt"
    return "Resource" if method in RESOURCE_METHODS else "Server"
