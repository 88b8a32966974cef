"""GW-4: what a client of each era gets from a server of each era, feature by feature.

docs/reference/eras.md has the table that this makes; `EXEAT_WRITE_TABLES=1` writes it, and without
that another table there is a failure, for the better or for the worse.
"""

import os
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
import pytest
from gateways import TESTS, Wire, decisions
from matrices import ANSWERING, NOTE, PROMPT, SAYS, Matrix, said
from mcp.client.subscriptions import ResourceUpdated, ToolsListChanged
from mcp.shared.exceptions import MCPDeprecationWarning
from requirements import requirement

pytestmark = pytest.mark.anyio
PAGE = TESTS.parent / "docs" / "reference" / "eras.md"
BEGIN, END = "<!-- made by tests/e2e/test_eras.py -->", "<!-- end -->"
CLIENTS = {"auto": "modern", "legacy": "legacy"}
COLUMNS = {
    "new": "modern, HTTP",
    "pipe": "modern, stdio",
    "old": "legacy, HTTP",
    "oldpipe": "legacy, stdio",
}
PATIENCE_S = 30.0
"""After this, what was to come is taken for lost."""
Probe = Callable[[Matrix, str, str], Awaitable[bool]]


async def calls(matrix: Matrix, mode: str, server: str) -> bool:
    async with matrix.client(server, mode) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
        failed = await client.call_tool("fail", {})
        added = said(await client.call_tool("add", {"a": 2, "b": 3}))
        return {"add", "fail"} <= listed and failed.is_error is True and added == "5"


async def prompts(matrix: Matrix, mode: str, server: str) -> bool:
    async with matrix.client(server, mode) as client:
        prompt = await client.get_prompt(PROMPT, {"name": "exeat"})
        ref = types.PromptReference(name=PROMPT)
        completed = await client.complete(ref, {"name": "name", "value": "x"})
        shown = prompt.messages[0].content.text  # type: ignore[union-attr]
        return shown == "tell me about exeat" and completed.completion.values == ["x-1", "x-2"]


async def resources(matrix: Matrix, mode: str, server: str) -> bool:
    async with matrix.client(server, mode) as client:
        read = await client.read_resource(NOTE)
        return read.contents[0].text == "the first note"  # type: ignore[union-attr]


async def progress(matrix: Matrix, mode: str, server: str) -> bool:
    seen: list[float] = []

    async def note(done: float, *_: Any) -> None:
        seen.append(done)

    async with matrix.client(server, mode) as client:
        await client.call_tool("steps", {}, progress_callback=note)
    return seen == [1, 2]


async def cancelling(matrix: Matrix, mode: str, server: str) -> bool:
    async with matrix.client(server, mode) as client:
        before, under_way = int(said(await client.call_tool("waits_ended", {}))), anyio.Event()

        async def note(*_: Any) -> None:
            under_way.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.call_tool("wait", {}, progress_callback=note))
            await under_way.wait()
            tasks.cancel_scope.cancel()
        while int(said(await client.call_tool("waits_ended", {}))) <= before:
            await anyio.sleep(0.02)
    return True


async def logging(matrix: Matrix, mode: str, server: str) -> bool:
    heard: list[Any] = []

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        heard.append(params.data)

    options: dict[str, Any] = {"log_level": "info"} if mode == "auto" else {}
    async with matrix.client(server, mode, logging_callback=log, **options) as client:
        if mode == "legacy" and server in ("new", "pipe"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MCPDeprecationWarning)
                await client.set_logging_level("info")
        await client.call_tool("say", {})
    return heard == ["said aloud"]


def asking(kind: str) -> Probe:
    async def probe(matrix: Matrix, mode: str, server: str) -> bool:
        async with matrix.client(server, mode, **ANSWERING) as client:
            return SAYS[kind] in said(await client.call_tool("ask", {"kind": kind}))

    return probe


async def changes(matrix: Matrix, mode: str, server: str) -> bool:
    """The server says that its tools changed, and the client is told as its era has it."""
    heard = anyio.Event()

    async def listen(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            heard.set()

    say = "change" if server in ("new", "pipe") else "tell"
    async with matrix.client(server, mode, message_handler=listen) as client:
        if mode == "auto":
            async with client.listen(tools_list_changed=True) as events:
                while not heard.is_set():  # a legacy server's stream opens behind the listening
                    with anyio.move_on_after(0.2):
                        await client.call_tool(say, {})
                        if isinstance(await anext(aiter(events)), ToolsListChanged):
                            heard.set()
                return True
        while not heard.is_set():  # the client's stream opens behind its handshake
            await client.call_tool(say, {})
            await anyio.sleep(0.02)
    return True


async def updates(matrix: Matrix, mode: str, server: str) -> bool:
    """A resource that the client subscribed to changes."""
    heard = anyio.Event()

    async def listen(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification) and message.params.uri == NOTE:
            heard.set()

    async with matrix.client(server, mode, message_handler=listen) as client:
        if mode == "auto":
            async with client.listen(resource_subscriptions=[NOTE]) as events:
                while not heard.is_set():  # a legacy server's stream opens behind the listening
                    with anyio.move_on_after(0.2):
                        await client.call_tool("touch", {})
                        if isinstance(await anext(aiter(events)), ResourceUpdated):
                            heard.set()
                return True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MCPDeprecationWarning)
            await client.subscribe_resource(NOTE)
        while not heard.is_set():
            await client.call_tool("touch", {})
            await anyio.sleep(0.02)
    return True


PROBES: dict[str, Probe] = {
    "tools, results, errors": calls,
    "prompts, completion": prompts,
    "resources": resources,
    "progress": progress,
    "cancelling": cancelling,
    "log messages": logging,
    "elicitation": asking("elicit"),
    "sampling": asking("sample"),
    "roots": asking("roots"),
    "changes of the tool list": changes,
    "changes of a resource": updates,
}
SEEN: dict[tuple[str, str, str], bool] = {}


@requirement("GW-4")
@pytest.mark.parametrize("server", COLUMNS)
@pytest.mark.parametrize("mode", CLIENTS)
@pytest.mark.parametrize("feature", PROBES)
async def test_a_feature_across_eras(matrix: Matrix, feature: str, mode: str, server: str) -> None:
    SEEN[feature, mode, server] = False
    with anyio.fail_after(PATIENCE_S):
        assert await PROBES[feature](matrix, mode, server)
    SEEN[feature, mode, server] = True


@requirement("GW-4")
def test_the_page_has_the_table_that_was_seen() -> None:
    if len(SEEN) < len(PROBES) * len(CLIENTS) * len(COLUMNS):
        pytest.skip("only a part of the matrix was run")
    head = ["feature", "client", *(f"server: {each}" for each in COLUMNS.values())]
    rows = [head, ["---"] * len(head)]
    for feature in PROBES:
        for mode, era in CLIENTS.items():
            cells = ["yes" if SEEN[feature, mode, server] else "no" for server in COLUMNS]
            rows.append([feature, era, *cells])
    made = "\n".join([BEGIN, *(f"| {' | '.join(row)} |" for row in rows), END])
    page = PAGE.read_text()
    if os.environ.get("EXEAT_WRITE_TABLES") == "1":
        page = page.split(BEGIN)[0] + made + page.split(END)[1]
        PAGE.write_text(page)
    assert made in page


# ---- a held call


def held(matrix: Matrix, who: str = "bot") -> tuple[Wire, dict[str, Any]]:
    """A modern client of a legacy server, and what it was asked."""
    wire = Wire(matrix.gateway.port, matrix.keys[who], "/mcp/old")
    wire.offers = {"elicitation": {"form": {}}}
    asked = wire.call("ask", kind="elicit")["result"]
    assert asked["resultType"] == "input_required"
    assert [each["method"] for each in asked["inputRequests"].values()] == ["elicitation/create"]
    return wire, asked


def retry(wire: Wire, asked: dict[str, Any], kind: str = "elicit", **answer: Any) -> Any:
    given = {key: {"action": "accept", "content": answer} for key in asked["inputRequests"]}
    params = {"name": "ask", "arguments": {"kind": kind}, "inputResponses": given}
    params["requestState"] = asked["requestState"]
    return wire.ask("tools/call", params, "ask")


@requirement("GW-4", "GW-7")
def test_a_held_call_is_taken_over_once_by_its_own_principal_and_call(matrix: Matrix) -> None:
    wire, asked = held(matrix)
    stranger = Wire(matrix.gateway.port, matrix.keys["other"], "/mcp/old")
    assert retry(stranger, asked, name="Eve")["error"]["code"] == -32602
    assert retry(wire, asked, kind="sample", name="Eve")["error"]["code"] == -32602
    answered = retry(wire, asked, name="Ada")
    assert "Ada" in answered["result"]["content"][0]["text"]
    assert retry(wire, asked, name="Bob")["error"]["code"] == -32602
    Wire.close_all()


@requirement("GW-1", "GW-7")
def test_the_question_the_answer_and_both_rounds_are_on_record(matrix: Matrix) -> None:
    before = len(decisions(matrix.gateway.home))
    wire, asked = held(matrix)
    retry(wire, asked, name="Ada")
    Wire.close_all()
    mine = [
        (leaf.action.method, leaf.verdict, "exeat/answer" in str(values.get("arguments", "")))
        for leaf, values, _ in decisions(matrix.gateway.home)[before:]
    ]
    assert mine == [
        ("tools/call", "permit", False),
        ("elicitation/create", "permit", False),
        ("elicitation/create", "permit", True),
        ("tools/call", "permit", False),
    ]
