"""Stock clients sign in by themselves against `exeat up`: discovery, registration, a person's consent, token,
call, refresh (ID-7).  Part of `make interop`."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from gateways import Gateway, decisions, permit_all, running, start_matrix_server, url_of
from homes import ADA, Home
from install import HERE, NotInstalled, Peers, install
from signing_in import Person, issuer_of

from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.service.clients import Clients
from exeat.identity.signin.service import RelyingParty, SignIn

TIME_MAX_S = 60.0


def drivers(peers: Peers, url: str) -> dict[str, Sequence[str]]:
    fastmcp = str(HERE / "drivers" / "oauth_fastmcp.py")
    return {
        "typescript-1": (peers.node, peers.driver("oauth.mjs"), "sdk", url),
        "typescript-2": (peers.node, peers.driver("oauth.mjs"), "client", url),
        "fastmcp": (peers.python("peers", "python"), fastmcp, url),
    }


def signs_in(argv: Sequence[str], person: Person, agent: str) -> str:
    """Empty if the client asked once, and called twice."""
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as client:
        assert client.stdin is not None and client.stdout is not None
        ending = threading.Timer(TIME_MAX_S, client.kill)
        ending.start()
        said = []
        for line in client.stdout:
            if line.startswith("URL "):
                client.stdin.write(person.sent_to(line.split()[1], agent) + "\n")
                client.stdin.flush()
            said.append(line.split()[0] if line.startswith("URL ") else line.strip())
        ending.cancel()
    wanted = ["URL", "SUM 3", "SUM 4"]
    return "" if [each for each in said if each in wanted] == wanted else f"{said}"[-2000:]


def play(peers: Peers, folder: Path) -> int:
    failed = 0
    with running(start_matrix_server()) as upstream:
        home = Home(folder / "home")
        home.pin_all(home.server("m", url=url_of(upstream)))
        names = list(drivers(peers, ""))
        for name in names:
            home.agent(name, ["m"])
        permit_all(home, *names)
        with running(Gateway(home.path)) as gateway, closing(Person(issuer_of(gateway))) as person:
            act = home.act()
            doing = Doing(act.actor, act.channel, act.at, act.reason)
            sign_in = SignIn(
                home.state.sign_in, RelyingParty("localhost", person.issuer), os.urandom
            )
            person.sign_in(f"{person.issuer}/link/{sign_in.make_link(ADA, doing)}")
            Clients(home.state.authorization, os.urandom).open_window(60, doing)
            for name, argv in drivers(peers, gateway.endpoint("m")).items():
                why = signs_in(argv, person, name)
                called = {leaf.agent.id for leaf, _, status in decisions(home.path) if status}
                if not why and name not in called:
                    why = f"no call of agent {name} is on record"
                failed += bool(why)
                print(f"{name}: {why or 'signs in by itself and calls twice'}")
        home.state.close()
    print(f"clients that sign in: {len(names) - failed} passed, {failed} failed")
    return failed


def main() -> int:
    try:
        peers = install()
    except NotInstalled as failed:
        print(f"skipped: what it needs could not be installed: {failed}")
        return int(os.environ.get("EXEAT_NO_SKIPS") == "1")
    with tempfile.TemporaryDirectory(prefix="exeat-sign-in-") as folder:
        return min(play(peers, Path(folder)), 1)


if __name__ == "__main__":
    sys.exit(main())
