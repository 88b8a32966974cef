"""FastMCP's client with ``auth="oauth"``: it opens a "browser" (prints ``URL …``), and somebody says on stdin
where that ended."""

import asyncio
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser

from fastmcp import Client


def go_back() -> None:
    """Its listener starts after the browser was opened, so the first knock may find nobody."""
    where = sys.stdin.readline().strip()
    for _ in range(200):
        try:
            urllib.request.urlopen(where).read()  # noqa: S310 - this very client's own address
            return
        except urllib.error.URLError:
            time.sleep(0.1)


def opened(url: str, *_: object) -> bool:
    print(f"URL {url}", flush=True)
    threading.Thread(target=go_back, daemon=True).start()
    return True


async def main() -> None:
    webbrowser.open = opened
    async with Client(sys.argv[1], auth="oauth") as client:
        for numbers in ({"a": 1, "b": 2}, {"a": 2, "b": 2}):
            result = await client.call_tool("add", numbers)
            print(f"SUM {result.content[0].text}", flush=True)


asyncio.run(main())
