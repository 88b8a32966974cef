"""``exeat agent``: register, scope, accept, activate, suspend, retire."""

import time
from dataclasses import replace
from typing import Annotated, Any

import typer

from exeat.cli.agent_clients import add_to
from exeat.cli.desk import NO_REASON as NONE
from exeat.cli.desk import (
    AsOption,
    Desk,
    HomeOption,
    JsonOption,
    ReasonOption,
    next_step,
    open_desk,
    say,
    show_json,
    table,
)
from exeat.cli.spans import span_s
from exeat.core.facts import Effect, Lifecycle
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.registry.model.agent import Agent, Charter, Scope
from exeat.registry.model.names import parse_until, show_time, show_until

app = typer.Typer(
    help="Agents: who they are, who answers for them, what bounds them.",
    no_args_is_help=True,
    add_completion=False,
)
Owner = Annotated[str | None, typer.Option("--owner", help="Who answers for it.")]
Deputy = Annotated[str | None, typer.Option("--deputy", help="Who answers if the owner is gone.")]
Sponsor = Annotated[str | None, typer.Option("--sponsor", help="Who pays for it.")]
Servers = Annotated[
    list[str] | None, typer.Option("--server", help="A server of its scope; repeatable.")
]
Effects = Annotated[
    list[Effect] | None, typer.Option("--effect", help="An effect of its scope; repeatable.")
]
Actions = Annotated[
    list[str] | None, typer.Option("--action", help="Only these server/tool actions; repeatable.")
]
Ends = Annotated[str | None, typer.Option("--ends", help="Its last day, e.g. 2027-06-30.")]
Groups = Annotated[
    list[str] | None, typer.Option("--group", help="A group that policy names; repeatable.")
]
Purpose = Annotated[str | None, typer.Option("--purpose", help="What it is for, in words.")]
Environment = Annotated[
    str | None, typer.Option("--environment", help="Where it runs, in words, e.g. production.")
]
Model = Annotated[str | None, typer.Option("--model", help="The model behind it, as declared.")]


def _scope(old: Scope, servers: Any, effects: Any, actions: Any) -> Scope:
    return Scope(
        old.servers if servers is None else frozenset(ServerId(each) for each in servers),
        old.effects if effects is None else frozenset(effects),
        old.actions if actions is None else frozenset(ActionId(each) for each in actions),
    )


def _person(old: PersonId | None, given: str | None) -> PersonId | None:
    return old if given is None else PersonId(given)


def _get(desk: Desk, name: str) -> Agent:
    with desk.state.registry.read() as read:
        return read.agent(AgentId(name))


@app.command()
def add(  # noqa: PLR0913 - one per option
    name: str,
    owner: Owner = None,
    deputy: Deputy = None,
    sponsor: Sponsor = None,
    server: Servers = None,
    effect: Effects = None,
    action: Actions = None,
    ends: Ends = None,
    group: Groups = None,
    purpose: Purpose = None,
    environment: Environment = None,
    model: Model = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Register an agent as a draft; drafts are denied everything."""
    desk = open_desk(home, as_)
    charter = Charter(
        name=name,
        purpose=purpose or "",
        owner=_person(None, owner),
        deputy=_person(None, deputy),
        sponsor=_person(None, sponsor or owner),
        groups=frozenset(group or ()),
        environment=environment or "",
        model=model or "",
    )
    scope = _scope(Scope(), server, effect, action)
    until = None if ends is None else parse_until(ends)
    agent = desk.registry.register_agent(name, charter, scope, until, desk.act(reason))
    say(f"Agent {agent.id} is a draft.")
    owner_is = f" --as {owner}" if owner and owner != desk.actor else ""
    next_step(f"exeat agent accept {agent.id}{owner_is}")


@app.command()
def change(  # noqa: PLR0913 - one per option
    name: str,
    owner: Owner = None,
    deputy: Deputy = None,
    sponsor: Sponsor = None,
    server: Servers = None,
    effect: Effects = None,
    action: Actions = None,
    ends: Ends = None,
    group: Groups = None,
    purpose: Purpose = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Change what is named; another scope or end date must be accepted again.

    Repeatable options name all that is to be there: what they do not name is taken away."""
    desk = open_desk(home, as_)
    old = _get(desk, name)
    charter = replace(
        old.charter,
        owner=_person(old.charter.owner, owner),
        deputy=_person(old.charter.deputy, deputy),
        sponsor=_person(old.charter.sponsor, sponsor),
        groups=old.charter.groups if group is None else frozenset(group),
        purpose=old.charter.purpose if purpose is None else purpose,
    )
    scope = _scope(old.scope, server, effect, action)
    until = old.ends_at if ends is None else parse_until(ends)
    agent = desk.registry.change_agent(old.id, charter, scope, until, desk.act(reason))
    say(f"Agent {agent.id} is changed.")
    if not agent.accepted:
        next_step(f"exeat agent accept {agent.id}   (its scope is not accepted, so it is denied)")


@app.command("list")
def list_agents(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """All agents."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        agents = read.agents()
        live = {person.id for person in read.people() if person.live}

    def shown(person: PersonId | None) -> str:
        return "-" if person is None else person if person in live else f"{person} (gone)"

    if as_json:
        show_json([agent.as_json() for agent in agents])
        return
    table(
        ("agent", "state", "owner", "deputy", "servers", "accepted", "until"),
        (
            (
                a.id,
                a.lifecycle.value,
                shown(a.charter.owner),
                shown(a.charter.deputy),
                ", ".join(sorted(a.scope.servers)) or "-",
                "yes" if a.accepted else "no",
                show_until(a.ends_at) if a.ends_at else "-",
            )
            for a in agents
        ),
    )


@app.command()
def show(name: str, home: HomeOption = None) -> None:
    """Everything that is known of one agent."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        agent, until = read.agent(AgentId(name)), read.observed_until(AgentId(name))
    observed = {"observed_until": show_time(until)} if until > time.time_ns() else {}
    show_json({**agent.as_json(), **observed})


@app.command()
def scope(name: str, home: HomeOption = None) -> None:
    """What the owner is asked to accept, and its digest."""
    agent = _get(open_desk(home), name)
    show_json(
        {
            **agent.scope.as_json(agent.ends_at),
            "digest": agent.scope_digest,
            "accepted": agent.accepted,
        }
    )


@app.command()
def accept(
    name: str,
    digest: Annotated[str | None, typer.Option(help="The digest that you were shown.")] = None,
    reason: ReasonOption = "accepted as shown",
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Accept the scope as it now stands, as owner or deputy; it is shown first."""
    desk = open_desk(home, as_)
    agent = _get(desk, name)
    shown = agent.scope.as_json(agent.ends_at)
    say(
        f"Scope of {agent.id}: servers {', '.join(shown['servers']) or '-'}; effects "
        f"{', '.join(shown['effects']) or '-'}; "
        f"actions {', '.join(shown['actions']) or 'as policy permits'}; "
        f"until {shown['until'] or '-'}"
    )
    desk.registry.accept_scope(agent.id, digest or agent.scope_digest, desk.act(reason))
    say(f"{desk.actor} answers for it (scope {agent.scope_digest[:12]}).")
    if agent.lifecycle is Lifecycle.DRAFT:
        next_step(f"exeat agent activate {agent.id} --reason …")


def _moved(agent: Agent) -> None:
    say(f"Agent {agent.id} is {agent.lifecycle.value}.")


@app.command()
def activate(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Draft to active: live owner and deputy, an end date, and the scope accepted."""
    desk = open_desk(home, as_)
    _moved(desk.registry.activate(AgentId(name), desk.act(reason)))
    next_step(f"exeat key issue {name}")


@app.command()
def suspend(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Stop the agent at its next call."""
    desk = open_desk(home, as_)
    _moved(desk.registry.suspend(AgentId(name), desk.act(reason)))
    next_step(f"exeat agent resume {name}   (an admin, when it may go on)")


@app.command()
def resume(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Suspended to active, under the conditions of activation."""
    desk = open_desk(home, as_)
    _moved(desk.registry.resume(AgentId(name), desk.act(reason)))


@app.command()
def retire(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """For good: its keys are revoked."""
    desk = open_desk(home, as_)
    _moved(desk.registry.retire(AgentId(name), desk.act(reason)))


@app.command()
def observe(
    name: str,
    reason: ReasonOption,
    for_: Annotated[str, typer.Option("--for", help="How long: 12h, 3d; 7 days at most.")] = "1d",
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Only record what policy would refuse this agent; never deletes, sends, payments, executions."""
    from exeat.cli.policy_apply import approvals

    desk = open_desk(home, as_)
    proposed = desk.registry.observe(AgentId(name), span_s(for_), desk.act(reason), approvals(desk))
    if proposed is not None:
        say(f"Proposal {proposed.number} ({proposed.digest[:12]}) waits for another admin.")
        next_step(f"exeat policy approve {proposed.number} --reason … --as …")
        return
    say(f"Agent {name} is observed for {for_}: what policy would refuse it is only recorded.")
    next_step(f"exeat policy shadow-report --agent {name}; exeat agent enforce {name} --reason …")


@app.command()
def enforce(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """End observe mode: policy binds the agent from its next call on."""
    desk = open_desk(home, as_)
    desk.registry.enforce_agent(AgentId(name), desk.act(reason))
    say(f"Policy binds agent {name}.")


add_to(app)
