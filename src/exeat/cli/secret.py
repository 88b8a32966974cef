"""``exeat secret``: what the gateway shows to servers, sealed in the vault.  No value is ever shown."""

import getpass
import sys
from typing import TYPE_CHECKING, Annotated

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
    say,
    show_json,
    table,
)
from exeat.core.errors import Invalid
from exeat.core.secret import TENANT, SecretId
from exeat.identity.vault.model import SECRET_MAX_BYTES
from exeat.registry.model.names import show_time

if TYPE_CHECKING:  # loaded only when the vault is opened
    from exeat.app.vault import HomeVault

app = typer.Typer(
    help="Secrets of servers, sealed; their values are never shown.",
    no_args_is_help=True,
    add_completion=False,
)
ServerOption = Annotated[str, typer.Option("--server", help="Only for this server (else any).")]
AgentOption = Annotated[str, typer.Option("--agent", help="Only for this agent (else any).")]


@app.command("set")
def set_(
    name: str,
    server: ServerOption = "",
    agent: AgentOption = "",
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Seal a value: typed without echo, or from standard input (one line end at its end is cut)."""
    from exeat.governance.secrets import set_secret, used_by

    desk = open_desk(home, as_)
    act = desk.act(reason)
    kept = set_secret(_vault(desk), SecretId(TENANT, agent, server, name), _value(name), act)
    say(f"Secret {name} is set (version {kept.version}, under key {kept.sealed.key}).")
    with desk.state.registry.read() as read:
        users = used_by(kept.id, read.servers())
    if users:
        say(f"From now on given to: {', '.join(each.id for each in users)}.")
    else:
        next_step(
            f"exeat server change SERVER --header-secret 'Authorization=Bearer {{{name}}}'"
            f"   (or --env-secret VARIABLE={name})"
        )


@app.command("list")
def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Names, never values: when set, by whom, under which key, and which servers use them."""
    from exeat.governance.secrets import used_by

    desk = open_desk(home)
    with desk.state.registry.read() as registry, desk.state.vault.read() as read:
        servers, secrets, current = registry.servers(), read.secrets(), read.current_key()
    shown = [
        {
            **each.as_json(),
            "set_at": show_time(each.at),
            "set_by": each.by,
            "used_by": [server.id for server in used_by(each.id, servers)],
        }
        for each in secrets
    ]
    if as_json:
        show_json(shown)
        return
    table(
        ("secret", "server", "agent", "version", "set", "by", "key", "used by"),
        (
            (
                each["name"],
                each["server"] or "any",
                each["agent"] or "any",
                each["version"],
                each["set_at"],
                each["set_by"],
                each["key"] + ("" if each["key"] == current else " (old)"),
                ", ".join(each["used_by"]) or ("exeat" if ":" in each["name"] else "-"),
            )
            for each in shown
        ),
    )


@app.command()
def rotate(reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None) -> None:
    """A new key for the vault; secrets stay as they are.  May be stopped and run again."""
    from exeat.governance.secrets import rotate_key

    desk = open_desk(home, as_)
    done = rotate_key(_vault(desk), desk.act(reason))
    old = f" instead of {', '.join(done.before)}" if done.before else ""
    said = "1 secret is" if done.rewrapped == 1 else f"{done.rewrapped} secrets are"
    say(f"{said} under key {done.after}{old}.")


@app.command()
def remove(
    name: str,
    server: ServerOption = "",
    agent: AgentOption = "",
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Forget a value."""
    from exeat.governance.secrets import remove_secret

    desk = open_desk(home, as_)
    remove_secret(_vault(desk), SecretId(TENANT, agent, server, name), desk.act(reason))
    say(f"Secret {name} is removed.")


def _vault(desk: Desk) -> "HomeVault":
    from exeat.app.settings import load_settings
    from exeat.app.vault import open_vault

    return open_vault(desk.home, load_settings(desk.home), desk.state)


def _value(name: str) -> bytes:
    """Never from the command line, which every user of the machine can read."""
    if sys.stdin.isatty():
        first = getpass.getpass(f"Value of {name}: ")
        if getpass.getpass("Again: ") != first:
            raise Invalid("The two values differ.", remedy="Nothing was set; try again.")
        return first.encode("utf-8", "surrogateescape")
    value = sys.stdin.buffer.read(SECRET_MAX_BYTES + 3)
    for end in (b"\r\n", b"\n"):
        if value.endswith(end):
            return value[: -len(end)]
    return value
