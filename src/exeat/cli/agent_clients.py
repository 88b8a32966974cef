"""``exeat agent``: which clients are which agents, and clients that are none yet (ID-5)."""

from datetime import date, timedelta
from typing import Annotated

import typer

from exeat.cli.desk import NO_REASON as NONE
from exeat.cli.desk import (
    AsOption,
    HomeOption,
    JsonOption,
    ReasonOption,
    hint_untrusted,
    next_step,
    open_desk,
    say,
    show_json,
    table,
)
from exeat.core.errors import Conflict
from exeat.core.ids import AgentId, PersonId
from exeat.registry.model.agent import Charter
from exeat.registry.model.binding import Kind, is_document
from exeat.registry.model.names import parse_until, show_time
from exeat.registry.rules.adoption import proposed_name, proposed_scope

ADOPTED_DAYS = 90


def unregistered(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Clients with a good token that are no agent: denied everything, and what they tried."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        bound = {(b.issuer, b.name, b.user) for b in read.bindings() if b.kind is Kind.CLIENT}
        strangers = sorted(read.strangers(), key=lambda each: -each.last_seen)
    found = [  # one that was bound since is listed no more, until it is unbound
        each
        for each in strangers
        if bound.isdisjoint({(each.issuer, each.client, u) for u in (each.user, None)})
    ]
    if as_json:
        show_json(
            [
                {
                    **each.as_json(),
                    "attempts": each.attempts,
                    "first_seen": show_time(each.first_seen),
                    "last_seen": show_time(each.last_seen),
                }
                for each in found
            ]
        )
        return
    table(
        ("id", "client", "user", "attempts", "last seen", "tried"),
        (
            (
                each.id.partition(":")[2],
                each.client or "-",
                each.user or "-",
                each.attempts,
                show_time(each.last_seen),
                ", ".join(sorted(each.tried)[:4]),
            )
            for each in found
        ),
    )
    if found:
        next_step("exeat agent adopt ID --name … --deputy …")


def adopt(  # noqa: PLR0913 - one per option
    stranger: Annotated[str, typer.Argument(help="Its id, as `exeat agent unregistered` says.")],
    into: Annotated[str | None, typer.Option(help="It is this agent; register none.")] = None,
    name: Annotated[str | None, typer.Option(help="Id of the new agent.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it; else you.")] = None,
    deputy: Annotated[str | None, typer.Option(help="Who answers if the owner is gone.")] = None,
    ends: Annotated[str | None, typer.Option(help="Its last day; else in 90 days.")] = None,
    reason: ReasonOption = "adopted",
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Register an unregistered agent as a draft, with the scope that it tried, and bind its client."""
    desk = open_desk(home, as_)
    act = desk.act(reason)
    found = desk.registry.stranger(stranger)
    if is_document(found.client) and found.user is None:
        raise Conflict(
            f"{found.client} acted for nobody who is registered.",
            remedy="Run `exeat person bind PERSON --issuer … --subject …`; then let it try again.",
        )
    until = parse_until(ends or (date.today() + timedelta(days=ADOPTED_DAYS)).isoformat())
    with desk.registry.together() as registry:
        agent_id = AgentId(into or name or proposed_name(found))
        if into is None:
            with registry.view() as read:
                tools = {str(tool.action): tool for tool in read.tools()}
                scope = proposed_scope(found, [s.id for s in read.servers()], tools)
            responsible = PersonId(owner) if owner else desk.actor
            charter = Charter(
                name=agent_id,
                purpose=f"adopted: {found.client[:200] or 'a client'}",
                owner=responsible,
                deputy=PersonId(deputy) if deputy else None,
                sponsor=responsible,
            )
            registry.register_agent(agent_id, charter, scope, until, act)
        registry.bind(found.issuer, found.client, found.user, agent_id, act)
        registry.forget_stranger(found.id)
    say(f"{found.client or found.id} is agent {agent_id}.")
    if into is None:
        if deputy is None:
            next_step(f"exeat agent change {agent_id} --deputy …")
        accepts = f" --as {owner}" if owner and owner != desk.actor else ""
        next_step(f"exeat agent scope {agent_id}   then: exeat agent accept {agent_id}{accepts}")


def bind(
    agent: str,
    client: Annotated[str, typer.Option(help="The client id, exactly as in its tokens.")],
    issuer: Annotated[str, typer.Option(help="Whose client: `iss` of its tokens.")],
    user: Annotated[str | None, typer.Option(help="Only when it acts for this person.")] = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """A client of a trusted issuer is this agent; what was bound before is bound no more."""
    desk = open_desk(home, as_)
    person = PersonId(user) if user else None
    act = desk.act(reason)
    with desk.registry.together() as registry:
        with registry.view() as read:
            before = read.bindings()
        made = registry.bind(issuer, client, person, AgentId(agent), act)
        with registry.view() as read:
            after = {each.id for each in read.bindings()}
    say(f"{client} is agent {agent}{f' for {user}' if user else ''} ({made.id}).")
    for old in before:
        if old.id not in after:
            say(f"{old.name} is {old.to} no more.")
    hint_untrusted(desk, issuer)


def unbind(
    binding: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """The client is no agent from its next call on."""
    desk = open_desk(home, as_)
    old = desk.registry.unbind(binding, desk.act(reason))
    say(f"{old.name if old.kind is Kind.CLIENT else 'The subject'} is {old.to} no more.")


def bindings(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Which clients are which agents."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        found = [each for each in read.bindings() if each.kind is Kind.CLIENT]
    if as_json:
        show_json([each.as_json() for each in found])
        return
    table(
        ("id", "agent", "client", "for", "issuer"),
        ((b.id, b.to, b.name, b.user or "anybody", b.issuer) for b in found),
    )


def demand(
    agent: str,
    proof: Annotated[str, typer.Argument(help="dpop, mtls, any, or none")],
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Only credentials bound to a key serve the agent, each request proving possession of it."""
    desk = open_desk(home, as_)
    desk.registry.demand_proof(AgentId(agent), "" if proof == "none" else proof, desk.act(reason))
    say(f"Agent {agent} must prove possession: {proof}.")


def add_to(app: typer.Typer) -> None:
    for command in (unregistered, adopt, bind, unbind, bindings, demand):
        app.command()(command)
