"""JSON-RPC messages of an upstream: read in their parts, or refused (GW-2, GW-11)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.gateway.wire import (
    Nonsense,
    encode,
    error_body,
    error_message,
    notification_message,
    peek,
    read_incoming,
    request_message,
    result_message,
)


@requirement("GW-11")
@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"1", b'{"jsonrpc":"1.0","id":1,"result":{}}', b'{"jsonrpc":2.0}',
        b'{"jsonrpc":"2.0"}', b'{"jsonrpc":"2.0","id":1}', b'{"jsonrpc":"2.0","id":1,"result":{}}x',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', b'{"jsonrpc":"2.0","method":1}',
        b'{"jsonrpc":"2.0","id":1.5,"method":"x"}', b'{"jsonrpc":"2.0","id":null,"method":"x"}',
        b'{"jsonrpc":"2.0","id":true,"method":"x"}', b'{"jsonrpc":"2.0","id":1,"result":"\xff"}',
        b'{"jsonrpc":"2.0","id":1,"result":nonsense}', b'{"jsonrpc":"2.0","id":1,"result":{"a":}}',
        b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_message_is_nonsense(raw: bytes) -> None:
    with pytest.raises(Nonsense):
        read_incoming(raw)


@requirement("GW-11")
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")))
def test_reading_never_fails_otherwise(raw: bytes) -> None:
    for read in (read_incoming, peek):
        try:
            read(raw)
        except Nonsense:
            pass


@requirement("GW-2")
@given(
    st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9),
    st.text(max_size=9),
    st.dictionaries(st.text(), st.integers()),
)
def test_what_we_write_is_what_was_meant(
    request_id: Any, text: str, params: dict[str, Any]
) -> None:
    request = json.loads(request_message(request_id, text, params))
    assert request == {"jsonrpc": "2.0", "id": request_id, "method": text, "params": params}
    result = json.loads(result_message(request_id, encode(params)))
    assert result == {"jsonrpc": "2.0", "id": request_id, "result": params}
    error = json.loads(error_message(None, error_body(-1, text, params)))
    assert error == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -1, "message": text, "data": params},
    }
    told = json.loads(notification_message(text, encode(params)))
    assert told == {"jsonrpc": "2.0", "method": text, "params": params}


@requirement("GW-11")
@pytest.mark.parametrize(
    "raw", [b"[]", b"1", b'"x"', b'{"isError":"yes"}', b'{"resultType":1}', b"null"]
)
def test_a_result_is_an_object(raw: bytes) -> None:
    with pytest.raises(Nonsense):
        peek(raw)
