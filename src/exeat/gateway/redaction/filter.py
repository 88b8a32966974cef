"""``ResultFilter``: what a call's obligations do to all that its server says (POL-9).

Every failure withholds: there is no way from an exception to the bytes that came.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from exeat.core.obligations import OnResult
from exeat.core.strictjson import MalformedJson
from exeat.gateway.fastjson import parse
from exeat.gateway.redaction import caps, pointers, schemas
from exeat.gateway.redaction.detectors import FIELD, Finder, Unsearchable, finder
from exeat.gateway.redaction.media import opened
from exeat.gateway.redaction.notice import REDACTED_KEY, WITHHELD_KEY, Summary, told
from exeat.gateway.redaction.texts import Coded, Embedded, Pieces, expand
from exeat.gateway.redaction.tree import Cleaner, shown
from exeat.gateway.wire import encode, error_body

SEARCHED_MAX_BYTES: Final = 4 * 1024 * 1024
"""A larger result is withheld: it would hold up every other call while it is searched."""
WITHHELD: Final = -31006
_STRUCTURED: Final = "structuredContent"
_PROGRESS: Final = "notifications/progress"
_MISSING: Final[Any] = object()


class Withheld(Exception):
    """Nothing of it passes; the message says why, and names no value."""


class ResultFilter:
    """For one call.  ``schema``: the tool's output schema as pinned, if it has one.  ``method``: of
    the request, for the shape of what stands in the place of a result that is withheld."""

    def __init__(
        self,
        on_result: OnResult,
        schema: Mapping[str, Any] | None,
        decision: str,
        method: str = "tools/call",
        size_max: int = SEARCHED_MAX_BYTES,
    ) -> None:
        self.on = on_result
        self._schema = schema
        self._decision = decision
        self._method = method
        self._size_max = size_max
        self._paths = tuple(pointers.parts(each) for each in on_result.fields)
        self._found: dict[str, set[str]] = {}
        self.summary = Summary()

    # ---- what a call passes through here

    def result(self, raw: bytes) -> bytes:
        """A whole result: tools/call, resources/read, prompts/get, completion/complete, or a task's."""
        try:
            return self._guarded(self._result, raw)
        except Withheld as why:
            return self.withheld(str(why))

    def notification(self, method: str, params: bytes) -> bytes | None:
        """The parameters of one that the server sends during the call; None: it does not pass."""
        try:
            return self._guarded(partial(self._notification, method=method), params)
        except Withheld:
            self.summary.dropped += 1
            return None

    def error(self, body: bytes) -> bytes:
        """A JSON-RPC error (its code, message and data) in the place of a result."""
        try:
            return self._guarded(self._error, body)
        except Withheld as why:
            self.summary.withheld = str(why)
            data = {"reason": "withheld", "decision": self._decision}
            return error_body(WITHHELD, self._sentence(str(why), "error"), data)

    def withheld(self, why: str) -> bytes:
        """What stands in the place of a result that must not pass."""
        self.summary = Summary(withheld=why)
        text = self._sentence(why, "result")
        data = {"reason": why, "decision": self._decision}
        meta = {"resultType": "complete", "_meta": {WITHHELD_KEY: data}}
        if self._method == "resources/read":
            contents = [{"uri": "exeat:withheld", "mimeType": "text/plain", "text": text}]
            return encode({"contents": contents, "ttlMs": 0, "cacheScope": "private", **meta})
        if self._method == "prompts/get":
            return encode({"description": text, "messages": [], **meta})
        if self._method == "completion/complete":
            return encode({"completion": {"values": []}, **meta})
        return encode({"content": [{"type": "text", "text": text}], "isError": True, **meta})

    def _sentence(self, why: str, what: str) -> str:
        done = "The call was carried out, but" if what == "result" else "The call failed, and"
        return (
            f"{done} exeat withheld its {what}: {why} (decision {self._decision}). What can be done: "
            "ask for less, or ask the agent's owner, naming the decision; do not repeat the call blindly."
        )

    # ---- how

    def _guarded(self, step: Any, raw: bytes) -> bytes:
        if len(raw) > self._size_max:
            raise Withheld(f"it is larger than the {self._size_max:,} bytes that are searched")
        try:
            return bytes(step(raw))
        except Withheld:
            raise
        except MalformedJson as broken:
            raise Withheld(f"it is not the JSON of a result ({broken})") from None
        except (Unsearchable, schemas.Unfit) as why:
            raise Withheld(str(why)) from None
        except caps.TooLarge:
            raise Withheld(f"it cannot be cut to {self.on.bytes:,} bytes") from None
        except RecursionError:
            raise Withheld("it is nested too deeply") from None
        except Exception as broken:  # noqa: BLE001 - POL-9: whatever went wrong, nothing passes
            raise Withheld(f"it could not be searched ({type(broken).__name__})") from None

    @property
    def _searches(self) -> bool:
        return bool(self.on.detectors)

    def _finder(self) -> Finder:
        return finder(self.on.detectors)

    def _read(self, raw: bytes) -> dict[str, Any]:
        value = parse(raw)
        if type(value) is not dict:
            raise Withheld("it is not an object")
        return value

    def _result(self, raw: bytes) -> bytes:
        value = self._read(raw)
        structured = value.pop(_STRUCTURED, _MISSING)
        rows = self.on.rows
        cut = 0
        check = self._check(structured)
        passed = rows
        if rows and structured is not _MISSING:
            structured, passed, cut = caps.cap_rows(structured, rows)
            if cut and check is not None and not check.is_valid(structured):
                raise Withheld("with fewer rows it would not match the tool's output schema")
        value, structured = self._cleaned(value, structured, check)
        if structured is not _MISSING:
            value[_STRUCTURED] = structured
        if rows:
            kept, less = caps.cap_blocks(value, rows)
            passed, cut = max(passed, kept), max(cut, less)
        less = 0
        if self.on.bytes:
            fits = check.is_valid if check is not None else _anything
            less = caps.cap_bytes(value, self.on.bytes, self._finder(), fits)
        self._counted(rows=cut, size=less)
        self.summary.passed = passed
        return encode(self._noted(value))

    def _check(self, structured: Any) -> Any:
        """The schema's check, if what the server sent passes it; a call's error need not."""
        if self._schema is None or structured is _MISSING:
            return None
        return schemas.schema_of(self._schema).holding(structured)

    def _cleaned(self, value: dict[str, Any], structured: Any, check: Any) -> tuple[Any, Any]:
        cleaner = Cleaner(self._finder())
        inner = structured
        if self._searches:
            value = opened(value)
            inner = opened(structured, structured=True)
        tree = expand(value, protocol=True)
        inner = expand(inner) if structured is not _MISSING else _MISSING
        self._hide(tree, inner, cleaner)
        cleaner.learn(tree)
        if inner is not _MISSING:
            cleaner.learn(inner)
        cleaner.search()
        new = cleaner.clean(tree, protocol=True)
        for uri in _with_uri(new):
            uri["uri"] = uri["uri"].replace("[redacted:", "redacted-").replace("]", "")
        if inner is not _MISSING:
            before = cleaner.changes
            then = cleaner.clean(inner)
            changed = cleaner.changes != before or self._paths
            if changed and check is not None:
                then = schemas.fitted(structured, then, check, self._finder())
            structured = then
        self._take(cleaner)
        return new, structured

    def _hide(self, tree: Any, structured: Any, cleaner: Cleaner) -> None:
        """Fields, in structured content and in texts that mirror it; their values anywhere."""
        if not self._paths:
            return
        texts = list(_documents(tree))
        places = [
            (text, path)
            for text in texts
            for whole in self._paths
            for path in pointers.mirrored(structured, text.tree, whole)
        ]
        roots = [(structured, path) for path in self._paths] if structured is not _MISSING else []
        for root, path in (*roots, *places):
            for hidden in pointers.hide(root, path):
                cleaner.needle(hidden)
                cleaner.count(FIELD, shown(hidden))

    def _notification(self, raw: bytes, method: str) -> bytes:
        value = self._read(raw)
        # the token is the client's own, as the link has seen
        keys = ("progressToken",) if method == _PROGRESS else ()
        kept = {key: value.pop(key) for key in keys if key in value}
        data = value.get("data")
        if self.on.rows:
            value = caps.cap_rows(value, self.on.rows)[0]
        new = self._plain(value, data)
        out = encode({**kept, **new})
        if self.on.bytes and len(out) > self.on.bytes:
            raise Withheld("it is too large")
        return out

    def _error(self, raw: bytes) -> bytes:
        value = self._read(raw)
        code, message = value.get("code"), value.get("message")
        if type(code) is not int or not isinstance(message, str):
            raise Withheld("it is not an error of JSON-RPC")
        data = value.get("data")
        if self.on.rows:
            data, self.summary.passed, _ = caps.cap_rows(data, self.on.rows)
        new = self._plain({"code": code, "message": message, "data": data}, data)
        code, message, data = new["code"], new["message"], new["data"]
        if self.summary.removed:
            message = f"{message} ({told(self.summary, self._decision).rstrip('.')})"
        body = error_body(code, message, data)
        if self.on.bytes and len(body) > self.on.bytes:
            body = error_body(code, message)
        if self.on.bytes and len(body) > self.on.bytes:
            raise Withheld(f"it is larger than {self.on.bytes:,} bytes")
        return body

    def _plain(self, value: dict[str, Any], data: Any) -> dict[str, Any]:
        """What has no structured content: everything is searched, fields count from ``data``."""
        cleaner = Cleaner(self._finder())
        tree = expand(opened(value) if self._searches else value)
        root = tree.get("data") if data is not None else _MISSING
        self._hide(tree, root if root is not _MISSING else _MISSING, cleaner)
        cleaner.learn(tree)
        cleaner.search()
        new = cleaner.clean(tree, protocol=True)
        self._take(cleaner)
        return dict(new)

    # ---- telling

    def _take(self, cleaner: Cleaner) -> None:
        for what, values in cleaner.found.items():
            self._found.setdefault(what, set()).update(values)
        self._counted()

    def _counted(self, rows: int = 0, size: int = 0) -> None:
        self.summary.removed = {what: len(found) for what, found in sorted(self._found.items())}
        self.summary.rows += rows
        self.summary.bytes += size

    def _noted(self, value: dict[str, Any]) -> dict[str, Any]:
        """The notice is exeat's own: it comes on top of the caps."""
        text = told(self.summary, self._decision)
        if not text:
            return value
        meta = value.get("_meta")
        known = meta if type(meta) is dict else {}
        noted = {**self.summary.as_json(), "decision": self._decision}
        value["_meta"] = {**known, REDACTED_KEY: noted}
        if type(value.get("content")) is list:
            value["content"] = [*value["content"], {"type": "text", "text": text}]
        elif type(value.get("contents")) is list:
            note = {"uri": "exeat:notice", "mimeType": "text/plain", "text": text}
            value["contents"] = [*value["contents"], note]
        return value


def _anything(_: Any) -> bool:
    return True


def _documents(tree: Any) -> list[Embedded]:
    """Texts that are JSON objects or arrays, wherever they stand."""
    found: list[Embedded] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        if type(node) is Embedded:
            if type(node.tree) in (dict, list):
                found.append(node)
        elif type(node) is dict:
            stack.extend(node.values())
        elif type(node) is list:
            stack.extend(node)
        elif type(node) is Pieces:
            stack.extend(node.parts)
        elif type(node) is Coded:
            stack.append(node.inner)
    return found


def _with_uri(tree: Any) -> list[dict[str, Any]]:
    """What names a resource: a client reads the name as an address."""
    found: list[dict[str, Any]] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        if type(node) is dict:
            if type(node.get("uri")) is str and "[redacted:" in node["uri"]:
                found.append(node)
            stack.extend(node.values())
        elif type(node) is list:
            stack.extend(node)
    return found
