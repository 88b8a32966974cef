"""A browser without a window: cookies, forms of our own pages, redirects followed one by one."""

import os
import re
import time
from html import unescape
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
from homes import ADA, Home

from exeat.core.ids import PersonId
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.signin.service import RelyingParty, SignIn

_FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')
_ACTION = re.compile(r' method="post" action="([^"]*)"')
HOPS_MAX = 10


class Browser:
    """One person's.  ``control``: the control listener's URL."""

    def __init__(self, control: str) -> None:
        self.control = control
        self.client = httpx2.Client(timeout=20, follow_redirects=False)
        self.visited: list[str] = []
        self.csrf = ""

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def get(self, url: str) -> httpx2.Response:
        """The page, wherever redirects lead to."""
        for _ in range(HOPS_MAX):
            self.visited.append(url)
            answer = self.client.get(url)
            if answer.status_code not in (301, 302, 303, 307):
                return answer
            url = urljoin(url, answer.headers["location"])
        raise AssertionError(f"redirects without end: {self.visited}")

    def submit(self, page: httpx2.Response, **fields: str) -> httpx2.Response:
        """The page's last form (the first is for signing out), with what it holds and what is typed in."""
        form = page.text.rpartition("<form")[2].partition("</form>")[0]
        action = _ACTION.search(form)
        assert action is not None, page.text
        held = {name: unescape(value) for name, value in _FIELD.findall(form)}
        url = urljoin(str(page.url), unescape(action[1]))
        parts = urlsplit(str(page.url))
        origin = f"{parts.scheme}://{parts.netloc}"
        answer = self.client.post(url, data={**held, **fields}, headers={"origin": origin})
        if answer.status_code in (302, 303):
            return self.get(urljoin(url, answer.headers["location"]))
        return answer

    def script(self, path: str, said: Any, page: httpx2.Response | None = None) -> Any:
        """As our own script sends it, from ``page`` or the last one that was such."""
        if page is not None:
            self.csrf = page.text.partition('name="csrf" content="')[2].partition('"')[0]
        fields = {"origin": self.control, "x-csrf-token": self.csrf}
        answer = self.client.post(f"{self.control}{path}", json=said, headers=fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sign_in(self, home: Home, person: PersonId = ADA) -> None:
        """With a one-time link, as ``exeat person link`` makes it."""
        party = RelyingParty("localhost", self.control)
        doing = Doing(ADA, "test", time.time_ns(), "for a test")
        token = SignIn(home.state.sign_in, party, os.urandom).make_link(person, doing)
        page = self.submit(self.get(f"{self.control}/link/{token}"))
        assert page.status_code == 200, page.text

    def consent(self, url: str) -> httpx2.Response:
        """Open a consent link, go on, and come back by the callback."""
        page = self.get(url)
        return self.submit(page) if page.status_code == 200 else page
