"""Tells other systems of a new hold: a signed webhook with the whole call, a line in a chat (APP-5)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from exeat.adapters.fetch import Fetcher
from exeat.approvals.rules import messages
from exeat.core.errors import ExeatError, UpstreamFailed

_log = structlog.get_logger("exeat.approvals")
WEBHOOK: Final = "webhook"
NOTIFIER: Final = "notifier"
REQUESTED: Final = "approval.requested"


@dataclass(frozen=True, slots=True)
class Targets:
    """URLs; empty: there is none."""

    webhook: str = ""
    notifier: str = ""

    @property
    def names(self) -> frozenset[str]:
        pairs = ((WEBHOOK, self.webhook), (NOTIFIER, self.notifier))
        return frozenset(name for name, url in pairs if url)


class Poster:
    """``fetcher``: guarded (GW-10), so that a setting cannot be led to an internal address that nobody
    allowed."""

    def __init__(self, fetcher: Fetcher, targets: Targets) -> None:
        self._fetcher, self.targets = fetcher, targets

    async def post(
        self, call: Mapping[str, Any], done: frozenset[str], secret: bytes | None, now_s: int
    ) -> frozenset[str]:
        """Those to which it has arrived by now.  ``secret`` None: the webhook waits for it."""
        arrived = set(done)
        for name in sorted(self.targets.names - done):
            try:
                if name == NOTIFIER:
                    await self._chat(call)
                elif secret is not None:
                    await self._webhook(call, secret, now_s)
                else:
                    continue
                arrived.add(name)
            except ExeatError as error:
                _log.warning("a held call was not posted", to=name, hold=call["id"], why=str(error))
        return frozenset(arrived)

    async def _webhook(self, call: Mapping[str, Any], secret: bytes, now_s: int) -> None:
        document = {"type": REQUESTED, "timestamp": now_s, "data": call}
        body = json.dumps(document, separators=(",", ":")).encode("ascii")
        headers = messages.signed(secret, f"requested-{call['id']}", now_s, body)
        await self._send(self.targets.webhook, body, headers)

    async def _chat(self, call: Mapping[str, Any]) -> None:
        body = json.dumps({"text": chat_text(call)}).encode("ascii")
        await self._send(self.targets.notifier, body, {})

    async def _send(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        answer = await self._fetcher.post_body(url, body, "application/json", headers=headers)
        if not 200 <= answer.status < 300:
            raise UpstreamFailed(f"{answer.url} answered {answer.status}")


def chat_text(call: Mapping[str, Any]) -> str:
    """One line without arguments: a chat keeps what it is told, and is read by many."""
    who = sorted({person for each in call["asked"] for one in each for person in one["people"]})
    acts_for = f" for {_plain(call['user'])}" if call["user"] else ""
    return (
        f"exeat: {_plain(call['agent'])}{acts_for} waits for people to answer"
        f" {_plain(call['tool'])} (effect {_plain(call['effect'] or 'unknown')},"
        f" sink {_plain(call['sink'] or 'unknown')}). Asked: {', '.join(map(_plain, who[:10]))}."
        f" See it: exeat approvals show {_plain(call['id'])}"
    )


def _plain(text: str) -> str:
    """Nothing in it acts in a chat: ASCII alone, no markup, no mention of everybody."""
    kept = "".join(c if c.isascii() and c.isprintable() else "?" for c in str(text))
    return "".join("_" if c in "<>&@*`~|[]()" else c for c in kept)
