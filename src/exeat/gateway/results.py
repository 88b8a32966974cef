"""What policy wants done to a result before anybody sees it, and what the agent is told was changed."""

from collections.abc import Mapping
from typing import Any, Final

from exeat.core.obligations import DRY_RUN, NARROW, on_result
from exeat.core.strictjson import parse
from exeat.gateway.pipeline import Enforced
from exeat.gateway.redaction.filter import ResultFilter
from exeat.gateway.wire import Nonsense, encode

NARROWED_KEY: Final = "exeat/narrowed"
_SHOWN_MAX: Final = 200
FILTERED_MAX_BYTES: Final = 16 * 1024 * 1024
"""A larger result that has to be looked at as a whole is an error."""


def filter_for(enforced: Enforced) -> ResultFilter | None:
    """None if the result is passed on as it is.  Its obligations were found doable before."""
    decision, request = enforced.decision, enforced.request
    if not decision.obligations:
        return None
    asked = on_result(decision.obligations)
    if not asked:
        return None
    schema = None
    if request.tool is not None:
        found = request.tool.definition.get("outputSchema")
        schema = found if isinstance(found, Mapping) else None
    return ResultFilter(asked, schema, enforced.id, request.method)


def questions(found: ResultFilter, value: dict[str, Any]) -> dict[str, Any]:
    """An ``input_required`` result with its questions, looked at, and the state, which goes out sealed;
    whatever else it says does not pass.  Raises Nonsense if a question cannot pass."""
    kept: dict[str, Any] = {
        key: value[key] for key in ("resultType", "requestState") if key in value
    }
    asked = value.get("inputRequests")
    if not isinstance(asked, dict):
        return kept
    clean = {}
    for key, each in asked.items():
        params = each.get("params", {}) if isinstance(each, dict) else None
        passed = found.notification("", encode(params)) if params is not None else None
        name = encode({"key": key})
        if passed is None or found.notification("", name) != name:
            raise Nonsense("a question that cannot be shown as policy asks")
        clean[key] = {"method": each.get("method"), "params": parse(passed)}
    return {**kept, "inputRequests": clean}


def quotable(found: ResultFilter, reason: str) -> str:
    """Why a call failed, which may quote what its server said."""
    passed = found.notification("", encode({"reason": reason}))
    value = parse(passed) if passed is not None else None
    return str(value["reason"]) if isinstance(value, dict) else "answered what cannot be shown"


def told(result: bytes, enforced: Enforced | None) -> bytes:
    """The result of a narrowed call says what was changed, to the model and to the client."""
    if enforced is None or enforced.decision.narrowed is None:
        return result
    return _with_note(result, enforced)


def _with_note(result: bytes, enforced: Enforced) -> bytes:
    decision = enforced.decision
    assert decision.narrowed is not None  # noqa: S101 - only then is there something to tell
    changes = {
        name: {"asked": enforced.request.arguments.get(name), "sent": decision.narrowed[name]}
        for kind, _, name in (each.partition(":") for each in decision.obligations)
        if kind in (NARROW, DRY_RUN)
    }
    value = parse(result)
    if not isinstance(value, dict):
        return result
    words = "; ".join(
        f"{name}: {_short(each['asked'])} → {_short(each['sent'])}"
        for name, each in changes.items()
    )
    text = f"exeat narrowed this call before it was made ({words}; decision {enforced.id})."
    content = value.get("content")
    if isinstance(content, list):
        value["content"] = [*content, {"type": "text", "text": text}]
    meta = value.get("_meta")
    value["_meta"] = {
        **(meta if isinstance(meta, dict) else {}),
        NARROWED_KEY: {"decision": enforced.id, "changes": changes},
    }
    return encode(value)


def _short(value: Any) -> str:
    text = encode(value).decode()
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
