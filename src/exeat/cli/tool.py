"""``exeat tool``: review, pin, profile."""

from dataclasses import replace
from typing import Annotated

import typer

from exeat.cli.desk import NO_REASON as NONE
from exeat.cli.desk import (
    AsOption,
    HomeOption,
    JsonOption,
    ReasonOption,
    next_step,
    open_desk,
    printable,
    say,
    show_json,
    table,
)
from exeat.core.errors import Invalid, NotFound
from exeat.core.facts import Effect, PinState, Sink
from exeat.core.ids import ActionId
from exeat.registry.model.tool import Profile
from exeat.registry.rules.observation import warnings
from exeat.registry.rules.pins import drift
from exeat.registry.rules.profiles import propose, read_monotone

app = typer.Typer(
    help="Tools: their definitions under review, and what they do.", no_args_is_help=True
)
Server = Annotated[str | None, typer.Argument(help="Only this server.")]


@app.command("list")
def list_tools(server: Server = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Tools with pin and profile; a profile in brackets is only a proposal."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        tools = [tool for tool in read.tools() if server in (None, tool.server)]
    if as_json:
        show_json([tool.as_json() for tool in tools])
        return
    rows = []
    for tool in tools:
        proposed = propose(tool.seen.body).profile if tool.seen is not None else Profile()
        profile = tool.profile or proposed
        shown = f"{profile.effect.value}, {profile.sink.value}"
        rows.append((tool.action, tool.state.value, shown if tool.profile else f"[{shown}]"))
    table(("tool", "definition", "effect, sink"), rows)


@app.command()
def show(action: str, home: HomeOption = None) -> None:
    """One tool (SERVER/TOOL) with its definition."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        tool = read.tool(ActionId(action))
    body = dict(tool.seen.body) if tool.seen is not None else {}
    show_json({"tool": tool.as_json(), "definition": body})


@app.command()
def diff(action: str, home: HomeOption = None) -> None:
    """What changed between the pinned definition and the one that the server shows."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        tool, known = read.tool(ActionId(action)), read.tools()
    if tool.state is PinState.PINNED:
        say("The server shows the pinned definition.")
        return
    if tool.pinned is not None and tool.pending is not None:
        for line in drift(tool.pinned.body, tool.pending.body):
            say(printable(line))
    else:
        say("It was never pinned.")
    for warning in warnings(tool, known):
        say(f"{warning.kind}: {warning.says}")


@app.command()
def pin(
    what: Annotated[str, typer.Argument(help="SERVER/TOOL, or SERVER with --all.")],
    all_: Annotated[
        bool, typer.Option("--all", help="Every tool of the server that waits.")
    ] = False,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Confirm the definition that the server shows; from now on any other one stops the tool."""
    desk = open_desk(home, as_)
    with desk.state.registry.read() as read:
        known = read.tools()
    chosen = [t for t in known if (t.server == what if all_ else t.action == what)]
    if not chosen:
        raise NotFound(
            f"There is no tool {what}.", remedy="Run `exeat server observe SERVER` first."
        )
    waiting = [tool for tool in chosen if tool.pending is not None]
    with desk.registry.together() as registry:
        for tool in waiting:
            for warning in warnings(tool, known):
                say(printable(f"  {tool.action}: {warning.kind}: {warning.says}"))
            if tool.pending is not None:
                registry.pin(tool.action, tool.pending.digest, desk.act(reason))
    say(f"{len(waiting)} pinned, {len(chosen) - len(waiting)} were already.")
    next_step(
        f"exeat tool profile {chosen[0].action} --effect … --sink …   (until then: the cautious profile)"
    )


@app.command()
def profile(  # noqa: PLR0913
    action: str,
    effect: Annotated[Effect | None, typer.Option(help="What calling it does.")] = None,
    sink: Annotated[Sink | None, typer.Option(help="Who could see what is passed.")] = None,
    reversible: Annotated[bool, typer.Option("--reversible", help="It can be undone.")] = False,
    as_proposed: Annotated[
        bool, typer.Option("--as-proposed", help="Confirm what `tool list` shows in brackets.")
    ] = False,
    narrows: Annotated[
        list[str] | None,
        typer.Option(
            help="An argument of which less does less: limit=less, path=below, hosts=subset, dry_run=flag."
        ),
    ] = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Confirm what a tool does, for exactly its pinned definition."""
    desk = open_desk(home, as_)
    with desk.state.registry.read() as read:
        tool = read.tool(ActionId(action))
    if tool.pinned is None:
        raise Invalid(f"{action} is not pinned.", remedy=f"exeat tool pin {action}")
    proposed = propose(tool.pinned.body).profile
    if not as_proposed and (effect is None or sink is None):
        raise Invalid(
            "Name --effect and --sink.", remedy="Or add --as-proposed to confirm the proposal."
        )
    chosen = (
        proposed
        if as_proposed
        else Profile(effect or proposed.effect, sink or proposed.sink, reversible)
    )
    pairs = dict(each.partition("=")[::2] for each in narrows or ())
    chosen = replace(chosen, monotone=read_monotone(pairs))
    desk.registry.confirm_profile(tool.action, chosen, tool.pinned.digest, desk.act(reason))
    words = [chosen.effect.value, chosen.sink.value, *(["reversible"] if chosen.reversible else [])]
    words += [f"{name} may be narrowed ({order.value})" for name, order in chosen.monotone]
    say(f"{action}: {', '.join(words)}")


@app.command()
def forget(
    action: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Forget a tool; unknown tools are denied."""
    desk = open_desk(home, as_)
    desk.registry.forget_tool(ActionId(action), desk.act(reason))
    say(f"{action} is forgotten.")
