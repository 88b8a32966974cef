"""What an attacker once found, kept shut."""

import json

import pytest
from requirements import requirement

from exeat.gateway.http1 import parse_request_head
from exeat.gateway.inbound import Request, read_post
from exeat.gateway.routes import fits
from exeat.policy.canonical import NotCanonical, uri

HEAD = (
    b"POST /mcp/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Accept: application/json, text/event-stream"
)


@requirement("GW-2", "POL-4")
def test_members_that_a_method_does_not_have_never_leave() -> None:
    params = {"name": "echo", "arguments": {"text": "hi"}, "Arguments": {"text": "evil"}, "x": 1}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    read = read_post(parse_request_head(HEAD), json.dumps(body).encode())
    assert isinstance(read, Request)
    assert read.params == {"name": "echo", "arguments": {"text": "hi"}}


@requirement("GW-14")
def test_a_template_of_many_expressions_is_matched_in_linear_time() -> None:
    assert not fits("x:" + "{a}" * 500 + "y", "x:" + "a" * 2000)
    assert fits("x:{a}/{b}", "x:1/2")
    assert not fits("x:{a}/{b}", "x:/2")


@requirement("POL-9")
@pytest.mark.parametrize(
    "text",
    ["file:/etc/shadow", "file://localhost/etc/shadow", "file:///etc/passwd#x", "https:/evil.com/x",
     "https://a.example/allowed/..;/admin"],
)  # fmt: skip
def test_other_spellings_of_a_uri_are_refused(text: str) -> None:
    with pytest.raises(NotCanonical):
        uri(text)
