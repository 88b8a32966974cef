"""GW-4: clients of either era, through a real gateway, to servers of either era over HTTP and stdio."""

import json
import warnings
from typing import Any

import anyio
import mcp_types as types
import pytest
from gateways import decisions
from matrices import (
    ANSWERING,
    NOTE,
    PROMPT,
    SAYS,
    SERVERS,
    TOOLS,
    Matrix,
    answer_ada,
    each_pair,
    said,
)
from mcp import MCPError
from mcp.client.subscriptions import ToolsListChanged
from mcp.shared.exceptions import MCPDeprecationWarning
from requirements import requirement

pytestmark = pytest.mark.anyio


@requirement("GW-4")
@each_pair
async def test_plain_work_across_eras(matrix: Matrix, mode: str, server: str) -> None:
    async with matrix.client(server, mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        added = await client.call_tool("add", {"a": 2, "b": 3})
        assert (said(added), added.structured_content) == ("5", {"result": 5})
        failed = await client.call_tool("fail", {})
        assert failed.is_error and "this went wrong" in said(failed)
        assert [each.name for each in (await client.list_prompts()).prompts] == [PROMPT]
        prompt = await client.get_prompt(PROMPT, {"name": "exeat"})
        assert prompt.messages[0].content.text == "tell me about exeat"  # type: ignore[union-attr]
        assert [str(each.uri) for each in (await client.list_resources()).resources] == [NOTE]
        read = await client.read_resource(NOTE)
        assert read.contents[0].text == "the first note"  # type: ignore[union-attr]
        templates = (await client.list_resource_templates()).resource_templates
        assert [each.uri_template for each in templates] == ["note://by/{title}"]
        read = await client.read_resource("note://by/b%C3%A4r")
        assert read.contents[0].text.startswith("note b")  # type: ignore[union-attr]
        with pytest.raises(MCPError):
            await client.read_resource("nothing://there")
        with pytest.raises(MCPError):
            await client.get_prompt("no-such-prompt", {})
        completed = await client.complete(
            types.PromptReference(name=PROMPT), {"name": "name", "value": "x"}
        )
        assert completed.completion.values == ["x-1", "x-2"]


@requirement("GW-4")
@each_pair
async def test_progress_across_eras(matrix: Matrix, mode: str, server: str) -> None:
    seen: list[tuple[float, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, message))

    async with matrix.client(server, mode) as client:
        assert said(await client.call_tool("steps", {}, progress_callback=progress)) == "done"
    assert seen == [(1, "half"), (2, "whole")]


@requirement("GW-4")
@each_pair
async def test_logging_across_eras(matrix: Matrix, mode: str, server: str) -> None:
    """A modern client opts in with each request; between eras there is no such opt-in to carry on,
    except that a legacy server speaks unasked."""
    heard: list[Any] = []

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        heard.append(params.data)

    options: dict[str, Any] = {"logging_callback": log}
    if mode == "auto":
        options["log_level"] = "info"
    async with matrix.client(server, mode, **options) as client:
        assert said(await client.call_tool("say", {})) == "said"
    modern_server_unasked = mode == "legacy" and server in ("pipe", "new")
    assert heard == ([] if modern_server_unasked else ["said aloud"])


@requirement("GW-4", "GW-9")
@each_pair
async def test_cancelling_reaches_the_server(matrix: Matrix, mode: str, server: str) -> None:
    async with matrix.client(server, mode) as client:
        before = int(said(await client.call_tool("waits_ended", {})))
        under_way = anyio.Event()

        async def progress(*_: Any) -> None:
            under_way.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.call_tool("wait", {}, progress_callback=progress))
            with anyio.fail_after(10):
                await under_way.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(5):
            while int(said(await client.call_tool("waits_ended", {}))) <= before:
                await anyio.sleep(0.02)


@requirement("GW-4")
@pytest.mark.parametrize("server", SERVERS)
async def test_a_legacy_client_can_ping(matrix: Matrix, server: str) -> None:
    async with matrix.client(server, "legacy") as client:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MCPDeprecationWarning)
            await client.send_ping()


METHODS = {
    "elicit": "elicitation/create",
    "sample": "sampling/createMessage",
    "roots": "roots/list",
}


@requirement("GW-4", "GW-7")
@each_pair
async def test_questions_are_carried_when_permitted(matrix: Matrix, mode: str, server: str) -> None:
    async with matrix.client(server, mode, **ANSWERING) as client:
        for kind, answer in SAYS.items():
            asked = await client.call_tool("ask", {"kind": kind})
            assert answer in said(asked), (kind, said(asked))
            assert "secret-state" not in said(asked)
    mine = [leaf for leaf, _, _ in decisions(matrix.gateway.home) if leaf.action.server == server]
    for method in METHODS.values():
        assert any(leaf.action.id == method and leaf.verdict == "permit" for leaf in mine)


@requirement("GW-4", "GW-7")
@each_pair
async def test_questions_are_not_put_when_forbidden(matrix: Matrix, mode: str, server: str) -> None:
    reached: list[str] = []

    async def never(*_: Any) -> Any:
        reached.append("the client was asked")
        return await answer_ada(None, None)

    options = dict.fromkeys(ANSWERING, never)
    async with matrix.client(server, mode, "mute", **options) as client:
        for kind in SAYS:
            try:
                answer = await client.call_tool("ask", {"kind": kind})
                assert answer.is_error and "Denied" in said(answer), (kind, answer)
            except MCPError as error:  # the server passes the refusal on
                assert "Denied" in str(error), kind
    assert reached == []
    mine = [leaf for leaf, _, _ in decisions(matrix.gateway.home) if leaf.agent.id == "mute"]
    forbidden = {leaf.action.id for leaf in mine if leaf.reason == "forbidden"}
    assert forbidden == set(METHODS.values())


@requirement("GW-4", "GW-7")
@each_pair
async def test_a_client_that_cannot_answer_is_not_asked_and_nothing_hangs(
    matrix: Matrix, mode: str, server: str
) -> None:
    async with matrix.client(server, mode) as client:
        with anyio.fail_after(10):
            try:
                answer = await client.call_tool("ask", {"kind": "roots"})
                assert answer.is_error, answer
            except MCPError as error:
                words = ("not supported", "not available", "does not serve", "lacks")
                assert any(word in str(error) for word in words), error
            assert said(await client.call_tool("add", {"a": 1, "b": 1})) == "2"


@requirement("GW-4")
@pytest.mark.parametrize("server", ["both", "old", "oldpipe"])
async def test_a_legacy_server_says_that_its_tools_changed(matrix: Matrix, server: str) -> None:
    heard = anyio.Event()

    async def listen(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            heard.set()

    async with matrix.client(server, "legacy", message_handler=listen) as client:
        with anyio.fail_after(10):
            while not heard.is_set():  # the client's stream opens behind its handshake
                assert said(await client.call_tool("tell", {})) == "told"
                await anyio.sleep(0.02)


@requirement("GW-4", "GW-5")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_git_and_time_servers_do_their_work(matrix: Matrix, mode: str) -> None:
    async with matrix.client("git", mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "git_log" in names
        log = await client.call_tool("git_log", {"repo_path": str(matrix.repository)})
        assert "the only commit" in said(log)
    async with matrix.client("time", mode) as client:
        assert len((await client.list_tools()).tools) == 2
        now = await client.call_tool("get_current_time", {"timezone": "UTC"})
        assert json.loads(said(now))["timezone"] == "UTC"
        wrong = await client.call_tool("get_current_time", {"timezone": "Mars/Olympus"})
        assert wrong.is_error


@requirement("GW-4")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_all_servers_on_one_endpoint(matrix: Matrix, mode: str) -> None:
    async with matrix.client("", mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        for server in SERVERS:
            assert {f"{server}__{tool}" for tool in TOOLS} <= names
            added = await client.call_tool(f"{server}__add", {"a": 2, "b": 2})
            assert said(added) == "4"
            prompt = await client.get_prompt(f"{server}__{PROMPT}", {"name": "x"})
            assert prompt.messages[0].content.text == "tell me about x"  # type: ignore[union-attr]
            completed = await client.complete(
                types.PromptReference(name=f"{server}__{PROMPT}"), {"name": "name", "value": "y"}
            )
            assert completed.completion.values == ["y-1", "y-2"]
        assert {"git__git_log", "time__get_current_time"} <= names
        for wrong in ("add", "both__nothing", "nobody__add"):
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool(wrong, {"a": 1, "b": 1})


@requirement("GW-4")
@pytest.mark.parametrize("server", ["both", "pipe"])
async def test_a_subscription_carries_changes(matrix: Matrix, server: str) -> None:
    async with (
        matrix.client(server, "auto") as client,
        client.listen(tools_list_changed=True) as events,
    ):
        assert said(await client.call_tool("change", {})) == "changed"
        with anyio.fail_after(5):
            assert isinstance(await anext(aiter(events)), ToolsListChanged)
