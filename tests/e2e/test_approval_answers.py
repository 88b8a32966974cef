"""A real `exeat up`: a held call is posted, and answered by a signed message or not at all (APP-5)."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from approvals_world import held as held_call
from gateways import Gateway, running
from homes import ADA, BOB, Home
from local_site import Asked, LocalSite, site_in_thread
from requirements import requirement
from signing_in import issuer_of

from exeat.app.approvals import open_approvals, standing_now
from exeat.app.settings import Settings
from exeat.app.vault import open_vault
from exeat.approvals.rules.messages import signed, verified
from exeat.core.grant import Granted, Pending
from exeat.core.ids import AgentId

KEY = b"k" * 32
CONTROLS = """
approvers:
  desk:
    people: [ada, bob]
    quorum: 2
    channels: [webhook, console]
"""
STARTED_S = 30.0


class World:
    """A gateway whose policy lets a system answer for ada and bob; calls are held beside it."""

    def __init__(self, home: Home, gateway: Gateway, site: LocalSite) -> None:
        self.home, self.gateway, self.site = home, gateway, site
        self.url = issuer_of(gateway) + "/approvals/answers"
        self.http = httpx2.Client()
        vault = open_vault(home.path, Settings(), home.state)
        self.approvals = open_approvals(home.state, vault)

    def held(self, n: int = 0, control: str = "approved_by_desk") -> Any:
        now = time.time_ns()
        call = held_call({"to": "x", "n": n}, ((control,),), now, agent=AgentId("bot"), user=None)
        return self.approvals.claim(call, standing_now(self.home.state), now)

    def asked(self, n: int = 0, control: str = "approved_by_desk") -> str:
        found = self.held(n, control)
        assert isinstance(found, Pending), found
        return found.hold

    def post(
        self, hold: str, person: str = ADA, verdict: str = "approve", *, key: bytes = KEY,
        id: str = "", at: int = 0, body: bytes = b"", **more: Any,
    ) -> Any:  # fmt: skip
        value = {
            "hold": hold,
            "person": person,
            "verdict": verdict,
            "reason": "in the chat",
            **more,
        }
        body = body or json.dumps(value).encode()
        name = id or f"m-{hold}-{person}-{verdict}"
        headers = signed(key, name, at or int(time.time()), body)
        return self.http.post(self.url, content=body, headers=dict(headers))

    def state(self, hold: str) -> str:
        return self.approvals.states([hold])[hold]

    def posted(self, hold: str) -> Asked:
        end = time.monotonic() + STARTED_S
        while time.monotonic() < end:
            for asked in list(self.site.asked):
                if asked.path == "/hook" and asked.json["data"]["id"] == hold:
                    return asked
            time.sleep(0.02)
        raise AssertionError(f"nothing was posted: {self.gateway.output}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = Home(Path(tmp_path_factory.mktemp("answers")) / "home")
    home.server("bank", command=("true",))
    home.agent("bot", ["bank"])
    home.registry.apply_policy({"controls.yaml": CONTROLS}, BOB, home.act())
    settings = {
        "approval_webhook_secret": "env:HOOK_KEY",
        "internal_hosts": '["127.0.0.1"]',
    }
    with site_in_thread() as site, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOOK_KEY", "whsec_" + base64.b64encode(KEY).decode())
        site.routes["/hook"] = {}
        gateway = Gateway(home.path, approval_webhook_url=f"{site.url}/hook", **settings)
        with running(gateway):
            made = World(home, gateway, site)
            yield made
            made.http.close()
    home.state.close()


@requirement("APP-5", "APP-3")
def test_posted_answered_by_two_and_used_once(world: World) -> None:
    hold = world.asked(1)
    asked = world.posted(hold)
    headers = {name: [value] for name, value in asked.headers.items()}
    assert verified(KEY, headers, asked.body, int(time.time())).id == f"requested-{hold}"
    first = world.post(hold, ADA)
    assert (first.status_code, first.json()) == (
        200, {"hold": hold, "state": "pending", "missing": [["approved_by_desk"]]},
    )  # fmt: skip
    assert world.post(hold, BOB).json()["state"] == "approved"
    found = world.held(1)
    assert isinstance(found, Granted)
    assert found.approvals == (hold,)


@requirement("APP-5")
def test_the_same_message_again_is_refused_whatever_became_of_it(world: World) -> None:
    hold = world.asked(2)
    assert world.post(hold, ADA, id="m-2").status_code == 200
    again = world.post(hold, ADA, id="m-2")
    assert (again.status_code, again.json()["message"]) == (409, "This message was taken before.")
    assert world.post(hold, BOB, id="m-2").status_code == 409
    refused = world.post("h-unknown", ADA, id="m-3")
    assert refused.status_code == 404
    assert world.post(hold, BOB, id="m-3").json()["message"] == "This message was taken before."
    assert world.state(hold) == "pending"


@requirement("APP-5")
def test_a_wrong_signature_an_old_message_and_a_fetch_answer_nothing(world: World) -> None:
    hold = world.asked(3)
    now = int(time.time())
    for refused in (
        world.post(hold, key=b"x" * 32),
        world.post(hold, at=now - 400),
        world.post(hold, at=now + 400),
        world.http.post(world.url, json={"hold": hold, "person": ADA, "verdict": "approve"}),
    ):
        assert refused.status_code == 401, refused.text
        assert refused.json()["error"] == "unauthenticated"
    query = f"?hold={hold}&person=ada&verdict=approve"
    for method in ("GET", "HEAD", "PUT", "OPTIONS"):
        assert world.http.request(method, world.url + query).status_code == 405
    assert world.state(hold) == "pending"


@requirement("APP-5")
@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"nonsense", b'"approve"', b"\xff",
        b'{"hold":"HOLD","person":"ada","verdict":"yes"}',
        b'{"hold":"HOLD","person":"ada"}',
        b'{"hold":"HOLD","hold":"x","person":"ada","verdict":"approve"}',
        b'{"hold":"HOLD","person":["ada"],"verdict":"approve"}',
        b'{"hold":"HOLD","person":"ada","verdict":"approve","reason":"a\\nb"}',
        b'{"hold":"HOLD","person":"ada","verdict":"approve","channel":"passkey"}',
    ],
)  # fmt: skip
def test_a_body_that_is_none(world: World, body: bytes) -> None:
    hold = world.asked(4)
    told = body.replace(b"HOLD", hold.encode()) or b" "
    refused = world.post(hold, id=f"m-{hash(body)}", body=told)
    assert refused.status_code == 422, refused.text
    assert "Traceback" not in refused.text
    assert world.state(hold) == "pending"


@requirement("APP-3", "APP-5")
def test_a_control_that_does_not_allow_webhooks_takes_none(world: World) -> None:
    hold = world.asked(5, "approved_by_owner")
    refused = world.post(hold, ADA)
    assert refused.status_code == 409
    assert "webhook is not enough for approved_by_owner" in refused.json()["message"]
    assert world.post(hold, "eve", id="m-5").status_code == 409
    assert world.state(hold) == "pending"


@requirement("APP-2", "APP-5")
def test_a_denial_ends_it_and_a_second_answer_is_too_late(world: World) -> None:
    hold = world.asked(6)
    assert world.post(hold, BOB, "deny").json()["state"] == "denied"
    late = world.post(hold, ADA)
    assert (late.status_code, "was decided before" in late.json()["message"]) == (409, True)


@requirement("APP-5")
def test_guessing_is_slowed_down(world: World) -> None:
    """The last of this file: it shuts this sender out for a minute."""
    statuses = [world.post("h-x", key=b"y" * 32).status_code for _ in range(25)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
