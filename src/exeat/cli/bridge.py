"""``exeat bridge URL``: connects a client that speaks only stdio to the gateway (GW-6)."""

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from exeat.core.errors import ExeatError, Invalid

KEY_VARIABLE: Final = "EXEAT_KEY"
EXIT_USAGE: Final = 2


def bridge(
    url: Annotated[str, typer.Argument(help="The gateway's MCP endpoint.")],
    key_file: Annotated[
        Path | None,
        typer.Option(help=f"File that holds the agent's key; else {KEY_VARIABLE} is read."),
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) to trust beside the system's.")
    ] = None,
    allow_http: Annotated[
        list[str] | None,
        typer.Option(help="A host to which the key may travel unencrypted.  Repeatable."),
    ] = None,
) -> None:
    """Speak MCP on stdin and stdout, and the gateway's HTTP on the other side.

    Only protocol goes to stdout; what people should read goes to stderr.
    """
    try:
        asyncio.run(_run(url, _key(key_file), ca_file, frozenset(allow_http or ())))
    except ExeatError as error:
        _say(f"{error}." + (f" Next: {error.remedy}." if error.remedy else ""))
        raise typer.Exit(EXIT_USAGE) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _run(url: str, key: str, ca_file: Path | None, plain_http: frozenset[str]) -> None:
    from exeat.gateway.bridge import Bridge
    from exeat.gateway.bridge_door import LOOPBACK, Address, Door, check_address
    from exeat.gateway.bridge_stdio import LineWriter, lines_of, take_stdin, take_stdout

    door = Door(check_address(Address(url, key, ca_file), LOOPBACK | plain_http))
    running = asyncio.ensure_future(
        Bridge(door, LineWriter(take_stdout()), _say).run(lines_of(take_stdin()))
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, running.cancel)
        except NotImplementedError:
            break  # Windows: the client ends the process, or Ctrl-C raises KeyboardInterrupt
    try:
        await running
    except asyncio.CancelledError:
        return


def _key(key_file: Path | None) -> str:
    """The bearer key.  Raises Invalid; the message never holds the key."""
    if key_file is None:
        return os.environ.get(KEY_VARIABLE, "").strip()
    try:
        key = key_file.read_text(encoding="utf-8").strip()
        mode = stat.S_IMODE(key_file.stat().st_mode)
    except (OSError, UnicodeDecodeError):
        raise Invalid(
            f"the key file {key_file} cannot be read",
            remedy="check --key-file and the file's permissions",
        ) from None
    if not key:
        raise Invalid(f"the key file {key_file} is empty", remedy="write the agent's key into it")
    if os.name == "posix" and mode & 0o077:
        _say(f"Other users can read {key_file}. Close it: chmod 600 {key_file}.")
    return key


def _say(sentence: str) -> None:
    print(f"exeat bridge: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(bridge)
