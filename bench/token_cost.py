"""What a token costs beside a key: found again, seen for the first time, proven with DPoP (ID-1, ID-4).

The first lines time the look-up alone, in this process; the last two the whole call, interleaved.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import targets
import uvloop
from load import MODERN, drive
from policies import AGENT
from upstream import TOOLS_DEFAULT, tool_names

sys.path.insert(0, str(targets.TESTS))
from homes import Home
from issuing import ALL, ISSUER, RESOURCE, Idp, ec_key, proof, sign
from worlds import NOW, UP, World

from exeat.app.issuers import oauth_key
from exeat.core.facts import ServerSpec, Transport
from exeat.gateway.credentials import Credentials
from exeat.gateway.http1 import RequestHead
from exeat.gateway.proof import Proofs

ROUNDS: Final = 3
OWN: Final = "https://signs.example"
CLIENT: Final = "bench-client"


def tokens(core: int, rest: int, out: Path, seconds: float) -> list[dict[str, Any]]:
    """``seconds``: of each round of whole calls."""
    return [*_look_ups(2_000 if seconds > 0.5 else 100), *_calls(core, rest, out, seconds)]


def _look_ups(count: int) -> list[dict[str, Any]]:
    idp, key = Idp(), ec_key()
    made = World(tokens=idp.tokens(), clients={(ISSUER, "c1", ""): "bot"}, subjects={})  # type: ignore[dict-item]
    made.spec, made.tools = ServerSpec(UP, Transport.HTTP, url=RESOURCE), []
    view = made.view()
    pipeline: Any = SimpleNamespace(state=SimpleNamespace(view=view), clock=lambda: NOW)
    known = Credentials(pipeline, idp.tokens())
    peer: Any = SimpleNamespace(certificate=None)
    plain = idp.token(sub="c1")
    bound = idp.token(sub="c1", cnf={"jkt": key.thumbprint()})
    fresh = [idp.token(sub="c1", jti=f"j{n}") for n in range(count)]
    proofs = [proof(key, bound, jti=f"p{n}") for n in range(count)]
    heads = [
        RequestHead("POST", "/mcp/up", {"dpop": each}, 0, True, "", 0) for each in ("", *proofs)
    ]

    def ask(credentials: Credentials, header: str, head: RequestHead = heads[0]) -> None:
        found = credentials.caller(header, RESOURCE, head, peer, NOW)
        assert hasattr(found, "agent"), found

    again, first, sender = (Credentials(pipeline, idp.tokens(), Proofs()) for _ in range(3))
    ways: dict[str, Callable[[int], None]] = {
        "key, found again": lambda n: ask(known, "Bearer bot"),
        "token, found again": lambda n: ask(again, f"Bearer {plain}"),
        "token, first seen (ES256)": lambda n: ask(first, f"Bearer {fresh[n]}"),
        "token with a DPoP proof (ES256)": lambda n: ask(sender, f"DPoP {bound}", heads[n + 1]),
    }
    return [{"case": name, "us": _median_us(way, count)} for name, way in ways.items()]


def _median_us(way: Callable[[int], None], count: int) -> float:
    times = []
    for number in range(count):
        began = time.perf_counter_ns()
        way(number)
        times.append(time.perf_counter_ns() - began)
    return round(statistics.median(times) / 1000, 2)


def _calls(core: int, rest: int, out: Path, seconds: float) -> list[dict[str, Any]]:
    with (
        targets.upstream(rest, TOOLS_DEFAULT, out) as port,
        targets.exeat(port, "/json", core, out, issuer_url=OWN) as target,
    ):
        home = out / "exeat-home"
        plan = target.plan(MODERN, tool_names(TOOLS_DEFAULT))
        resource = f"http://127.0.0.1:{target.port}{target.path}"
        plans = {
            "whole call with a key": plan,
            "whole call with a token": replace(plan, bearer=_token(home, resource)),
        }
        spent: dict[str, list[float]] = {name: [] for name in plans}
        for _ in range(ROUNDS):
            for name, each in plans.items():
                before = targets.cpu_seconds(target.pid)
                tally = uvloop.run(drive(each, 32, seconds))
                assert not tally.wrong, tally.example
                used = targets.cpu_seconds(target.pid) - before
                spent[name].append(used / max(len(tally.latencies), 1) * 1e6)
        return [
            {"case": name, "us": round(statistics.median(each), 1)} for name, each in spent.items()
        ]


def _token(home: Path, resource: str) -> str:
    """Of the gateway's own authorization server, for the benchmark's agent."""
    made = Home.opened(home)
    made.registry.bind(OWN, CLIENT, None, AGENT, made.act())  # type: ignore[arg-type]
    made.state.close()
    key, now = oauth_key(home), int(time.time())
    claims = {
        "iss": OWN, "sub": CLIENT, "client_id": CLIENT, "aud": resource, "scope": ALL,
        "iat": now, "exp": now + 3_000, "jti": "bench",
    }  # fmt: skip
    return sign(key, {"typ": "at+jwt", "kid": key.kid}, claims)
