"""Stock clients sign in by themselves (ID-7): discovery, registration, a person's consent, token, call, refresh;
at `exeat up` alone, and at an external provider that the gateway is configured to trust.  Part of `make interop`.

    sign_in.py [--write]

``--write`` writes the table of docs/reference/interoperability.md; without it, another table there is a failure.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(2, str(Path(__file__).resolve().parents[1] / "provider"))

from gateways import Gateway, Wire, decisions, permit_all, running, start_matrix_server, url_of
from homes import ADA, Home
from install import HERE, NotInstalled, Peers, install
from provider import Provider
from signing_in import Person, issuer_of
from table import SIGN_IN, differs, write

from exeat.core.ids import AgentId
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.service.clients import Clients
from exeat.identity.signin.service import RelyingParty, SignIn

TESTS: Final = Path(__file__).resolve().parents[1]
TIME_MAX_S: Final = 60.0
SUBJECT: Final = "u-ada"
PROBE: Final = "probe"
LABELS: Final = {
    "python": "Python SDK 2",
    "typescript-1": "TypeScript SDK 1",
    "typescript-2": "TypeScript SDK 2",
    "fastmcp": "FastMCP",
    "inspector": "Inspector, command line",
}
Browser = Callable[[str, str], str]
"""A person's: the URL that the client opened, and the agent that it is to be → where it ended."""


def drivers(peers: Peers, url: str, folder: Path) -> dict[str, Sequence[str]]:
    own = {name: str(HERE / "drivers" / f"oauth_{name}.py") for name in LABELS}
    kept = folder / "inspector"
    kept.mkdir(exist_ok=True)
    inspector = (peers.node, peers.npm("mcp-inspector"), "--cli")
    return {
        "python": (sys.executable, own["python"].replace("python.py", "sdk.py"), url),
        "typescript-1": (peers.node, peers.driver("oauth.mjs"), "sdk", url),
        "typescript-2": (peers.node, peers.driver("oauth.mjs"), "client", url),
        "fastmcp": (peers.python("peers", "python"), own["fastmcp"], url),
        "inspector": (sys.executable, own["inspector"], url, str(kept), *inspector),
    }


def signs_in(argv: Sequence[str], browser: Browser, agent: str) -> str:
    """Empty if the client asked once, and called twice.  What it started ends with it."""
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=env, start_new_session=True,
    ) as client:  # fmt: skip
        assert client.stdin is not None and client.stdout is not None

        def end() -> None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(client.pid, signal.SIGKILL)

        ending = threading.Timer(TIME_MAX_S, end)
        ending.start()
        said = []
        try:
            for line in client.stdout:
                if line.startswith("URL "):
                    client.stdin.write(browser(line.split()[1], agent) + "\n")
                    client.stdin.flush()
                said.append(line.split()[0] if line.startswith("URL ") else line.strip())
        except AssertionError as refused:
            said.append(f"the browser was shown: {refused}")
        finally:
            ending.cancel()
            end()
    wanted = ["URL", "SUM 3", "SUM 4"]
    return "" if [each for each in said if each in wanted] == wanted else f"{said}"[-2000:]


def made(folder: Path, names: Sequence[str], upstream: str) -> Home:
    home = Home(folder / "home")
    home.pin_all(home.server("m", url=upstream))
    for name in names:
        home.agent(name, ["m"])
    permit_all(home, *names)
    return home


def at_exeat(stack: ExitStack, home: Home) -> tuple[Gateway, Browser]:
    """The embedded authorization server; ada signs in with a one-time link."""
    gateway = stack.enter_context(running(Gateway(home.path)))
    person = stack.enter_context(closing(Person(issuer_of(gateway))))
    act = home.act()
    doing = Doing(act.actor, act.channel, act.at, act.reason)
    sign_in = SignIn(home.state.sign_in, RelyingParty("localhost", person.issuer), os.urandom)
    person.sign_in(f"{person.issuer}/link/{sign_in.make_link(ADA, doing)}")
    Clients(home.state.authorization, os.urandom).open_window(60, doing)
    return gateway, person.sent_to


def at_provider(stack: ExitStack, home: Home) -> tuple[Gateway, Browser]:
    """oidc-provider of npm; the gateway's metadata names it alone.  A client's id is bound when it has one."""
    provider = Provider()
    stack.callback(provider.stop)
    (home.path / "exeat.toml").write_text(
        f'sign_in_at_issuers = true\n\n[[issuers]]\nurl = "{provider.issuer}"\n'
    )
    home.registry.bind_person(provider.issuer, SUBJECT, ADA, home.act())
    home.agent(PROBE, ["m"])
    gateway = stack.enter_context(running(Gateway(home.path)))

    def browser(url: str, agent: str) -> str:
        client = parse_qs(urlsplit(url).query)["client_id"][0]
        home.registry.bind(provider.issuer, client, None, AgentId(agent), home.act())
        seen_by(gateway, home.key(PROBE))
        return provider.sent_to(url, SUBJECT)

    return gateway, browser


def seen_by(gateway: Gateway, key: str) -> None:
    """The gateway knows a key that was made after what matters, and so that as well."""
    end = time.monotonic() + TIME_MAX_S
    with closing(Wire(gateway.port, key, "/mcp/m").http) as http:
        wire = Wire.opened[-1]
        assert wire.http is http
        while wire.call("add", a=1, b=1) is None or wire.status == 401:
            assert time.monotonic() < end, "the gateway never saw a change"


PLACES: Final = {"`exeat up`": at_exeat, "external provider": at_provider}


def play(peers: Peers, folder: Path) -> dict[str, dict[str, str]]:
    """Place → client → what went wrong, or empty."""
    found: dict[str, dict[str, str]] = {}
    for number, (place, opened) in enumerate(PLACES.items()):
        here = folder / str(number)
        here.mkdir()
        with ExitStack() as stack:
            upstream = stack.enter_context(running(start_matrix_server()))
            home = made(here, list(LABELS), url_of(upstream))
            stack.callback(home.state.close)
            gateway, browser = opened(stack, home)
            results = found[place] = {}
            for name, argv in drivers(peers, gateway.endpoint("m"), here).items():
                why = signs_in(argv, browser, name)
                called = {leaf.agent.id for leaf, _, status in decisions(home.path) if status}
                if not why and name not in called:
                    why = f"no call of agent {name} is on record"
                results[name] = why
                print(
                    f"{name} at {place}: {why or 'signs in by itself and calls twice'}", flush=True
                )
    return found


def render(found: dict[str, dict[str, str]]) -> str:
    rows = [["client", *found], ["---"] * (len(found) + 1)]
    for name, label in LABELS.items():
        rows.append([label, *("**no**" if each[name] else "yes" for each in found.values())])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{SIGN_IN[0]}\n{table}\n{SIGN_IN[1]}"


def main(words: list[str]) -> int:
    try:
        peers = install()
    except NotInstalled as failed:
        print(f"skipped: what it needs could not be installed: {failed}")
        return int(os.environ.get("EXEAT_NO_SKIPS") == "1")
    with tempfile.TemporaryDirectory(prefix="exeat-sign-in-") as folder:
        found = play(peers, Path(folder))
    results = [why for each in found.values() for why in each.values()]
    failed = sum(map(bool, results))
    print(f"clients that sign in: {len(results) - failed} passed, {failed} failed")
    page = render(found)
    if "--write" in words:
        write(page, *SIGN_IN)
    elif differs(page):
        print("docs/reference/interoperability.md says something else; --write")
        return 1
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
