"""A person's consent is missing: how the client is told where it can be given (ID-9).

Modern clients that open URLs are asked with an ``input_required`` result, and their retry waits for the
person; legacy ones get error −32042 (2025-11-25, URLElicitationRequired); to all others the model says it.
The question is the gateway's own: no server's word reaches the person with it.
"""

from typing import TYPE_CHECKING, Any, Final

from exeat.core.upstream_auth import ConsentNeeded
from exeat.gateway.inbound import RequestId
from exeat.gateway.methods import RETRYABLE_WITH_INPUT, Era
from exeat.gateway.wire import encode, error_body, error_message, result_message

if TYPE_CHECKING:
    from exeat.gateway.call import Call
    from exeat.gateway.front import Front
    from exeat.gateway.routes import Route

CONSENT_KEY: Final = "exeat/consent"
URL_ELICITATION_REQUIRED: Final = -32042
WAIT_S: Final = 55.0
"""How long a retry waits for the person: below the time limits of common clients."""
CAUSE: Final = "consent_needed"


def opens_urls(route: "Route") -> bool:
    return "url" in route.offers.get("elicitation", {})


def ask(front: "Front", call: "Call", needed: ConsentNeeded) -> None:
    """Answer the call, whose action was permitted and not carried out."""
    request, route = call.request, call.route
    modern = request.era is Era.MODERN
    if modern and request.method in RETRYABLE_WITH_INPUT and opens_urls(route):
        own = request.params.get("requestState")
        result = {
            "resultType": "input_required",
            "inputRequests": {
                CONSENT_KEY: {"method": "elicitation/create", "params": _elicitation(needed)}
            },
            "requestState": front.asks.sealed(request, route, own, {}),
        }
        call.answer.final(result_message(request.id, encode(result)))
    elif request.method == "tools/call" and (modern or not opens_urls(route)):
        call.answer.final(_tool_error(request.id, needed))
    else:
        call.answer.final(refusal(request.id, route, request.era, needed))
    call.finish("failed", cause=CAUSE)


def refusal(request_id: RequestId, route: "Route", era: Era, needed: ConsentNeeded) -> bytes:
    """As a JSON-RPC error."""
    if era is Era.LEGACY and opens_urls(route):
        elicitation = {**_elicitation(needed), "elicitationId": needed.id}
        body = error_body(
            URL_ELICITATION_REQUIRED, _message(needed), {"elicitations": [elicitation]}
        )
    else:
        body = error_body(needed.rpc_code, _said(needed), _data(needed))
    return error_message(request_id, body)


def _tool_error(request_id: RequestId, needed: ConsentNeeded) -> bytes:
    result = {
        "content": [{"type": "text", "text": _said(needed)}],
        "isError": True,
        "resultType": "complete",
        "_meta": {CONSENT_KEY: _data(needed)},
    }
    return result_message(request_id, encode(result))


def _elicitation(needed: ConsentNeeded) -> dict[str, Any]:
    return {"mode": "url", "url": needed.url, "message": _message(needed)}


def _message(needed: ConsentNeeded) -> str:
    return (
        f"To use {needed.server} for you, the gateway needs your consent. Open the page to give it."
    )


def _said(needed: ConsentNeeded) -> str:
    return f"Not done: {needed}. What can be done: {needed.remedy}."


def _data(needed: ConsentNeeded) -> dict[str, Any]:
    return {
        "reason": CAUSE, "server": needed.server, "url": needed.url, "remedy": needed.remedy
    }  # fmt: skip
