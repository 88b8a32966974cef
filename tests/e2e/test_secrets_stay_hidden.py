"""Every kind of secret is used, and refused, at a real gateway; then each is searched for (ID-10).

The places, and what may hold a secret there, stand in ``Stage.places`` and in ``Known.add``'s third
argument.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from browsing import Browser
from command_line import Run, run
from gateways import Gateway, Wire, entries, environ, running, verified
from homes import ADA, Home
from issuing import b64, ec_key, proof
from joserfc import jwt
from joserfc.jwk import ECKey
from local_site import site_in_thread
from portal import authorize_path
from requirements import requirement
from searching import (
    Known,
    archived,
    children,
    files,
    keys_of,
    process,
    random_text,
    rows,
    spellings,
)
from secretive_server import TOOLS
from signing_in import Person, issuer_of
from talkative import FILES, GIVEN_AWAY, REFUSALS, Talkative

from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.core.upstream_auth import NO_AUTH, AuthMode, UpstreamAuth
from exeat.identity.authorization.rules.credentials import ASSERTION
from exeat.identity.upstream.rules import challenge_of

__all__ = ["run"]
SCRIPT = str(Path(__file__).parents[1] / "secretive_server.py")
THERE = "https://app.example/callback"
KINDS = {
    "agent key", "revoked agent key", "garbled agent key",
    "access token", "refresh token", "authorization code", "code verifier",
    "one-time link", "cookie", "CSRF token",
    "client secret", "garbled client secret", "client assertion", "DPoP proof", "access token bound by DPoP",
    "vault value in a header", "vault value in a variable", "vault value replaced", "secret of a variable",
    "upstream client secret", "upstream private key", "upstream assertion", "upstream code",
    "upstream access token", "upstream refresh token", "permit", "key of the home",
}  # fmt: skip


class Stage:
    """A home with servers of every kind of access, its gateway, and what was said to whom."""

    def __init__(self, folder: Path, run: Run, on_exit: ExitStack) -> None:
        self.folder, self.run, self.known = folder, run, Known()
        self.said: list[tuple[str, bytes]] = []
        self.home = Home(folder / "home")
        on_exit.callback(self.home.state.close)
        self.web, self.drive, self.own, self.signed = (
            Talkative(on_exit.enter_context(site_in_thread()), self.known) for _ in range(4)
        )
        self.pem = folder / "upstream.pem"
        self._servers()
        names = ["web", "box", "drive", "own", "signed"]
        for agent in ("bot", "worker", "keyed"):
            self.home.agent(agent, names)
        self.home.policy('@id("all") permit(principal, action, resource);')
        variable = self.known.add(
            "secret of a variable", random_text("variable"), "gateway/environ"
        )
        self.gateway: Gateway = on_exit.enter_context(
            running(Gateway(self.home.path, options=["--verbose"], own_secret=variable))
        )
        self.issuer = issuer_of(self.gateway)
        for name, key in keys_of(self.home.path / "keys"):
            self.known.add("key of the home", key, f"/keys/{name}")

    def _servers(self) -> None:
        header = self.known.add("vault value in a header", random_text("header"))
        for name, value in (
            ("old", self.known.add("vault value replaced", random_text("replaced"))),
            ("header", header),
            ("variable", self.known.add("vault value in a variable", random_text("box"), "box/environ")),
        ):  # fmt: skip
            self.command("secret", "set", "header" if name == "old" else name, given=value)
        made = ECKey.generate_key("P-256", private=True)
        self.pem.write_bytes(made.as_pem(private=True))
        self.pem.chmod(0o600)
        self.known.add("upstream private key", self.pem.read_text().splitlines()[1])
        number = made.as_dict(private=True)["d"]
        self.known.add("upstream private key", number)
        client = {"mode": AuthMode.CLIENT_CREDENTIALS, "client_id": "exeat-there"}
        code = UpstreamAuth(AuthMode.AUTHORIZATION_CODE)
        own = UpstreamAuth(**client, issuer=self.own.site.url, secret_from="EXEAT_OWN_SECRET")
        signed = UpstreamAuth(**client, issuer=self.signed.site.url, key_file=str(self.pem))
        self._add(
            "web", self.web, headers_secret={"Authorization": "Bearer {header}"}, permit="web"
        )
        for name, upstream, auth in (
            ("drive", self.drive, code), ("own", self.own, own), ("signed", self.signed, signed),
        ):  # fmt: skip
            self._add(name, upstream, auth=auth)
        box = ServerSpec(
            ServerId("box"), Transport.STDIO, command=(sys.executable, SCRIPT),
            env_secret={"TOKEN": "variable"},
        )  # fmt: skip
        self.home.registry.add_server(box, ADA, 0, [], self.home.act())
        self.home.pin_all(box.id, TOOLS)

    def _add(self, name: str, upstream: Talkative, **rest: Any) -> None:
        spec = ServerSpec(
            ServerId(name), Transport.HTTP, url=upstream.url, **{"auth": NO_AUTH, **rest}
        )
        self.home.registry.add_server(spec, ADA, 0, [], self.home.act())
        self.home.pin_all(spec.id, [FILES])

    # what is done

    def command(self, *arguments: str, given: str = "") -> str:
        """A process of its own.  What it prints belongs to who asked: here a secret is shown once."""
        argv = [str(Path(sys.executable).with_name("exeat")), *arguments]
        at = ["--home", str(self.home.path), "--as", "ada"]
        port = {} if not hasattr(self, "issuer") else {
            "EXEAT_CONTROL_PORT": self.issuer.rpartition(":")[2]
        }  # fmt: skip
        done = subprocess.run(
            [*argv, *at], input=given, capture_output=True, text=True, env=environ(**port)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(self, server: str, credential: str, query: str = "", **fields: str) -> tuple[int, Any]:
        wire = Wire(self.gateway.port, credential, f"/mcp/{server}{query}")
        wire.more = fields
        answer = wire.call("given" if server == "box" else "files")
        self.hear(f"answer of {server}", json.dumps(answer) + str(wire.fields))
        wire.http.close()
        return wire.status, answer

    def is_failed(self, server: str, upstream: Talkative, credential: str) -> None:
        """In every way.  What a server gives away in its answer to the agent is not ours to hide; in the
        record and the log it is."""
        for how in (*REFUSALS, *GIVEN_AWAY):
            upstream.answers.append(how)
            self.call(server, credential)
            if how in GIVEN_AWAY:
                assert self.known.found(iter([self.said.pop()]))
        if server != "web":
            upstream.answers += ["challenge", "token", "token"]
            assert "gave no token" in str(self.call(server, credential)[1])
        upstream.answers.clear()

    def works(self, server: str, credential: str, **fields: str) -> None:
        end = time.monotonic() + 20
        while "content" not in (said := self.call(server, credential, **fields)[1]).get(
            "result", {}
        ):
            assert time.monotonic() < end, json.dumps(said)

    def hear(self, who: str, said: str) -> None:
        self.said.append((who, said.encode()))

    def hears_pages(self, client: httpx2.Client) -> None:
        """What a browser is given: codes, cookies and CSRF tokens."""

        def watch(response: httpx2.Response) -> None:
            response.read()
            for value in response.cookies.values():
                self.known.add("cookie", value)
            for csrf in re.findall(r'name="csrf" (?:content|value)="([0-9a-f]+)"', response.text):
                self.known.add("CSRF token", csrf)
            told = dict(parse_qsl(urlsplit(response.headers.get("location", "")).query))
            if str(response.headers.get("location")).startswith(THERE) and "code" in told:
                self.known.add("authorization code", told["code"])

        client.event_hooks = {"response": [watch]}

    def ask(self, path: str = "token", said: int = 200, **form: Any) -> dict[str, Any]:
        """At the embedded server; ``headers`` and ``auth`` as httpx takes them."""
        more = {name: form.pop(name) for name in ("headers", "auth") if name in form}
        answer = httpx2.post(f"{self.issuer}/oauth/{path}", data=form, timeout=20, **more)
        assert answer.status_code == said, answer.text
        found: dict[str, Any] = answer.json() if answer.content else {}
        if said == 200:
            for name in ("access_token", "refresh_token"):
                if name in found:
                    kind = name.replace("_", " ")
                    kind += " bound by DPoP" if found["token_type"] == "DPoP" else ""
                    self.known.add(kind, found[name])
        else:
            self.hear(f"refusal of {path}", answer.text + str(answer.headers))
        return found

    # where is searched

    def places(self) -> Iterator[tuple[str, bytes]]:
        """All of a running gateway."""
        yield "output of the gateway", self.gateway.output.encode()
        yield from self.said
        yield from files(self.home.path, "home")
        yield from rows(self.home.path / "state.db", "state.db by SQL")
        yield from rows(self.home.path / "ledger" / "gw1.db", "ledger by SQL")
        opened = "".join(f"{e.leaf}{e.values}" for e in entries(self.home.path))
        yield "the record, its values opened", opened.encode()
        yield from process(self.gateway.process.pid, "gateway")
        inside = children(self.gateway.process.pid)
        assert inside, "no stdio server runs"
        for pid in inside:
            yield from process(pid, "box")

    def copies(self) -> Iterator[tuple[str, bytes]]:
        """What is carried away, and what commands show."""
        for name, more in (("backup", ()), ("backup with keys", ("--with-keys",))):
            target = self.folder / f"{name}.tar"
            self.shown("backup", target, *more)
            yield from archived(target, name)
        target = self.folder / "export"
        self.shown("evidence", "export", target)
        yield "export", target.read_bytes()
        yield from rows(target, "export by SQL")
        for command in (
            "agent list", "agent show bot", "agent bindings", "agent unregistered", "client list",
            "client list --json", "key list bot", "key list bot --json", "secret list",
            "secret list --json", "server list", "server show web", "server show box",
            "server show drive", "server show own", "server show signed", "tool show web/files",
            "person list", "person passkeys ada", "permit keys", "export", "evidence verify",
            "evidence audit --values --events", "evidence audit --values --events --json --last 0",
            "evidence checkpoint", "doctor",
        ):  # fmt: skip
            yield f"exeat {command}", self.shown(*command.split()).encode()
        kinds = {getattr(e.leaf, "event", type(e.leaf)): e.index for e in entries(self.home.path)}
        for index in kinds.values():
            yield "exeat evidence show", self.shown("evidence", "show", str(index)).encode()

    def shown(self, *arguments: object) -> str:
        code, out, err = self.run(*arguments, "--home", self.home.path)
        assert code == 0 or arguments[0] == "doctor", err
        return out + err


def secrets_of_agents(stage: Stage) -> None:
    first = stage.known.add("agent key", stage.command("key", "issue", "bot", "--quiet").strip())
    for server in ("web", "box", "own", "signed"):
        stage.works(server, first)
    told = stage.command("key", "issue", "bot")
    ended = stage.known.add("revoked agent key", told.split()[0])
    name = re.findall(r"Key (\S+) of", told)[0]
    stage.works("web", ended)
    stage.command("key", "revoke", name)
    until(lambda: stage.call("web", ended)[0] == 401)
    garbled = stage.known.add("garbled agent key", first[:-4] + "aaaa")
    assert stage.call("web", garbled)[0] == 401
    assert stage.call(first, "")[0] == 404  # in the address
    for server, upstream in (("web", stage.web), ("own", stage.own), ("signed", stage.signed)):
        stage.is_failed(server, upstream, first)


def secrets_of_people(stage: Stage) -> None:
    """Link, session, consent, code, tokens; each is tried again when it is worth nothing any more."""
    added = stage.command("client", "add", "site", "--redirect", THERE, "--secret")
    client, secret = re.findall(r"(?:client id|secret): (\S+)", added)
    stage.known.add("client secret", secret)
    link = stage.command("person", "link", "ada").strip()
    stage.known.add("one-time link", link.rpartition("/")[2])
    person = Person(stage.issuer)
    stage.hears_pages(person.http)
    person.sign_in(link)
    again = person.http.get(link)
    stage.hear("the link once more", re.sub(r'"[0-9a-f]{64}"', "", again.text))  # its form's token
    resource = stage.gateway.endpoint("web")
    scope = "mcp:read mcp:write mcp:delete mcp:execute mcp:send mcp:pay"

    def code() -> dict[str, str]:
        verifier = stage.known.add("code verifier", os.urandom(32).hex())
        url = authorize_path(
            client, redirect_uri=THERE, resource=resource, scope=scope,
            code_challenge=challenge_of(verifier),
        )  # fmt: skip
        return {
            "grant_type": "authorization_code", "code": person.allow(url, agent="bot")["code"],
            "redirect_uri": THERE, "code_verifier": verifier, "resource": resource,
        }  # fmt: skip

    auth = (client, secret)
    wrong = stage.known.add("garbled client secret", secret[:-4] + "aaaa")
    form = code()
    stage.ask(said=401, auth=(client, wrong), **form)
    stage.ask(
        said=400, auth=auth, **{**form, "code_verifier": stage.known.add("code verifier", "w" * 50)}
    )
    form = code()
    given = stage.ask(auth=auth, **form)
    stage.works("web", given["access_token"])
    assert stage.call("box", given["access_token"])[0] == 401  # another audience
    assert stage.call("web", given["access_token"][:-6] + "aaaaaa")[0] == 401
    renewal = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    newer = stage.ask(auth=auth, **renewal)
    stage.works("web", newer["access_token"])
    stage.ask(said=400, auth=auth, **{**renewal, "refresh_token": newer["refresh_token"] + "a"})
    stage.ask(auth=auth, **{**renewal, "refresh_token": newer["refresh_token"]})
    stage.ask(said=400, auth=auth, **renewal)  # twice: everything of it ends
    until(lambda: stage.call("web", newer["access_token"])[0] == 401)
    stage.ask(said=400, auth=auth, **form)
    third = stage.ask(auth=auth, **code())
    stage.ask("revoke", auth=auth, token=third["refresh_token"])
    assert stage.call("web", third["access_token"])[0] == 401
    form_of_another = {"csrf": "0" * 64, "token": link.rpartition("/")[2]}
    forged = person.http.post("/link", data=form_of_another)
    assert forged.status_code == 403
    stage.hear("a forged form", forged.text)
    person.close()
    misplaced = f"?access_token={given['access_token']}"
    status, answer = stage.call("web", "", misplaced, Authorization="Bearer")
    assert status == 400, answer  # tokens in addresses end up in logs


def secrets_of_workloads(stage: Stage) -> None:
    """Clients that are agents: a secret, an assertion, a token bound to a key."""
    added = stage.command("client", "add", "worker", "--agent", "worker")
    client, secret = re.findall(r"(?:client id|secret): (\S+)", added)
    stage.known.add("client secret", secret)
    resource = stage.gateway.endpoint("web")
    form = {
        "grant_type": "client_credentials", "resource": resource,
        "scope": "mcp:read mcp:write mcp:delete mcp:execute mcp:send mcp:pay",
    }  # fmt: skip
    posted = {"client_id": client, "client_secret": secret}
    stage.works("web", stage.ask(**form, **posted)["access_token"])
    stage.ask(said=400, **{**form, "resource": "https://other.example/mcp"}, **posted)
    stage.ask(said=400, **{**form, "scope": secret}, **posted)  # put into the wrong field
    key = ec_key()
    jwks = stage.folder / "jwks.json"
    jwks.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    added = stage.command("client", "add", "keyed", "--agent", "keyed", "--jwks", str(jwks))
    (client,) = re.findall(r"client id: (\S+)", added)
    now = int(time.time())

    def signed(**changes: Any) -> dict[str, str]:
        claims = {
            "iss": client, "sub": client, "aud": stage.issuer, "jti": os.urandom(8).hex(),
            "iat": now, "exp": now + 60, **changes,
        }  # fmt: skip
        made = jwt.encode({"alg": "ES256"}, claims, key, algorithms=["ES256"])
        stage.known.add("client assertion", made)
        return {"client_assertion_type": ASSERTION, "client_assertion": made}

    once = signed()
    stage.works("web", stage.ask(**form, **once)["access_token"])
    for refused in (once, signed(aud="https://other.example"), signed(exp=now - 600)):
        stage.ask(said=401, **form, **refused)

    def proved(token: str, url: str, **changes: Any) -> str:
        at = proof(key, token, url=url, iat=int(time.time()), jti=os.urandom(8).hex(), **changes)
        return stage.known.add("DPoP proof", at)

    dpop = {"DPoP": proved("", f"{stage.issuer}/oauth/token", ath=None)}
    bound = stage.ask(**form, **signed(), headers=dpop)["access_token"]
    fields = {"Authorization": f"DPoP {bound}", "DPoP": proved(bound, resource)}
    assert stage.call("web", "", **fields)[0] == 200
    assert stage.call("web", "", **fields)[0] == 401  # the same proof
    assert (
        stage.call("web", "", Authorization=f"DPoP {bound}", DPoP=proved("x", resource))[0] == 401
    )
    assert stage.call("web", bound)[0] == 401


def secrets_of_consent(stage: Stage) -> None:
    """A person gives the gateway access to an upstream; its tokens end, are renewed, and are refused."""
    key = stage.known.add("agent key", stage.home.key("bot", ADA))
    until(lambda: stage.call("drive", key)[0] == 200)  # the key is known
    found = stage.call("drive", key)[1]["result"]["_meta"]["exeat/consent"]["url"]
    with Browser(stage.issuer) as browser:
        stage.hears_pages(browser.client)
        browser.sign_in(stage.home)
        stage.known.add("one-time link", browser.visited[0].rpartition("/")[2])
        page = browser.consent(found)
        assert page.status_code == 200, page.text
        back = browser.get(browser.visited[-1])
        assert back.status_code == 403
        stage.hear("the answer once more", back.text)
    stage.works("drive", key)
    stage.is_failed("drive", stage.drive, key)
    assert stage.drive.server.tokens[-1]["grant_type"] == "refresh_token"


def until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.long
@requirement("ID-6", "ID-7", "ID-8", "ID-9", "ID-10", "ID-11")
def test_no_secret_is_anywhere_but_where_it_belongs(tmp_path: Path, run: Run) -> None:
    with ExitStack() as on_exit:
        stage = Stage(tmp_path, run, on_exit)
        secrets_of_agents(stage)
        secrets_of_people(stage)
        secrets_of_workloads(stage)
        secrets_of_consent(stage)
        stage.works("box", stage.home.key("bot"))
        assert set(stage.known.kinds) == KINDS
        found = stage.known.found(stage.places())
        found += stage.known.found(stage.copies())
        assert stage.gateway.stop() == 0
        found += stage.known.found(files(stage.home.path, "home after the end"))
        found += stage.known.found(iter([("output at the end", stage.gateway.output.encode())]))
        Wire.close_all()
    assert not found, "\n".join(found)
    assert verified(stage.home.path).sound


@requirement("ID-10")
@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_the_search_sees_a_secret_in_any_spelling(before: str) -> None:
    import base64

    secret = 's3cret/+ of "somebody" ~~~?'
    known = Known()
    known.add("it", secret, "its own place")
    whole = f"{before}{secret}{before}".encode()
    for held in (
        whole, whole.hex().encode(), base64.b64encode(whole), base64.urlsafe_b64encode(whole),
        json.dumps(whole.decode()).encode(), b"Basic " + base64.b64encode(whole + b":x"),
        b64(whole).encode(), str(httpx2.QueryParams({"x": whole.decode()})).replace("+", "%20").encode(),
    ):  # fmt: skip
        assert known.found(iter([("there", held)])) == ["it in there"], held
        assert not known.found(iter([("its own place", held), ("there", held[:8])]))
    assert all(len(each) >= 8 for each in spellings(secret.encode()))
