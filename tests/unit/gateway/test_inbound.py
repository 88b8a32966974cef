"""The inbound ladder: every rung with its code and status, and the SDK's own ladder as oracle (GW-2)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    InboundLadderRejection,
    classify_inbound_request,
    decode_header_value,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    validate_mcp_param_headers,
    x_mcp_header_map,
)
from requirements import requirement

from exeat.gateway.http1 import RequestHead
from exeat.gateway.inbound import (
    Notification,
    Rejection,
    Request,
    Response,
    decode_header,
    encode_header,
    read_post,
)
from exeat.gateway.methods import NAME_KEY, Era
from exeat.gateway.param_headers import disagreement, mirrored, render

VERSION = "2026-07-28"
V, C = "io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities"
META = {V: VERSION, C: {}}
HTTP = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def head(fields: dict[str, str] | None = None, repeated: str = "") -> RequestHead:
    named = {name: value for name, value in (fields or {}).items()}
    return RequestHead("POST", "/mcp/up", {"host": "a", **HTTP, **named}, 0, True, repeated, False)


def modern(**changes: Any) -> dict[str, Any]:
    params = {"name": "add", "arguments": {}, "_meta": META}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return {**message, **changes}


def routing(method: str = "tools/call", name: str = "add") -> dict[str, str]:
    return {"mcp-protocol-version": VERSION, "mcp-method": method, "mcp-name": name}


def read(message: Any, fields: dict[str, str] | None = None, repeated: str = "") -> Any:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return read_post(head(fields, repeated), body)


@requirement("GW-2")
def test_a_modern_call_passes_every_rung() -> None:
    request = read(modern(), routing())
    assert type(request) is Request
    assert (request.era, request.version, request.target) == (Era.MODERN, VERSION, "add")
    assert request.params == {"name": "add", "arguments": {}}
    assert request.meta == META


def _params(**changes: Any) -> dict[str, Any]:
    return modern(params={"name": "add", "_meta": META, **changes})


@requirement("GW-2")
@pytest.mark.parametrize(
    ("message", "fields", "status", "code"),
    [
        # 1 HTTP
        (modern(), {"content-type": "text/plain"}, 415, -32600),
        (modern(), {"content-type": ""}, 415, -32600),
        (modern(), {"accept": "application/json"}, 406, -32600),
        (modern(), {"accept": ""}, 406, -32600),
        # 2 one strict parse
        (b"", {}, 400, -32700),
        (b"\xff{}", {}, 400, -32700),
        (b"nonsense", {}, 400, -32700),
        (b'{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}', {}, 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":{"y":1,"y":1}}}', {}, 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":NaN}}', {}, 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":1e999}}', {}, 400, -32700),
        (b'{"jsonrpc":"2.0","id":99999999999999999999,"method":"a"}', {}, 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":' + b"[" * 80 + b"]" * 80 + b"}", {}, 400, -32700),
        # 3 one JSON-RPC object
        (b"[]", {}, 400, -32600),
        ([modern()], routing(), 400, -32600),
        (b'"text"', {}, 400, -32600),
        (modern(jsonrpc="1.0"), routing(), 400, -32600),
        (modern(method=1), routing(), 400, -32600),
        (modern(method=""), routing(), 400, -32600),
        (modern(method="m" * 129), routing(), 400, -32600),
        (modern(id=None), routing(), 400, -32600),
        (modern(id=True), routing(), 400, -32600),
        (modern(id=1.5), routing(), 400, -32600),
        (modern(id=[]), routing(), 400, -32600),
        (modern(id="x" * 257), routing(), 400, -32600),
        (modern(result={}), routing(), 400, -32600),
        (modern(error={}), routing(), 400, -32600),
        (modern(params=[]), routing(), 400, -32602),
        (modern(params=None), routing(), 400, -32602),
        ({"jsonrpc": "2.0", "id": 1}, {}, 400, -32600),
        ({"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}, {}, 400, -32600),
        # 4 the era
        (modern(params={"name": "a", "_meta": 1}), routing(), 400, -32602),
        (modern(params={"name": "a"}), {"mcp-protocol-version": "1999-01-01"}, 400, -32022),
        # 5 modern
        (modern(params={"name": "add"}), routing(), 400, -32602),
        (modern(params={"name": "add", "_meta": {V: VERSION}}), routing(), 400, -32602),
        (modern(params={"name": "add", "_meta": {C: {}}}), routing(), 400, -32602),
        (modern(), {**routing(), "mcp-protocol-version": "2025-11-25"}, 400, -32020),
        (modern(), {}, 400, -32020),
        (modern(params={"name": "add", "_meta": {V: None, C: {}}}), {}, 400, -32020),
        (modern(), {**routing(), "mcp-method": "tools/list"}, 400, -32020),
        (modern(), {**routing(), "mcp-name": "sub"}, 400, -32020),
        (modern(), {**routing(), "mcp-name": "=?base64?!!?="}, 400, -32020),
        (modern(), {k: v for k, v in routing().items() if k != "mcp-name"}, 400, -32020),
        (modern(), {k: v for k, v in routing().items() if k != "mcp-method"}, 400, -32020),
        (
            modern(params={"name": "add", "_meta": {V: "2027-01-01", C: {}}}),
            {**routing(), "mcp-protocol-version": "2027-01-01"}, 400, -32022,
        ),
        (modern(params={"name": "add", "_meta": {V: VERSION, C: []}}), routing(), 400, -32602),
        # 6 the shape
        (_params(name=1), routing(), 400, -32020),
        (_params(name=None), routing(), 400, -32602),
        (_params(name=""), {**routing(), "mcp-name": ""}, 400, -32602),
        (_params(arguments=[]), routing(), 400, -32602),
        (_params(arguments=None), routing(), 400, -32602),
        (_params(requestState=1), routing(), 400, -32602),
        (_params(inputResponses=[]), routing(), 400, -32602),
        (_params(_meta={**META, "progressToken": []}), routing(), 400, -32602),
        (_params(_meta={**META, "progressToken": 1.5}), routing(), 400, -32602),
    ],
)  # fmt: skip
def test_the_first_rung_that_fails_wins(
    message: Any, fields: dict[str, str], status: int, code: int
) -> None:
    refused = read(message, fields)
    assert type(refused) is Rejection
    assert (refused.status, refused.code) == (status, code), refused


@requirement("GW-2")
@pytest.mark.parametrize("name", ["mcp-method", "mcp-name", "mcp-protocol-version", "mcp-param-x"])
def test_a_repeated_routing_header_is_refused(name: str) -> None:
    refused = read(modern(), routing(), repeated=name)
    assert (refused.status, refused.code, refused.id) == (400, -32020, 1)
    old = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert read(old, {}, repeated=name).code == -32600


@requirement("GW-2", "GW-4")
def test_other_messages_of_legacy_clients() -> None:
    assert type(read({"jsonrpc": "2.0", "method": "notifications/initialized"})) is Notification
    answer = read({"jsonrpc": "2.0", "id": "exeat-1", "result": {"a": 1}})
    assert answer == Response("exeat-1", {"a": 1}, None)
    request = read({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a"}})
    assert (request.era, request.version) == (Era.LEGACY, "2025-03-26")
    bad = read({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"arguments": {}}})
    assert (bad.status, bad.code) == (200, -32602)


_META_VALUES = st.fixed_dictionaries(
    {},
    optional={
        V: st.sampled_from([VERSION, VERSION, VERSION, "2025-11-25", "2027-01-01", None, 1, []]),
        C: st.sampled_from([{}, {}, {"roots": {}}, None, 1]),
    },
)
_METHODS = st.sampled_from(["tools/call", "prompts/get", "resources/read", "tools/list", "x/y"])
_NAMES = st.sampled_from(["add", "é", " a", "=?base64?YQ==?=", "", "a b", 1, None])
_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "mcp-protocol-version": st.sampled_from([VERSION, VERSION, VERSION, "2025-11-25", "2027-01-01", ""]),
        "mcp-method": st.sampled_from(["tools/call", "prompts/get", "resources/read", "tools/list", ""]),
        "mcp-name": st.sampled_from(["add", "=?base64?w6k=?=", "=?base64?YQ==?=", "=?base64?YR==?=", "a b", ""]),
    },
)  # fmt: skip


@requirement("GW-2", "GW-3")
@given(_METHODS, _META_VALUES, _NAMES, _FIELDS, st.booleans())
def test_the_modern_rungs_agree_with_the_reference_implementation(
    method: str, meta: dict[str, Any], name: Any, fields: dict[str, str], agreeing: bool
) -> None:
    key = NAME_KEY.get(method, "name")
    params: dict[str, Any] = {"_meta": meta}
    if name is not None:
        params[key] = name
    if agreeing:
        fields = {**fields, "mcp-method": method}
        if isinstance(name, str):
            fields["mcp-name"] = encode_header_value(name)
        if isinstance(meta.get(V), str):
            fields["mcp-protocol-version"] = meta[V]
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    ours = read(message, fields)
    if fields.get("mcp-protocol-version") != VERSION and V not in meta:
        return  # no sign of the modern era
    theirs = classify_inbound_request(message, headers=fields)
    if isinstance(theirs, InboundLadderRejection):
        assert type(ours) is Rejection
        assert (ours.code, ours.status, ours.id) == (theirs.code, 400, 7)
    elif type(ours) is Rejection:  # ours has a rung more: the shape of what is decided upon
        assert ours.code == -32602
        wanted = method in NAME_KEY
        assert (wanted and not (isinstance(name, str) and name)) or type(meta[C]) is not dict
    else:
        assert (ours.method, ours.version) == (method, theirs.protocol_version)


@requirement("GW-2")
@given(
    st.text(max_size=12) | st.sampled_from(["=?base64?", "?=", "=?base64??=", "=?base64?YR==?="])
)
def test_header_values_are_written_and_read_as_by_the_reference(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return
    ours = encode_header(value)
    assert decode_header(ours) == value == decode_header_value(ours)
    assert decode_header(encode_header_value(value)) == value
    assert ours.isascii() and ours.isprintable()
    if value.isascii() and value.isprintable():
        assert decode_header(value) == decode_header_value(value)


# ---- Mcp-Param-*

_SCHEMA = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "boolean", "string", "number", "object"])},
        optional={
            "x-mcp-header": st.sampled_from(["A", "B", "a", "C-d", "bad name", "", 1]),
            "properties": st.just({"d": {"type": "string", "x-mcp-header": "Deep"}}),
        },
    ),
    max_size=3,
).map(lambda properties: {"type": "object", "properties": properties})
_ARGUMENTS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["x", "é", "", " x", True, False, 42, -7, 2**60, None, [], {"d": "y"}, {"d": None}]),
    max_size=3,
)  # fmt: skip


@requirement("GW-2")
@given(
    _SCHEMA,
    _ARGUMENTS,
    st.dictionaries(
        st.sampled_from(["mcp-param-a", "mcp-param-b", "mcp-param-deep", "mcp-param-c-d"]),
        st.sampled_from(["x", "true", "42", "42.0", "-7.00", "=?base64?w6k=?=", "y", "", "042"]),
    ),
    st.booleans(),
)
def test_param_headers_agree_with_the_reference_implementation(
    schema: dict[str, Any], arguments: dict[str, Any], fields: dict[str, str], rendered: bool
) -> None:
    declared = mirrored(schema)
    valid = find_invalid_x_mcp_header(schema) is None
    assert bool(declared) == (valid and bool(x_mcp_header_map(schema)))
    if valid:
        sent = {n: encode_header(v) for n, v in render(declared, arguments).items()}
        theirs = mcp_param_headers(x_mcp_header_map(schema), arguments)
        assert {n: decode_header(v) for n, v in sent.items()} == {
            n.lower(): decode_header_value(v) for n, v in theirs.items()
        }
        fields = {**fields, **sent} if rendered else fields
    refused = validate_mcp_param_headers(schema, arguments, fields)
    assert bool(disagreement(declared, arguments, fields)) == (refused is not None)


# ---- totality

_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from(["2.0", "tools/call", "initialize", VERSION, "add"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["jsonrpc", "id", "method", "params", "_meta", "name", "arguments", "result",
                         "error", "requestState", "inputResponses", "progressToken", V, C]),
        inner, max_size=5,
    ),
    max_leaves=15,
)  # fmt: skip


@requirement("GW-2")
@given(
    _JUNK.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=80)
    | _JUNK.map(lambda value: json.dumps(modern(params=value)).encode()),
    st.dictionaries(
        st.sampled_from(["mcp-protocol-version", "mcp-method", "mcp-name", "accept", "content-type"]),
        st.sampled_from([VERSION, "tools/call", "add", "=?base64?/w==?=", "é", "", "*/*"]),
    ),
)  # fmt: skip
def test_the_ladder_never_fails(body: bytes, fields: dict[str, str]) -> None:
    found = read(body, fields)
    assert type(found) in (Request, Notification, Response, Rejection)
    if type(found) is Rejection:
        assert found.status in (200, 400, 406, 415)
        json.dumps(found.data)
