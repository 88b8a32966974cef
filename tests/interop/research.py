"""Tasks with a real server and a real client: TypeScript SDK 1.x and server-everything (GW-7, GW-8).

Two agents share the server, which cannot tell one from the other; the gateway can.
"""

from typing import Any, Final

from clients import Driven, Failed, Target

ALLOWED: Final = ("tasks/get", "tasks/result", "tasks/cancel")
QUERY: Final[dict[str, Any]] = {
    "tool": "simulate-research-query",
    "arguments": {"topic": "tea", "ambiguous": False},
}


def check(client: Driven, owner: Target, stranger: Target) -> None:
    """Raises Failed."""
    for target in (owner, stranger):
        client.open(target)
    task = client.ask("task", owner, only="created", **QUERY)
    if task.error or not task.text.startswith("ext1."):
        raise Failed(f"no task under a name of the gateway: {task.text}")
    mine = client.ask("get", owner, task=task.text)
    if mine.error:
        raise Failed(f"its owner does not see it: {mine.text}")
    for op in ("get", "cancel"):
        theirs = client.ask(op, stranger, task=task.text)
        if not theirs.error or "Unknown task" not in theirs.text:
            raise Failed(f"a stranger's {op}: {theirs.text}")
    ended = client.ask("cancel", owner, task=task.text)
    if ended.text != "cancelled":
        raise Failed(f"its owner cannot cancel it: {ended.text}")
    whole = client.ask("task", owner, **QUERY)
    if whole.error or "tea" not in whole.text:
        raise Failed(f"the whole way: {whole.text}")
    for target in (owner, stranger):
        client.close(target)
