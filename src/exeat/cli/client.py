"""``exeat client``: OAuth clients of the embedded authorization server (ID-7)."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from exeat.cli.desk import NO_REASON as NONE
from exeat.cli.desk import (
    AsOption,
    Desk,
    HomeOption,
    JsonOption,
    ReasonOption,
    doing,
    issuer,
    next_step,
    open_desk,
    say,
    show_json,
    table,
)
from exeat.core.errors import ExeatError, Invalid
from exeat.core.ids import AgentId
from exeat.identity.authorization.model.client import EVALUATE, SECRET_LIFE_MAX_DAYS, Client
from exeat.identity.authorization.model.doing import SECOND_NS
from exeat.identity.authorization.model.grant import ACCESS_LIFE_MAX_S
from exeat.identity.authorization.service.clients import REGISTERED, Clients, New
from exeat.identity.authorization.service.grants import end_grant
from exeat.registry.model.binding import Kind, is_document
from exeat.registry.model.names import show_time, slug

app = typer.Typer(
    help="OAuth clients: add, let register, revoke.", no_args_is_help=True, add_completion=False
)
KEYS_MAX_BYTES = 64 * 1024


@app.command("list")
def list_clients(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Clients that were added, or registered themselves; those known by an address keep no entry."""
    desk = open_desk(home)
    now = time.time_ns()
    with desk.state.authorization.read() as read:
        clients, window = read.clients(), read.window()
    if as_json:
        show_json([{**c.as_json(), "live": c.live(now), "ends_at": c.ends_at} for c in clients])
        return
    table(
        ("client", "kind", "proves itself by", "agent or redirect URIs", "until"),
        (
            (
                c.id,
                c.kind.value,
                c.auth.value,
                c.agent or " ".join(c.redirects) or ("evaluates" if EVALUATE in c.grants else ""),
                show_time(c.ends_at) if c.live(now) else "ended",
            )
            for c in clients
        ),
    )
    if window is not None and window.open(now):
        say(f"Clients may register themselves until {show_time(window.until)}.")


@app.command()
def add(  # noqa: PLR0913 - one per option
    name: str,
    redirect: Annotated[
        list[str] | None, typer.Option("--redirect", help="Where people sign in from; repeatable.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", help="The one agent that this client is.")
    ] = None,
    jwks: Annotated[
        Path | None, typer.Option("--jwks", help="Its public keys (private_key_jwt); no secret.")
    ] = None,
    evaluates: Annotated[
        bool,
        typer.Option("--evaluates", help="It asks for decisions on any agent (AuthZEN), no more."),
    ] = False,
    secret: Annotated[
        bool, typer.Option("--secret", help="A client with --redirect gets a secret, too.")
    ] = False,
    days: Annotated[int, typer.Option("--days", help="How long it lives.")] = SECRET_LIFE_MAX_DAYS,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Add a client: with --redirect for people's sign-in, --agent for an agent by itself, or --evaluates."""
    desk = open_desk(home, as_)
    new = New(
        slug("a client", name),
        days,
        tuple(redirect or ()),
        None if agent is None else AgentId(agent),
        "" if jwks is None else _read(jwks),
        secret=jwks is None and (secret or agent is not None or evaluates),
        evaluates=evaluates,
    )
    clients = Clients(desk.state.authorization, os.urandom)
    made, shown = clients.add(new, doing(desk, reason))
    if made.agent is not None:
        _bind(desk, clients, made, reason)
    say(f"client id: {made.id}")
    if shown:
        say(f"secret: {shown}")
        next_step("keep the secret now: it is shown once")
    say(f"issuer: {issuer(desk)}   until: {show_time(made.ends_at)}")


@app.command("open")
def open_window(
    minutes: Annotated[int, typer.Option("--minutes", help="For so long; 0 closes it.")] = 5,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Let clients register themselves for a while (RFC 7591); it is recorded."""
    desk = open_desk(home, as_)
    clients = Clients(desk.state.authorization, os.urandom)
    window = clients.open_window(minutes, doing(desk, reason))
    if minutes:
        say(
            f"Clients may register themselves until {show_time(window.until)},"
            f" {window.left} at most; each still needs a person's consent."
        )
    else:
        say("Clients may not register themselves.")


@app.command()
def revoke(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """End a client and every authorization that it holds, from the next call on."""
    desk = open_desk(home, as_)
    held = _revoke(desk, name, reason)
    say(f"{name} is revoked, and {held} authorizations with it.")


def _revoke(desk: Desk, name: str, reason: str) -> int:
    clients = Clients(desk.state.authorization, os.urandom)
    how = doing(desk, reason)
    held = clients.revoke(name, how)
    until = how.at + ACCESS_LIFE_MAX_S * SECOND_NS
    for grant in held:
        end_grant(desk.state.authorization, grant, how)
        desk.registry.end_tokens(grant, until, desk.act(reason))
    _unbind(desk, {name, f"{REGISTERED}{name}"}, reason)
    return len(held)


def _unbind(desk: Desk, names: set[str], reason: str) -> None:
    """What it got by exchange is of authorizations to others, which go on: it ends because the client
    is no agent any more.  A document's address may be consented to again, and stays bound."""
    with desk.state.registry.read() as read:
        found = [
            each.id
            for each in read.bindings()
            if (each.kind, each.issuer) == (Kind.CLIENT, issuer(desk))
            and each.name in names
            and not is_document(each.name)
        ]
    for binding in found:
        desk.registry.unbind(binding, desk.act(reason))


def _bind(desk: Desk, clients: Clients, made: Client, reason: str) -> None:
    """ID-6: the agent's one client from now on.  If it cannot be, the client is none either."""
    assert made.agent is not None  # noqa: S101 - the caller looked
    try:
        desk.registry.bind(issuer(desk), made.id, None, made.agent, desk.act(reason))
    except ExeatError:
        clients.revoke(made.id, doing(desk, "its agent could not be bound"))
        raise


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(KEYS_MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read.", remedy="Give a JWK set in JSON.") from error
