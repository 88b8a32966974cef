"""`exeat client`, `exeat person link` and `passkeys` (ID-7, ID-8)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from authenticator import Authenticator
from command_line import Run, run
from homes import ADA, Home
from joserfc.jwk import ECKey
from requirements import requirement

from exeat.core.ids import AgentId
from exeat.identity.authorization.model.client import secret_digest
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.model.token import Actor, Claims
from exeat.identity.rules.principal import principal, still_stands
from exeat.identity.signin.service import RelyingParty, SignIn

__all__ = ["run"]
ISSUER = "http://localhost:8718"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.server("m", command=("true",))
    made.agent("bot", ["m"])
    return made


def args(home: Home, who: str = "ada") -> tuple[str, ...]:
    return ("--home", str(home.path), "--as", who, "--reason", "for a test")


def kinds(home: Home) -> list[str]:
    return [w.event.kind for w in home.state.outbox.take(1000)]


@requirement("POL-8")
def test_add_a_client_that_asks_for_decisions(home: Home, run: Run) -> None:
    code, out, err = run("client", "add", "pep", "--evaluates", *args(home))
    assert code == 0 and "secret: " in out and "shown once" in err
    assert "evaluates" in run("client", "list", "--home", home.path)[1]
    for more in (("--agent", "bot"), ("--redirect", "https://app.example/cb")):
        code, _, err = run("client", "add", "both", "--evaluates", *more, *args(home))
        assert code != 0 and "--evaluates" in err
    keys = home.path / "keys.json"
    keys.write_text("{}")
    code, _, err = run("client", "add", "k", "--evaluates", "--jwks", str(keys), *args(home))
    assert code != 0 and "--jwks" in err
    code, _, err = run("client", "add", "b", "--evaluates", *args(home, "bob"))
    assert code != 0 and "role admin" in err


@requirement("ID-6")
@requirement("ID-7")
def test_add_a_client_that_is_an_agent(home: Home, run: Run) -> None:
    code, out, err = run("client", "add", "worker", "--agent", "bot", *args(home))
    assert code == 0 and f"issuer: {ISSUER}" in out and "shown once" in err
    name, secret = re.findall(r"(?:client id|secret): (\S+)", out)
    assert home.state.snapshot().clients == {(ISSUER, name, ""): AgentId("bot")}
    with home.state.authorization.read() as read:
        kept = read.client(name)
    assert kept is not None and kept.secret_digest == secret_digest(secret)
    assert secret not in repr([w.event for w in home.state.outbox.take(1000)])
    listed = run("client", "list", "--home", home.path)[1]
    assert name in listed and "client_secret" in listed and secret not in listed
    (shown,) = json.loads(run("client", "list", "--json", "--home", home.path)[1])
    assert shown["agent"] == "bot" and shown["live"] is True and "secret_digest" not in shown
    code, out, _ = run("client", "revoke", "worker", *args(home))
    assert code == 0 and "is revoked" in out
    assert "ended" in run("client", "list", "--home", home.path)[1]


@requirement("ID-5")
@requirement("ID-7")
def test_what_a_revoked_client_got_by_exchange_ends_with_it(home: Home, run: Run) -> None:
    """Such a token is of the person's authorization to another client, which goes on."""
    _, out, _ = run("client", "add", "worker", "--agent", "bot", *args(home))
    name = out.split()[2]
    claims = Claims(
        ISSUER, ADA, name, frozenset(), frozenset(), 2**62, ("g-1",), (Actor(ISSUER, name),)
    )  # fmt: skip

    def caller() -> Any:
        return principal(claims, home.state.snapshot(), "t-1", None, ISSUER)

    before = caller()
    assert before.agent.id == "bot" and still_stands(before, home.state.snapshot(), 0)
    assert run("client", "revoke", "worker", *args(home))[0] == 0
    assert caller().agent.revision == 0
    assert not still_stands(before, home.state.snapshot(), 0)
    assert kinds(home)[-1] == "client.unbound"


@requirement("ID-7")
def test_add_a_client_with_keys(home: Home, run: Run, tmp_path: Path) -> None:
    key = ECKey.generate_key("P-256", private=True)
    public, private = tmp_path / "public.json", tmp_path / "private.json"
    public.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    private.write_text(json.dumps({"keys": [key.as_dict(private=True)]}))
    code, out, _ = run("client", "add", "signer", "--agent", "bot", "--jwks", public, *args(home))
    assert code == 0 and "secret" not in out
    code, _, err = run("client", "add", "other", "--agent", "bot", "--jwks", private, *args(home))
    assert code == 1 and "private key" in err
    code, _, err = run(
        "client", "add", "x", "--agent", "bot", "--jwks", tmp_path / "no", *args(home)
    )
    assert code == 1 and "cannot be read" in err


@requirement("ID-7")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "either signs people in, or is one agent"),
        (("--agent", "bot", "--redirect", "http://127.0.0.1/cb"), "either signs people in"),
        (("--agent", "nobody"), "There is no agent nobody"),
        (("--redirect", "javascript:alert(1)"), "cannot be a redirect URI"),
        (("--redirect", "http://evil.example/cb"), "cannot be a redirect URI"),
        (("--agent", "bot", "--days", "91"), "lives 1 to 90 days"),
        (("--agent", "bot", "--days", "0"), "lives 1 to 90 days"),
        (("--redirect", "http://127.0.0.1/cb", "--days", "367"), "lives 1 to 366 days"),
    ],
)
def test_what_cannot_be_added(home: Home, run: Run, given: tuple[str, ...], said: str) -> None:
    code, _, err = run("client", "add", "x", *given, *args(home))
    assert code == 1 and said in err
    with home.state.authorization.read() as read:
        assert read.clients() == ()


@requirement("ID-6")
def test_an_agent_that_cannot_be_bound_leaves_no_client(home: Home, run: Run) -> None:
    home.registry.retire(AgentId("bot"), home.act())
    code, _, err = run("client", "add", "late", "--agent", "bot", *args(home))
    assert code == 1 and "retired" in err
    with home.state.authorization.read() as read:
        assert all(each.revoked for each in read.clients())


@requirement("ID-7")
def test_the_window(home: Home, run: Run) -> None:
    code, out, _ = run("client", "open", "--minutes", "5", *args(home))
    assert code == 0 and "20 at most" in out
    assert "may register themselves until" in run("client", "list", "--home", home.path)[1]
    assert "may not register" in run("client", "open", "--minutes", "0", *args(home))[1]
    for minutes in ("61", "-1"):
        assert run("client", "open", "--minutes", minutes, *args(home))[0] == 1
    code, _, err = run("client", "open", *args(home, "bob"))
    assert code == 1 and "role admin" in err
    assert kinds(home)[-2:] == ["registration.opened", "registration.closed"]


@requirement("ID-8")
def test_links_and_passkeys(home: Home, run: Run) -> None:
    code, out, err = run("person", "link", "bob", *args(home))
    assert code == 0 and out.startswith(f"{ISSUER}/link/") and "bob alone" in err
    assert run("person", "link", "nobody", *args(home))[0] == 1
    assert "role admin" in run("person", "link", "ada", *args(home, "bob"))[2]
    sign_in = SignIn(home.state.sign_in, RelyingParty("localhost", ISSUER), lambda n: b"r" * n)
    now = home.act().at
    cookie, session = sign_in.use_link(out.strip().rpartition("/")[2], now)
    options = sign_in.begin_enrolment(cookie, session, now)
    sign_in = SignIn(home.state.sign_in, RelyingParty("localhost", ISSUER), lambda n: b"s" * n)
    sign_in.finish_enrolment(cookie, session, Authenticator(ISSUER).create(options), now)
    (shown,) = json.loads(run("person", "passkeys", "bob", "--json", "--home", home.path)[1])
    assert shown["id"] in run("person", "passkeys", "bob", "--home", home.path)[1]
    code, out, _ = run("person", "passkeys", "bob", "--remove", shown["id"], *args(home))
    assert code == 0 and "signed out everywhere" in out
    assert kinds(home)[-4:] == ["link.made", "link.used", "passkey.enrolled", "passkey.removed"]
    doing = Doing(ADA, "test", now, "for a test")
    assert sign_in.make_link(ADA, doing)
