"""The office server of the demo: both eras and transports, countable calls, controls."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

pytestmark = pytest.mark.anyio

OFFICE = Path(__file__).parents[2] / "demo" / "office_server.py"
TOOLS = {
    "list_accounts", "get_balance", "transfer", "list_mail", "read_mail", "search_mail", "send_mail",
    "list_files", "read_file", "write_file", "delete_file", "slow_report",
}  # fmt: skip


def stdio(data: Path, *extra: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable, args=[str(OFFICE), "--data", str(data), *extra]
    )


@contextlib.asynccontextmanager
async def http(data: Path) -> AsyncIterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(OFFICE), "--data", str(data), "--port", str(port)]
    )
    try:
        with anyio.fail_after(30):
            while process.poll() is None:
                with contextlib.suppress(OSError):
                    await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                    break
                await anyio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(10)


def calls(data: Path) -> list[dict[str, Any]]:
    log = data / "calls.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def text(result: Any) -> str:
    return "".join(getattr(block, "text", "") for block in result.content)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_whole_office_over_stdio(tmp_path: Path, mode: str) -> None:
    async with Client(stdio(tmp_path), mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == TOOLS
        assert tools["get_balance"].annotations.read_only_hint
        assert tools["transfer"].annotations.destructive_hint
        assert tools["transfer"].input_schema["properties"]["amount"]["type"] == "number"
        asked = {"from_account": "ops", "to_account": "payroll", "amount": 80, "currency": "EUR"}
        assert "80.00 EUR" in text(await client.call_tool("transfer", asked))
        balance = await client.call_tool("get_balance", {"account": "ops"})
        assert balance.structured_content["balance"] == 12_420
        assert "4711" in text(await client.call_tool("list_mail", {}))
        assert "80 EUR" in text(await client.call_tool("read_mail", {"id": "m1"}))
        found = await client.call_tool("search_mail", {"words": "News", "limit": 2})
        assert [each["id"] for each in found.structured_content["mails"]] == ["m4", "m5"]
        await client.call_tool("write_file", {"path": "a/b.txt", "content": "hi"})
        assert text(await client.call_tool("read_file", {"path": "a/b.txt"})) == "hi"
        await client.call_tool("delete_file", {"path": "a/b.txt"})
        assert "a/b.txt" not in text(await client.call_tool("list_files", {}))
        assert (await client.call_tool("read_file", {"path": "../mail.json"})).is_error
        prompt = await client.get_prompt("summarise", {"topic": "tea"})
        assert "tea" in prompt.messages[0].content.text
        assert "100 EUR" in (await client.read_resource("office://handbook")).contents[0].text
        sheet = await client.read_resource("office://accounts/payroll")
        assert json.loads(sheet.contents[0].text)["currency"] == "EUR"
    assert [call["tool"] for call in calls(tmp_path)] == [
        "transfer", "get_balance", "list_mail", "read_mail", "search_mail", "write_file",
        "read_file", "delete_file", "list_files", "read_file",
    ]  # fmt: skip
    assert calls(tmp_path)[0]["arguments"]["amount"] == 80


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_http_and_the_changed_definition(tmp_path: Path, mode: str) -> None:
    async with http(tmp_path) as url:
        async with Client(url, mode=mode) as client:
            assert text(await client.call_tool("list_accounts", {})) != ""
            before = {tool.name: tool.description for tool in (await client.list_tools()).tools}
        (tmp_path / "changed").touch()
        async with Client(url, mode=mode) as client:
            after = {tool.name: tool.description for tool in (await client.list_tools()).tools}
    assert {name for name in TOOLS if before[name] != after[name]} == {"send_mail"}
    assert [call["tool"] for call in calls(tmp_path)] == ["list_accounts"]


async def test_slow_report_is_logged_at_once_and_ends_when_released(tmp_path: Path) -> None:
    async with Client(stdio(tmp_path)) as client:
        answers: list[str] = []

        async def ask() -> None:
            answers.append(text(await client.call_tool("slow_report", {})))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            with anyio.fail_after(20):
                while not calls(tmp_path):
                    await anyio.sleep(0.02)
            assert answers == []
            (tmp_path / "release").touch()
    assert answers == ["the report is ready"]
