"""``exeat server``: the MCP servers behind the gateway."""

import asyncio
from typing import Annotated

import typer

from exeat.cli.desk import NO_REASON as NONE
from exeat.cli.desk import (
    AsOption,
    Desk,
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
from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import PersonId, ServerId

app = typer.Typer(
    help="MCP servers behind the gateway, HTTP and stdio.",
    no_args_is_help=True,
    add_completion=False,
)


def _pairs(given: list[str] | None, what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Invalid(f"{each!r} is not {what}.", remedy="Write NAME=VALUE.")
        found[name] = value
    return found


@app.command()
def add(  # noqa: PLR0913 - one per option
    name: str,
    command: Annotated[
        list[str] | None, typer.Argument(help="After `--`: the command of a stdio server.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The address of an HTTP server.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it (you).")] = None,
    trust: Annotated[int, typer.Option(help="0 (unknown) to 100; policy may read it.")] = 0,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for a stdio server; no secrets.")
    ] = None,
    env_from: Annotated[
        list[str] | None, typer.Option(help="Hand down this variable of the gateway.")
    ] = None,
    header_from: Annotated[
        list[str] | None,
        typer.Option(help="HEADER=VARIABLE: a header's value from the gateway's environment."),
    ] = None,
    cwd: Annotated[str, typer.Option(help="Working directory of a stdio server.")] = "",
    run_as: Annotated[str, typer.Option(help="User of a stdio server (gateway as root).")] = "",
    shared: Annotated[
        bool, typer.Option("--shared", help="It keeps no state: one process serves all.")
    ] = False,
    allow_method: Annotated[
        list[str] | None,
        typer.Option(help="A method beyond MCP's own that may pass if policy permits."),
    ] = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Register a server: `exeat server add time -- mcp-server-time`, or with --url."""
    desk = open_desk(home, as_)
    if bool(command) == bool(url):
        raise Invalid(
            "A server has either a command or a --url.", remedy="exeat server add NAME -- COMMAND…"
        )
    spec = ServerSpec(
        ServerId(name),
        Transport.HTTP if url else Transport.STDIO,
        url=url or "",
        headers_from=_pairs(header_from, "a header and a variable"),
        command=tuple(command or ()),
        env=_pairs(env, "a name and a value"),
        env_from=tuple(env_from or ()),
        cwd=cwd,
        run_as=run_as,
        shared=shared,
    )
    server = desk.registry.add_server(
        spec, PersonId(owner or desk.actor), trust, allow_method or [], desk.act(reason)
    )
    say(f"Server {server.id} is registered; none of its tools is pinned yet.")
    next_step(f"exeat server observe {server.id}")


@app.command("list")
def list_servers(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """All servers."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        servers, tools = read.servers(), read.tools()
    if as_json:
        show_json([server.as_json() for server in servers])
        return
    table(
        ("server", "transport", "where", "owner", "active", "pinned"),
        (
            (
                s.id,
                s.spec.transport.value,
                s.spec.url or " ".join(s.spec.command),
                s.owner,
                "yes" if s.active else "no",
                f"{sum(t.server == s.id and t.state == 'pinned' for t in tools)} of "
                f"{sum(t.server == s.id for t in tools)}",
            )
            for s in servers
        ),
    )


@app.command()
def show(name: str, home: HomeOption = None) -> None:
    """Everything that is known of one server."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        show_json(read.server(ServerId(name)).as_json())


@app.command()
def observe(name: str, home: HomeOption = None, as_: AsOption = None) -> None:
    """Ask the server for its tools; keep what is new or changed for review."""
    desk = open_desk(home, as_)
    observed(desk, ServerId(name))
    next_step(f"exeat tool list {name}, then `exeat tool pin {name} --all` (or one by one)")


def observed(desk: Desk, server: ServerId) -> None:
    from exeat.app.observe import fetch_definitions

    with desk.state.registry.read() as read:
        spec = read.server(server).spec
    definitions = asyncio.run(fetch_definitions(spec, desk.home))
    findings = desk.registry.observe_definitions(
        server, definitions, desk.act("exeat server observe")
    )
    say(f"{server} shows {len(definitions)} tools.")
    for definition in definitions:
        about = str(definition.get("description") or "no description").strip().splitlines()[0]
        say(printable(f"  {definition.get('name')}: {about[:100]}"))
    for finding in findings:
        say(printable(f"  {finding.kind}: {finding.tool}: {finding.says}"))


@app.command()
def suspend(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Deny every action on it from the next call on."""
    desk = open_desk(home, as_)
    desk.registry.suspend_server(ServerId(name), desk.act(reason))
    say(f"Server {name} is suspended.")


@app.command()
def resume(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """End a suspension."""
    desk = open_desk(home, as_)
    desk.registry.resume_server(ServerId(name), desk.act(reason))
    say(f"Server {name} is active.")


@app.command()
def remove(
    name: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Forget the server and its tools."""
    desk = open_desk(home, as_)
    desk.registry.remove_server(ServerId(name), desk.act(reason))
    say(f"Server {name} is removed.")
