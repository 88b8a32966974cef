"""``exeat bridge URL``: connects a client that speaks only stdio to the gateway (GW-6)."""

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from exeat.core.errors import ExeatError, Invalid

if TYPE_CHECKING:
    from exeat.gateway.bridge_door import Access, Address

KEY_VARIABLE: Final = "EXEAT_KEY"
EXIT_USAGE: Final = 2


def bridge(  # noqa: PLR0913 - one per option
    url: Annotated[str, typer.Argument(help="The gateway's MCP endpoint.")],
    key_file: Annotated[
        Path | None,
        typer.Option(
            help=f"File that holds the agent's key; else {KEY_VARIABLE}; else you sign in."
        ),
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) to trust beside the system's.")
    ] = None,
    allow_http: Annotated[
        list[str] | None,
        typer.Option(help="A host to which the key may travel unencrypted.  Repeatable."),
    ] = None,
    internal_host: Annotated[
        list[str] | None,
        typer.Option(help="Another host to sign in at that has a private address.  Repeatable."),
    ] = None,
    client_id: Annotated[
        str,
        typer.Option(
            help="The OAuth client that an admin added; else the bridge registers itself."
        ),
    ] = "",
    name: Annotated[
        str, typer.Option(help="Names this sign-in; another name is another sign-in.")
    ] = "",
    wait_s: Annotated[
        float, typer.Option("--wait-seconds", min=1, help="How long a request waits for you.")
    ] = 300,
    sign_in: Annotated[
        bool, typer.Option("--sign-in", help="Sign in now, and speak no MCP.")
    ] = False,
    sign_out: Annotated[
        bool, typer.Option("--sign-out", help="Forget the sign-in and revoke it.")
    ] = False,
    home: Annotated[
        Path | None, typer.Option(help="Where the sign-in is kept (else EXEAT_HOME, ~/.exeat).")
    ] = None,
) -> None:
    """Speak MCP on stdin and stdout, and the gateway's HTTP on the other side.

    Only protocol goes to stdout; what people should read goes to stderr.
    """
    try:
        from exeat.gateway.bridge_door import LOOPBACK, Address, check_address

        plain = frozenset(allow_http or ())
        key = "" if sign_in or sign_out else _key(key_file)
        address = check_address(Address(url, key, ca_file), LOOPBACK | plain)
        if key:
            asyncio.run(_run(address, None))
            return
        from exeat.app import native
        from exeat.app.home import home_path

        internal = frozenset(internal_host or ())
        place = home_path(home)
        what = native.SignIn(url, place, ca_file, plain, internal, client_id, name, wait_s)
        if sign_out:
            asyncio.run(native.sign_out(what, _say))
        elif sign_in:
            asyncio.run(native.sign_in(what, _say))
        else:
            asyncio.run(_run(address, native.access_for(what, _say)))
    except ExeatError as error:
        _say(f"{error}." + (f" Next: {error.remedy}." if error.remedy else ""))
        raise typer.Exit(EXIT_USAGE) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _run(address: "Address", access: "Access | None") -> None:
    from exeat.gateway.bridge import Bridge
    from exeat.gateway.bridge_door import Door
    from exeat.gateway.bridge_stdio import LineWriter, lines_of, take_stdin, take_stdout

    door = Door(address, access)
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
    """The bearer key, or empty.  Raises Invalid; the message never holds the key."""
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
