"""What stands before every page and endpoint of the control listener: who is asked for, how much may
be sent, what browsers must not do with the answer, and no stack trace whatever happens."""

import asyncio
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exeat.web.site import Site

_log = structlog.get_logger("exeat.control")
BODY_MAX_BYTES: Final = 64 * 1024
BODY_TIME_MAX_S: Final = 10.0
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action {form}; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY.format(form="'self'"),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send Origin: null with our forms
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MACHINES: Final = (
    "/oauth/token",
    "/oauth/revoke",
    "/oauth/register",
    "/oauth/jwks",
    "/.well-known/",
    "/approvals/answers",
    "/access/v1/",
)


class Guard:
    """ASGI middleware, the outermost."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._answer(scope, receive, guarded)
        except Exception as error:  # noqa: BLE001 - the outermost edge: nothing of it leaves
            _log.error("a request to the control listener failed", why=type(error).__name__)
            if not begun:
                said = PlainTextResponse("This did not work; the log says more.\n", 500)
                await said(scope, receive, guarded)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = _host(scope)
        if host not in self._site.hosts:
            said = PlainTextResponse("This host name is not served here.\n", 421)
            await said(scope, receive, send)
            return
        if host != self._site.host and not scope["path"].startswith(_MACHINES):
            await self._elsewhere(scope, receive, send)
            return
        body = await _body(receive)
        if isinstance(body, int):
            await PlainTextResponse("Too much, or too slow.\n", body)(scope, receive, send)
            return
        sent = False

        async def whole() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, whole, send)

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A page under another name of this machine: cookies and passkeys belong to one name only."""
        if scope["method"] not in ("GET", "HEAD"):
            said = PlainTextResponse(f"Use {self._site.issuer} instead.\n", 421)
            await said(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        path = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        await RedirectResponse(self._site.issuer + "/" + path.lstrip("/"), 307)(
            scope, receive, send
        )


def _host(scope: Scope) -> str:
    found = [value for name, value in scope["headers"] if name == b"host"]
    return found[0].decode("latin-1").lower() if len(found) == 1 else ""


async def _body(receive: Receive) -> bytes | int:
    """The whole body, which is small here, or the status of what is wrong with it."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIME_MAX_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return 400
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > BODY_MAX_BYTES:
                    return 413
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        return 408
