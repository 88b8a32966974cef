"""The reference client (Python SDK) signs in by itself: prints ``URL …``, reads from stdin where the browser
ended, calls; then again with a token that is no longer good, so that it must refresh."""

import asyncio
import sys
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from signing_in import CALLBACK, Kept


async def open_browser(where: str) -> None:
    print(f"URL {where}", flush=True)


async def come_back() -> AuthorizationCodeResult:
    line = (await asyncio.to_thread(sys.stdin.readline)).strip()
    told = {name: values[0] for name, values in parse_qs(urlsplit(line).query).items()}
    return AuthorizationCodeResult(
        code=told.get("code", ""), state=told.get("state"), iss=told.get("iss")
    )


async def call(url: str, kept: Kept, a: int, b: int) -> None:
    metadata = OAuthClientMetadata(client_name="Python SDK", redirect_uris=[CALLBACK])
    provider = OAuthClientProvider(url, metadata, kept, open_browser, come_back)
    async with (
        httpx2.AsyncClient(auth=provider, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        for first in (a, b):
            result = await client.call_tool("add", {"a": first, "b": 2})
            print(f"SUM {result.content[0].text}", flush=True)
            tokens = provider.context.current_tokens
            provider.context.current_tokens = tokens.model_copy(
                update={"access_token": "no-longer-good"}
            )
            provider.context.token_expiry_time = 1.0


asyncio.run(call(sys.argv[1], Kept(), 1, 2))
