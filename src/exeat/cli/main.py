"""The ``exeat`` command: one file per noun, loaded only when it is used."""

import difflib
import importlib
import sys
from typing import Any, Final

import typer

from exeat import __version__
from exeat.cli.ending import AT_END
from exeat.core.errors import ExeatError

NOUNS: Final = {
    "init": ("exeat.cli.init", "init", "Create a home and its first person."),
    "up": ("exeat.cli.up", "up", "Start the gateway."),
    "doctor": ("exeat.cli.doctor", "doctor", "What is wrong, and what to do about it."),
    "backup": ("exeat.cli.backup", "backup", "Copy the home into one file, while it runs."),
    "restore": ("exeat.cli.backup", "restore", "Check a backup and make a new home of it."),
    "migrate": ("exeat.cli.migrate", "migrate", "Bring the state to this version."),
    "person": ("exeat.cli.person", "app", "People: owners, deputies, operators."),
    "agent": ("exeat.cli.agent", "app", "Agents, their scope and their life."),
    "server": ("exeat.cli.server", "app", "MCP servers behind the gateway."),
    "tool": ("exeat.cli.tool", "app", "Tools: review, pin, profile."),
    "key": ("exeat.cli.key", "app", "Bearer keys of agents."),
    "client": ("exeat.cli.client", "app", "OAuth clients: add, let register, revoke."),
    "secret": ("exeat.cli.secret", "app", "Secrets of servers, sealed in the vault."),
    "permit": ("exeat.cli.permit", "app", "Keys for servers that demand signed permits."),
    "policy": ("exeat.cli.policy", "app", "Policies: lint, test, apply, explain."),
    "approvals": ("exeat.cli.approvals", "app", "Held calls: approve or deny them."),
    "grants": ("exeat.cli.grants", "app", "Bounded grants: list, show, revoke."),
    "budgets": ("exeat.cli.budgets", "app", "Budgets: what is spent, by whom, until when."),
    "kill": ("exeat.cli.kill", "kill", "Stop an agent, person, server, tool, run or all at once."),
    "revive": ("exeat.cli.kill", "revive", "Let go on what was killed."),
    "answer": ("exeat.cli.answer", "answer", "The three answers about an agent."),
    "evidence": ("exeat.cli.evidence", "app", "The record: audit, verify, export."),
    "plan": ("exeat.cli.plan", "plan", "Show what files would change."),
    "apply": ("exeat.cli.plan", "apply", "Make the registry as the files say."),
    "export": ("exeat.cli.plan", "export", "Write the registry as files."),
    "discover": ("exeat.cli.discover", "discover", "MCP servers in clients' files, and secrets."),
    "adopt": ("exeat.cli.adopt", "adopt", "Move clients' servers behind the gateway, and back."),
    "connect": ("exeat.cli.connect", "connect", "Write the gateway into a client's file."),
    "bridge": ("exeat.cli.bridge", "bridge", "Connect a stdio client to a gateway."),
}


def _overview() -> str:
    width = max(len(noun) for noun in NOUNS)
    lines = [f"  exeat {noun.ljust(width)}  {what}" for noun, (_, _, what) in NOUNS.items()]
    return "\n".join(
        [
            "exeat: every action of an AI agent, decided before it happens and provable afterwards.",
            "",
            *lines,
            "",
            "`exeat NOUN --help` tells more.  Start with `exeat init`.",
        ]
    )


def _run(noun: str, arguments: list[str]) -> None:
    module, name, _ = NOUNS[noun]
    found: Any = getattr(importlib.import_module(module), name)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command()(found)
        found = single
    found.pretty_exceptions_enable = False
    found(args=arguments, prog_name=f"exeat {noun}")


def quiet_logs() -> None:
    """Warnings only, to stderr: stdout is for what was asked."""
    from exeat.app.logs import log_to_stderr

    log_to_stderr(verbose=False)


def main() -> None:
    """The outermost edge: an error is a sentence and a next step, never a stack trace."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        typer.echo(_overview())
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        typer.echo(f"exeat {__version__}")
        return
    noun, *rest = arguments
    if noun not in NOUNS:
        near = difflib.get_close_matches(noun, NOUNS, n=1)
        hint = f"did you mean `exeat {near[0]}`?" if near else "`exeat --help` lists what there is"
        typer.echo(f"exeat: there is no {noun!r}; {hint}", err=True)
        sys.exit(2)
    quiet_logs()
    from exeat.evidence.store import StoreFailed

    try:
        with AT_END:
            _run(noun, rest)
    except ExeatError as error:
        typer.echo(f"exeat: {error}", err=True)
        if error.remedy:
            typer.echo(f"       {error.remedy}", err=True)
        sys.exit(1)
    except StoreFailed as error:
        typer.echo(f"exeat: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)


if __name__ == "__main__":
    main()
