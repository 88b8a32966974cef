"""``exeat server``: the MCP servers behind the gateway."""

import asyncio
from typing import Annotated, Any

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
from exeat.cli.server_register import add, change
from exeat.core.errors import Invalid
from exeat.core.ids import ServerId

ForOption = Annotated[
    str,
    typer.Option("--for", help="AGENT/PERSON, where the server gives access to people."),
]
app = typer.Typer(
    help="MCP servers behind the gateway, HTTP and stdio.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(add)
app.command()(change)


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
def observe(
    name: str,
    for_: ForOption = "",
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Ask the server for its tools; keep what is new or changed for review."""
    desk = open_desk(home, as_)
    observed(desk, ServerId(name), for_)
    next_step(f"exeat tool list {name}, then `exeat tool pin {name} --all` (or one by one)")


def observed(desk: Desk, server: ServerId, principal: str = "") -> None:
    from exeat.app.observe import fetch_definitions
    from exeat.app.serve import state_key
    from exeat.app.settings import load_settings
    from exeat.app.upstream_access import make_credentials
    from exeat.app.vault import Opener, open_vault

    with desk.state.registry.read() as read:
        spec = read.server(server).spec
    if spec.auth.per_user and "/" not in principal:
        raise Invalid(
            f"Server {server} shows its tools to people who gave consent.",
            remedy=f"exeat server observe {server} --for AGENT/PERSON",
        )
    settings = load_settings(desk.home)
    vault = open_vault(desk.home, settings, desk.state)

    async def look() -> list[dict[str, Any]]:
        secrets = Opener(vault, asyncio.get_running_loop())
        own = make_credentials(
            settings, vault, secrets, state_key(desk.home), lambda kind, server, details: None
        )
        try:
            return await fetch_definitions(spec, desk.home, secrets.open, own, principal or "exeat")
        finally:
            secrets.close()

    definitions = asyncio.run(look())
    findings = desk.registry.observe_definitions(
        server, definitions, desk.act("exeat server observe")
    )
    say(f"{server} shows {len(definitions)} tool{'' if len(definitions) == 1 else 's'}.")
    for definition in definitions:
        about = str(definition.get("description") or "no description").strip().splitlines()[0]
        say(printable(f"  {definition.get('name')}: {about[:100]}"))
    for finding in findings:
        say(printable(f"  {finding.kind}: {finding.tool}: {finding.says}"))


@app.command()
def forget(
    name: str,
    for_: ForOption = "",
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Withdraw the gateway's access to a server, all of it or what --for one person was consented to."""
    from exeat.app.serve import state_key
    from exeat.app.settings import load_settings
    from exeat.app.upstream_access import make_credentials
    from exeat.app.vault import Opener, open_vault

    desk = open_desk(home, as_)
    with desk.state.registry.read() as read:
        spec = read.server(ServerId(name)).spec
    if spec.auth.per_user and "/" not in for_:
        raise Invalid(
            f"Access to server {name} is each person's own.", remedy="Give --for AGENT/PERSON."
        )
    settings = load_settings(desk.home)
    vault = open_vault(desk.home, settings, desk.state)

    async def withdraw() -> bool:
        secrets = Opener(vault, asyncio.get_running_loop())
        try:
            own = make_credentials(
                settings, vault, secrets, state_key(desk.home), lambda kind, server, details: None
            )
            return await own.forget(spec, for_ or "exeat")
        finally:
            secrets.close()

    found = asyncio.run(withdraw())
    say(f"Access to {name} is withdrawn." if found else f"There was no access to {name}.")
    say("Gateways that run stop using it within 30 seconds; withdraw it at the server too.")


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
