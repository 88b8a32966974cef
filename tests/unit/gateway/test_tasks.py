"""Tasks belong to the principal whose call made them; to everybody else they do not exist (GW-7, GW-8)."""

from typing import Any

import pytest
from requirements import requirement
from worlds import Answer, Seen, World

from exeat.gateway.tasks import TaskNames

pytestmark = pytest.mark.anyio
ALLOWED = frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/list", "tasks/update"})
RELATED = "io.modelcontextprotocol/related-task"
TASK = {"taskId": "t-1", "status": "working", "createdAt": "x", "ttlMs": None}
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])


async def server(seen: Seen) -> None:
    """Knows one task, whoever asks: all agents of the gateway are one client to it."""
    params, method = seen.message["params"], seen.method
    if method == "tools/call":
        made: dict[str, Any] = {**TASK, "resultType": "task"}
        seen.result(made if "_meta" in params else {"task": TASK})
    elif params.get("taskId") != "t-1":
        seen.error(-32602)
    elif method == "tasks/result":
        seen.result({"content": [], "_meta": {RELATED: {"taskId": "t-1"}}})
    else:
        seen.result({**TASK, "resultType": "complete"})


class Agent:
    """One agent's client of one era."""

    def __init__(self, world: World, era: str, key: str = "bot") -> None:
        self.world, self.era, self.key = world, era, key
        self.session = ""

    async def ask(self, method: str, params: dict[str, Any]) -> Answer:
        if self.era == "modern":
            return await self.world.ask(self.world.modern(method, params, key=self.key))
        if not self.session:
            self.session = await self.world.session(self.key)
        return await self.world.ask(self.world.old(method, params, self.session, key=self.key))

    async def task(self) -> str:
        """The name of a new task, as this agent is shown it."""
        answer = await self.ask("tools/call", {"name": "add", "task": {"ttl": 9, "x": 1}})
        result = answer.json["result"]
        named = result if self.era == "modern" else result["task"]
        assert named["status"] == "working"
        return str(named["taskId"])


def opened(era: str, extra: frozenset[str] = ALLOWED) -> World:
    world = World(legacy=era == "legacy", extra_methods=extra)
    return world


@requirement("GW-7", "GW-8")
@ERAS
async def test_its_owner_sees_and_cancels_a_task(era: str) -> None:
    async with opened(era) as world:
        world.upstream.script = server
        bot = Agent(world, era)
        task = await bot.task()
        assert "t-1" not in task
        sent = world.upstream.calls[-1].message["params"]
        assert sent.get("task") == (None if era == "modern" else {"ttl": 9})
        for method in ("tasks/get", "tasks/cancel"):
            answer = await bot.ask(method, {"taskId": task})
            assert answer.json["result"]["taskId"] == task
            assert world.upstream.calls[-1].message["params"]["taskId"] == "t-1"
            request, decision = world.ledger.decisions[-1]
            assert (request.method, decision.permitted) == (method, True)
            assert request.arguments == {"taskId": "t-1"}
        related = (await bot.ask("tasks/result", {"taskId": task})).json["result"]["_meta"]
        assert related[RELATED]["taskId"] == task
        if era == "modern":
            assert b"mcp-name: t-1\r\n" in world.upstream.calls[-1].head.lower()


@requirement("GW-7", "GW-8")
@ERAS
@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/cancel"])
async def test_to_others_a_task_does_not_exist(era: str, method: str) -> None:
    async with opened(era) as world:
        world.upstream.script = server
        task = await Agent(world, era).task()
        eve = Agent(world, era, "eve")
        await eve.ask("tools/list", {})
        calls = len(world.upstream.calls)
        theirs = await eve.ask(method, {"taskId": task})
        nobodys = await eve.ask(method, {"taskId": task[:-4] + "AAA="})
        plain = await eve.ask(method, {"taskId": "t-1"})
        assert theirs.error == {"code": -32602, "message": f"Unknown task: {task}"}
        assert nobodys.error["message"] == f"Unknown task: {task[:-4]}AAA="
        assert plain.error["message"] == "Unknown task: t-1"
        assert theirs.status == nobodys.status == plain.status
        assert len(world.upstream.calls) == calls
        reasons = [str(decision.reason) for _, decision in world.ledger.decisions[-3:]]
        assert reasons == ["action_unknown"] * 3


@requirement("GW-7")
@ERAS
@pytest.mark.parametrize("method", ["tasks/list", "tasks/update"])
async def test_what_names_no_owner_is_never_served(era: str, method: str) -> None:
    async with opened(era) as world:
        answer = await Agent(world, era).ask(method, {"taskId": "t-1"})
        assert answer.error["code"] == -32601
        assert world.upstream.calls == []


@requirement("GW-7")
@ERAS
async def test_without_a_registration_there_are_no_tasks(era: str) -> None:
    async with opened(era, frozenset({"tasks/cancel"})) as world:
        world.upstream.script = server
        bot = Agent(world, era)
        answer = await bot.ask("tools/call", {"name": "add", "task": {"ttl": 9}})
        assert "task" not in world.upstream.calls[-1].message["params"]
        if era == "modern":
            assert answer.error["code"] == -31502
        for method in ("tasks/get", "tasks/cancel"):
            assert (await bot.ask(method, {"taskId": "t-1"})).error["code"] == -32601


@requirement("GW-7")
async def test_questions_of_a_task_reach_nobody_undecided() -> None:
    async def asks(seen: Seen) -> None:
        if seen.method == "tools/call":
            await server(seen)
        else:
            question = {"q": {"method": "elicitation/create", "params": {"message": "password?"}}}
            seen.result({**TASK, "inputRequests": question, "resultType": "complete"})

    async with opened("modern") as world:
        world.upstream.script = asks
        bot = Agent(world, "modern")
        answer = await bot.ask("tasks/get", {"taskId": await bot.task()})
        assert answer.error["code"] == -31502
        assert "password" not in str(answer.json)


@requirement("GW-8")
def test_names_are_stable_bound_and_one_spelling_only() -> None:
    names, again = TaskNames(b"k" * 32), TaskNames(b"k" * 32)
    name = names.shown("up", "bot/-", "t-1")
    assert again.shown("up", "bot/-", "t-1") == name
    assert again.meant("up", "bot/-", name) == "t-1"
    for wrong in (("up", "eve/-", name), ("down", "bot/-", name), ("up", "bot/-", name + "\n")):
        assert names.meant(*wrong) is None
    assert TaskNames(b"x" * 32).meant("up", "bot/-", name) is None
    for wrong in ("", "t-1", "ext1.", None, 5, name.replace("ext1.", "exs1.")):
        assert names.meant("up", "bot/-", wrong) is None
