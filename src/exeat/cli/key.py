"""``exeat key``: bearer keys of agents."""

from typing import Annotated

import typer

from exeat.cli.desk import NO_REASON as NONE
from exeat.cli.desk import (
    AsOption,
    HomeOption,
    JsonOption,
    ReasonOption,
    open_desk,
    say,
    show_json,
    table,
)
from exeat.core.ids import AgentId, PersonId
from exeat.registry.model.names import show_time

app = typer.Typer(
    help="Bearer keys of agents: shown once, kept as a hash, never without an end.",
    no_args_is_help=True,
)
DAY_S = 86_400


@app.command()
def issue(
    agent: str,
    user: Annotated[str | None, typer.Option(help="The person for whom the agent acts.")] = None,
    days: Annotated[int, typer.Option(help="Life in days, at most 90.")] = 30,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the key alone.")] = False,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """A new key.  It is shown once."""
    desk = open_desk(home, as_)
    key, secret = desk.registry.issue_key(
        AgentId(agent), PersonId(user) if user else None, days * DAY_S, desk.act(reason)
    )
    if quiet:
        say(secret)
        return
    say(
        f"{secret}\n\nKey {key.id} of {agent}, until {show_time(key.expires_at)}.  It is not shown again."
    )


@app.command("list")
def list_keys(agent: str, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Keys of an agent, without their secrets."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        keys = read.keys_of(AgentId(agent))
    rows = [
        (k.id, k.user or "-", show_time(k.expires_at), "revoked" if k.revoked else "live")
        for k in keys
    ]
    if as_json:
        show_json([dict(zip(("id", "user", "until", "state"), row, strict=True)) for row in rows])
    else:
        table(("key", "user", "until", "state"), rows)


@app.command()
def revoke(
    key: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """End a key now."""
    desk = open_desk(home, as_)
    desk.registry.revoke_key(key, desk.act(reason))
    say(f"Key {key} is revoked.")
