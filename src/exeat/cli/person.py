"""``exeat person``: who owns, deputises, approves."""

import os
from typing import Annotated, Any

import typer

from exeat.cli import desk as desks
from exeat.cli.desk import NO_REASON as NONE
from exeat.cli.desk import (
    AsOption,
    Desk,
    HomeOption,
    JsonOption,
    ReasonOption,
    doing,
    hint_untrusted,
    next_step,
    open_desk,
    say,
    show_json,
    table,
)
from exeat.core.ids import PersonId

app = typer.Typer(
    help="People: owners, deputies, operators.", no_args_is_help=True, add_completion=False
)
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="`admin`, or a role that policy names; repeatable."),
]


@app.command()
def add(
    name: str,
    role: Roles = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Register a person by an id, never by name or e-mail address."""
    desk = open_desk(home, as_)
    person = desk.registry.register_person(name, role or [], desk.act(reason))
    say(f"{person.id} is registered.")


@app.command("list")
def list_people(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Everybody, with roles."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        people = read.people()
    if as_json:
        show_json([{"id": p.id, "live": p.live, "roles": sorted(p.roles)} for p in people])
    else:
        table(
            ("person", "live", "roles"),
            (
                (p.id, "yes" if p.live else "gone", ", ".join(sorted(p.roles)) or "-")
                for p in people
            ),
        )


@app.command()
def roles(
    name: str,
    role: Roles = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Set the roles of a person; those not named are taken away."""
    desk = open_desk(home, as_)
    person = desk.registry.set_roles(PersonId(name), role or [], desk.act(reason))
    say(f"{person.id} has the roles: {', '.join(sorted(person.roles)) or 'none'}")


@app.command()
def depart(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """A person left: agents without another live owner or deputy are stopped at their next call."""
    desk = open_desk(home, as_)
    person, agents = desk.registry.depart(PersonId(name), desk.act(reason))
    say(f"{person.id} has departed.")
    with desk.state.registry.read() as read:
        live = {each.id for each in read.people() if each.live}
    for agent in agents:
        left = sorted(live & {agent.charter.owner, agent.charter.deputy})
        say(
            f"Agent {agent.id}: {left[0]} alone answers for it now."
            if left
            else f"Agent {agent.id}: nobody answers for it now, so it is denied everything."
        )
    if agents:
        next_step("exeat agent change AGENT --owner … --deputy …")


@app.command()
def bind(
    name: str,
    issuer: Annotated[str, typer.Option(help="`iss` of the tokens.")],
    subject: Annotated[str, typer.Option(help="Whom the issuer calls this person.")],
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """A trusted issuer's subject is this person: agents may act for them (ID-5)."""
    desk = open_desk(home, as_)
    made = desk.registry.bind_person(issuer, subject, PersonId(name), desk.act(reason))
    say(f"{name} is known to {issuer} ({made.id}).")
    hint_untrusted(desk, issuer)


@app.command()
def unbind(
    binding: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """The issuer's subject is nobody here any more."""
    desk = open_desk(home, as_)
    old = desk.registry.unbind(binding, desk.act(reason))
    say(f"{old.to} is known to {old.issuer} by that name no more.")


@app.command()
def link(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """A link with which that person signs in once, within 15 minutes, and enrols a passkey."""
    desk = open_desk(home, as_)
    token = _sign_in(desk).make_link(PersonId(name), doing(desk, reason))
    say(f"{desks.issuer(desk)}/link/{token}")
    next_step(f"give it to {name} alone: whoever opens it first is {name}")


@app.command()
def passkeys(
    name: str,
    remove: Annotated[
        str | None, typer.Option("--remove", help="Remove this one; all sessions end.")
    ] = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Passkeys of a person; or remove one, such as a lost device's."""
    from exeat.registry.model.names import show_time

    desk = open_desk(home, as_)
    sign_in = _sign_in(desk)
    if remove is not None:
        gone = sign_in.remove_passkey(remove, PersonId(name), doing(desk, reason))
        say(f"{gone.id} is removed, and {name} is signed out everywhere.")
        return
    found = sign_in.passkeys_of(PersonId(name))
    if as_json:
        show_json([{**p.as_json(), "made_at": p.made_at, "used_at": p.used_at} for p in found])
    else:
        table(
            ("passkey", "since", "last used", "synced"),
            (
                (p.id, show_time(p.made_at), show_time(p.used_at), "yes" if p.synced else "no")
                for p in found
            ),
        )


def _sign_in(desk: Desk) -> Any:
    from exeat.identity.signin.service import RelyingParty, SignIn

    return SignIn(desk.state.sign_in, RelyingParty("localhost", desks.issuer(desk)), os.urandom)
