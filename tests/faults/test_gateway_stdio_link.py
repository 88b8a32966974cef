"""A server on stdio names no call with its questions: they reach the only one that they can belong
to, and none is left without an answer (GW-4, GW-7, GW-12)."""

import json
from typing import Any, cast

import pytest
from requirements import requirement

from exeat.gateway.inbound import RequestId
from exeat.gateway.link import Outbound
from exeat.gateway.link_stdio import StdioLink
from exeat.gateway.methods import CANCELLED, META_SUBSCRIPTION, Era
from exeat.gateway.process import StdioProcess
from exeat.gateway.wire import Incoming


class Pipe:
    """What the server is sent."""

    alive = True

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def send(self, line: bytes) -> None:
        self.lines.append(json.loads(line))


class Client:
    """What one call is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def link_notification(self, method: str, params: bytes) -> None:
        self.told.append((method, json.loads(params)))

    def link_request(self, request_id: RequestId, method: str, params: bytes) -> None:
        self.told.append((method, request_id))

    def link_piece(self, data: bytes) -> None: ...

    def link_result_end(self, result_type: str) -> None: ...

    def link_result(self, result: bytes) -> None:
        self.told.append(("result", json.loads(result)))

    def link_error(self, error: bytes, status: int) -> None: ...

    def link_failed(self, reason: str, *, sent: bool) -> None:
        self.told.append(("failed", sent))


def linked(*, shared: bool = False) -> tuple[StdioLink, Pipe, list[Incoming]]:
    link, pipe, unbound = StdioLink("none", shared=shared), Pipe(), list[Incoming]()
    link.attach(cast(StdioProcess, pipe))
    link.on_unbound = unbound.append
    return link, pipe, unbound


def says(link: StdioLink, **message: Any) -> None:
    link.line(json.dumps({"jsonrpc": "2.0", **message}).encode())


def called(link: StdioLink, client_id: str = "a") -> Client:
    client = Client()
    link.call(Outbound(client_id, "tools/call", {"name": "t"}), client)
    return client


@requirement("GW-4", "GW-7")
def test_the_only_call_is_asked() -> None:
    link, pipe, _ = linked()
    client = called(link)
    says(link, id=7, method="elicitation/create", params={})
    assert client.told == [("elicitation/create", 7)] and len(pipe.lines) == 1


@requirement("GW-7")
@pytest.mark.parametrize(("calls", "shared"), [(0, False), (2, False), (1, True)])
def test_a_question_that_could_be_anybodys_is_refused(calls: int, shared: bool) -> None:
    link, pipe, _ = linked(shared=shared)
    clients = [called(link, str(n)) for n in range(calls)]
    says(link, id="q", method="sampling/createMessage", params={})
    assert (pipe.lines[-1]["id"], pipe.lines[-1]["error"]["code"]) == ("q", -32601)
    assert all(client.told == [] for client in clients)


@requirement("GW-4")
def test_a_ping_of_the_server_is_answered() -> None:
    link, pipe, _ = linked()
    says(link, id=1, method="ping")
    assert pipe.lines == [{"jsonrpc": "2.0", "id": 1, "result": {}}]


@requirement("GW-4", "GW-12")
def test_a_log_reaches_the_only_call_and_never_another_principals() -> None:
    log = {"method": "notifications/message", "params": {"level": "info", "data": "x"}}
    link, _, unbound = linked()
    client = called(link)
    says(link, **log)
    assert [method for method, _ in client.told] == ["notifications/message"] and unbound == []
    link, _, unbound = linked(shared=True)
    client = called(link)
    says(link, **log)
    says(link, method="notifications/tools/list_changed")
    assert client.told == [] and unbound == []


@requirement("GW-7", "GW-9")
def test_what_a_server_cancels_is_named_as_its_client_named_it() -> None:
    """Modern: the end of a subscription.  Legacy: a question of the server's own, of no call's id."""
    link, _, unbound = linked()
    client = called(link, "mine")
    for named in (1, 2, "1", "mine", [1]):
        says(link, method=CANCELLED, params={"requestId": named})
    assert client.told == [(CANCELLED, {"requestId": "mine"})] and unbound == []
    link.era = Era.LEGACY
    says(link, method=CANCELLED, params={"requestId": 1})
    assert len(client.told) == 1 and [each.method for each in unbound] == [CANCELLED]


@requirement("GW-4")
def test_a_subscription_is_named_as_its_client_named_it() -> None:
    link, pipe, unbound = linked()
    other, mine = called(link, "other"), called(link, "listen-1")
    named = {META_SUBSCRIPTION: pipe.lines[1]["id"]}
    says(link, method="notifications/tools/list_changed", params={"_meta": named})
    assert mine.told[0][1] == {"_meta": {META_SUBSCRIPTION: "listen-1"}}
    assert other.told == [] and unbound == []
