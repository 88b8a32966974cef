"""The benchmark's policy set: 55 % group + tool with an argument bound, 20 % agent + server, 25 % forbids.

Two servers with the same tools: ``bank`` stands under argument rules, ``shop`` does not, so half of all
tools are under argument rules.  The calling agent ``bot`` is in group ``g0``.
"""

from typing import Final

GROUPS: Final = 10
AGENTS: Final = 100
BOUND: Final = 1_000
AGENT: Final = "bot"


def policies(count: int, tools: list[str]) -> str:
    """Cedar text of ``count`` policies; the first of each kind concern ``bot``."""
    bounded, by_agent = count * 55 // 100, max(1, count * 20 // 100)
    texts = [_bounded(index, tools) for index in range(bounded)]
    texts += [_by_agent(index) for index in range(by_agent)]
    texts += [_forbid(index, tools) for index in range(count - bounded - by_agent)]
    return "\n".join(texts)


def _bounded(index: int, tools: list[str]) -> str:
    tool, group = tools[index % len(tools)], index // len(tools) % GROUPS
    return (
        f'@id("bound-{index}") permit(principal in Group::"g{group}", action == Action::"bank/{tool}",'
        f" resource) when {{ context.input.amount <= {BOUND + index} }};"
    )


def _by_agent(index: int) -> str:
    agent = AGENT if index == 0 else f"agent-{index % (AGENTS - 1)}"
    return (
        f'@id("agent-{index}")'
        f' permit(principal == Agent::"{agent}", action in Action::"shop/*", resource);'
    )


def _forbid(index: int, tools: list[str]) -> str:
    tool = tools[index // 2 % len(tools)]
    if index % 2 == 0:
        return (
            f'@id("forbid-{index}") forbid(principal, action == Action::"bank/{tool}", resource)'
            f' when {{ context.input.to like "*blocked-{index}*" }};'
        )
    return (
        f'@id("forbid-{index}") forbid(principal in Group::"g{1 + index % (GROUPS - 1)}",'
        f' action == Action::"shop/{tool}", resource);'
    )
