"""A stock client whose call waits for people: kept open with progress, told to come again, or asked to open
a page (APP-4).  The official SDK's client, in both eras."""

import json
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from browsing import Browser
from gateways import Gateway, agent, running
from homes import ADA
from offices import Office
from requirements import requirement

pytestmark = [pytest.mark.anyio, pytest.mark.long]
ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])
PAYMENT = {"amount": 500, "to": "bob"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()


def said(result: Any) -> str:
    return " ".join(each.text for each in result.content)


async def approve(office: Office) -> str:
    """What a person does meanwhile."""
    hold = await anyio.to_thread.run_sync(office.asked)
    await anyio.to_thread.run_sync(office.approve, hold)
    return hold


@requirement("APP-4")
@ERAS
async def test_it_is_kept_open_with_progress_and_then_made(office: Office, mode: str) -> None:
    told: list[tuple[float, str]] = []
    with running(Gateway(office.home.path, hold_wait_s="60")) as gateway:
        async with (
            agent(gateway.endpoint("c"), office.key, mode) as client,
            anyio.create_task_group() as group,
        ):

            async def progress(done: float, total: float | None, message: str | None) -> None:
                told.append((done, message or ""))
                if len(told) == 1:
                    group.start_soon(approve, office)

            result = await client.call_tool("pay", PAYMENT, progress_callback=progress)
    assert said(result) == "paid 500.0 to bob" and not result.is_error
    assert "waiting for the agent's owner" in told[0][1]
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert [each["amount"] for each in office.carried_out()] == [500]


@requirement("APP-4")
@ERAS
async def test_the_model_is_told_and_the_same_call_finds_its_approval(
    office: Office, mode: str
) -> None:
    with running(Gateway(office.home.path, hold_wait_s="0")) as gateway:
        async with agent(gateway.endpoint("c"), office.key, mode) as client:
            held = await client.call_tool("pay", PAYMENT)
            assert held.is_error and said(held).startswith("Held by exeat")
            hold = await approve(office)
            assert hold in said(held)
            assert said(await client.call_tool("pay", PAYMENT)) == "paid 500.0 to bob"
            assert (await client.call_tool("pay", PAYMENT)).is_error
    assert len(office.carried_out()) == 1


def visit(office: Office, url: str) -> None:
    """In browsers: who has not signed in sees nothing of the call; an approver, how it stands."""
    control = url.partition("/holds/")[0]
    with Browser(control) as stranger, Browser(control) as ada:
        page = stranger.get(url)
        assert "passkey" in page.text and "500" not in page.text and "bob" not in page.text
        ada.sign_in(office.home, ADA)
        assert 'id="state">waits<' in ada.get(url).text
        office.approve(office.asked())
        assert 'id="state">approved<' in ada.get(url).text
        gone = ada.get(url.rpartition("/")[0] + "/h-none")
        assert gone.status_code == 404


@requirement("APP-4")
async def test_a_modern_client_that_opens_pages_is_shown_one(office: Office) -> None:
    pages: list[str] = []

    async def opens(context: Any, params: Any) -> types.ElicitResult:
        assert params.mode == "url" and "approved" in params.message
        pages.append(params.url)
        await anyio.to_thread.run_sync(visit, office, params.url)
        return types.ElicitResult(action="accept")

    with running(Gateway(office.home.path, hold_wait_s="20", control_port=free())) as gateway:
        url = gateway.endpoint("c")
        async with agent(url, office.key, elicitation_callback=opens) as client:
            result = await client.call_tool("pay", PAYMENT)
    assert said(result) == "paid 500.0 to bob"
    (page,) = pages
    assert "/holds/" in page and len(office.carried_out()) == 1


@requirement("APP-4")
async def test_a_legacy_client_that_opens_pages_gets_its_own_error(office: Office) -> None:
    with running(Gateway(office.home.path, hold_wait_s="0", control_port=free())) as gateway:
        url = gateway.endpoint("c")
        unused = partial(pytest.fail, "is not asked by a request")
        async with agent(url, office.key, "legacy", elicitation_callback=unused) as client:
            with pytest.raises(Exception, match="waits until the agent's owner") as error:
                await client.call_tool("pay", PAYMENT)
            assert error.value.error.code == -32042  # type: ignore[attr-defined]
            data = json.loads(json.dumps(error.value.error.data))  # type: ignore[attr-defined]
            hold = await approve(office)
            assert data["elicitations"][0]["elicitationId"] == hold
            assert said(await client.call_tool("pay", PAYMENT)) == "paid 500.0 to bob"


def free() -> str:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return str(found.getsockname()[1])
