"""Many calls on one pipe: ids and progress tokens are ours, and nothing reaches another call (GW-5)."""

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.core.errors import UpstreamFailed
from exeat.gateway.link import Outbound
from exeat.gateway.link_stdio import StdioLink


class Pipe:
    """A process that only takes lines."""

    alive = True
    full = False

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def send(self, line: bytes) -> None:
        if self.full:
            raise UpstreamFailed("does not read its input")
        self.lines.append(json.loads(line))


class Sink:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def link_notification(self, method: str, params: bytes) -> None:
        self.told.append((method, json.loads(params)))

    def link_request(self, request_id: Any, method: str, params: bytes) -> None:
        self.told.append(("asked", request_id, method))

    def link_piece(self, data: bytes) -> None: ...

    def link_result_end(self, result_type: str) -> None: ...

    def link_result(self, result: bytes) -> None:
        self.told.append(("result", json.loads(result)))

    def link_error(self, error: bytes, status: int) -> None:
        self.told.append(("error", json.loads(error)))

    def link_failed(self, reason: str, *, sent: bool) -> None:
        self.told.append(("failed", reason, sent))


class World:
    def __init__(self, *, shared: bool = False) -> None:
        self.pipe = Pipe()
        self.link = StdioLink("none", shared=shared)
        self.link.attach(cast(Any, self.pipe))

    def call(self, request_id: Any = 1, token: Any = None) -> tuple[Sink, Any]:
        params = {"_meta": {"progressToken": token}} if token is not None else {}
        sink = Sink()
        handle = self.link.call(Outbound(request_id, "tools/call", params), sink)
        return sink, handle

    def say(self, **message: Any) -> None:
        self.link.line(json.dumps({"jsonrpc": "2.0", **message}).encode())


@requirement("GW-5")
def test_two_callers_with_one_id_get_their_own_answers() -> None:
    world = World()
    (one, _), (two, _) = world.call("x"), world.call("x")
    first, second = (line["id"] for line in world.pipe.lines)
    assert first != second
    world.say(id=second, result={"n": 2})
    world.say(id=first, result={"n": 1})
    world.say(id=first, result={"n": 3})  # a second answer is nobody's
    assert (one.told, two.told) == ([("result", {"n": 1})], [("result", {"n": 2})])


@requirement("GW-11")
@pytest.mark.parametrize("odd", ["1", 1.0, True, None, [1], {"a": 1}, 99, -1])
def test_an_answer_counts_only_under_the_very_id(odd: Any) -> None:
    world = World()
    sink, _ = world.call()
    world.say(id=odd, result={})
    assert sink.told == []
    assert world.link.busy


@requirement("GW-5")
def test_progress_reaches_the_call_that_asked_for_it() -> None:
    world = World()
    (one, _), (two, _) = world.call(1, "token"), world.call(2, "token")
    mine = world.pipe.lines[1]["params"]["_meta"]["progressToken"]
    for token in (mine, "token", True, None, 77, [], 1.0):
        world.say(method="notifications/progress", params={"progressToken": token, "progress": 1})
    assert one.told == []
    assert two.told == [("notifications/progress", {"progressToken": "token", "progress": 1})]


@requirement("GW-9")
def test_giving_up_tells_the_server_and_silences_the_rest() -> None:
    world = World()
    sink, handle = world.call()
    handle.cancel()
    handle.cancel()
    assert [line["method"] for line in world.pipe.lines] == [
        "tools/call", "notifications/cancelled",
    ]  # fmt: skip
    assert world.pipe.lines[1]["params"]["requestId"] == world.pipe.lines[0]["id"]
    world.say(id=world.pipe.lines[0]["id"], result={})
    assert sink.told == []


@requirement("GW-5", "GW-11")
def test_the_end_of_the_process_fails_each_call_once() -> None:
    world = World()
    (one, _), (two, _) = world.call(), world.call()
    world.link.exited("ended (code 1)")
    world.link.exited("ended again")
    assert one.told == two.told == [("failed", "ended (code 1)", True)]
    assert not world.link.usable


@requirement("GW-11")
def test_a_line_that_cannot_be_written_was_not_sent() -> None:
    world = World()
    world.pipe.full = True
    sink, _ = world.call()
    assert sink.told == [("failed", "does not read its input", False)]
    assert not world.link.busy


@requirement("GW-7")
def test_a_question_goes_to_the_only_call_or_is_refused() -> None:
    world = World()
    world.say(id=5, method="roots/list")
    assert world.pipe.lines[-1]["error"]["code"] == -32601
    sink, _ = world.call()
    world.say(id=6, method="roots/list")
    assert sink.told == [("asked", 6, "roots/list")]
    other, _ = world.call()
    world.say(id=7, method="roots/list")
    assert other.told == [] and len(sink.told) == 1
    assert world.pipe.lines[-1]["id"] == 7 and "error" in world.pipe.lines[-1]
    world.say(id=8, method="ping")
    assert world.pipe.lines[-1] == {"jsonrpc": "2.0", "id": 8, "result": {}}


@requirement("GW-7", "GW-12")
def test_in_a_shared_process_no_question_is_anybodys() -> None:
    world = World(shared=True)
    sink, _ = world.call()
    world.say(id=6, method="sampling/createMessage", params={})
    world.say(method="notifications/message", params={"data": "x"})
    assert sink.told == []
    assert "error" in world.pipe.lines[-1]


@requirement("GW-11")
@given(st.lists(
    st.binary(max_size=30)
    | st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0")},
        optional={
            "id": st.sampled_from([1, 2, "1", None, True, 1.5]),
            "method": st.sampled_from(["notifications/progress", "ping", "roots/list", "x", ""]),
            "params": st.sampled_from([{}, [], 1, {"progressToken": 1}, {"_meta": 1}, {"_meta": {}}]),
            "result": st.sampled_from([{}, [], None]),
            "error": st.sampled_from([{}, "x", None]),
        },
    ).map(lambda message: json.dumps(message).encode()),
    max_size=20,
))  # fmt: skip
def test_whatever_a_server_writes_no_line_breaks_the_link(lines: list[bytes]) -> None:
    world = World()
    sink, _ = world.call(1, 1)
    for line in lines:
        world.link.line(line)
    ends = [told for told in sink.told if told[0] in ("result", "error", "failed")]
    assert len(ends) <= 1
    assert bool(ends) is not world.link.busy


@requirement("GW-9")
def test_giving_up_on_a_server_that_does_not_read_is_quiet() -> None:
    world = World()
    _, handle = world.call()
    world.pipe.full = True
    handle.cancel()
    assert not world.link.busy


@requirement("GW-11")
def test_a_line_is_taken_even_if_the_server_does_not_read_our_answer() -> None:
    world = World()
    world.pipe.full = True
    world.say(id=5, method="ping")
    world.say(id=5, method="roots/list")
    world.pipe.full = False
    sink, _ = world.call()
    world.say(id=world.pipe.lines[-1]["id"], result={})
    assert sink.told == [("result", {})]
