"""``exeat up``: start the gateway."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer


def up(
    home: Annotated[Path | None, typer.Option(help="exeat's home (default: ~/.exeat)")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on (0 = any free one)")] = None,
    workers: Annotated[
        int | None, typer.Option(help="gateways on the one port, a process and a log each")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="log what happens")] = False,
) -> None:
    """Start the gateway on 127.0.0.1 and say what to do next.  Ctrl-C stops it."""
    from exeat.app.home import home_path
    from exeat.app.logs import log_to_stderr
    from exeat.app.serve import serve
    from exeat.app.settings import load_settings

    log_to_stderr(verbose=verbose)
    where = home_path(home)
    settings = load_settings(where, host=host, port=port, workers=workers)
    if settings.workers == 1:

        def alone(gateway: Any, at: int) -> None:
            _say(gateway.live.view.snapshot, settings, at)
            _say_control(where, gateway.state, gateway.control.issuer)

        serve(where, settings, alone)
        return
    from exeat.app.crew import serve_crew
    from exeat.storage.state import open_state

    def ready(at: int, control: int) -> None:
        _say(_snapshot(where, settings.database_url), settings, at)
        with closing(open_state(where, settings.database_url)) as state:
            chosen = settings.model_copy(update={"control_port": control})
            _say_control(where, state, chosen.issuer)

    serve_crew(where, settings, ready, verbose=verbose)


def _snapshot(home: Path, url: str | None) -> Any:
    from exeat.storage.state import look_at_state

    with closing(look_at_state(home, url)) as state:
        return state.snapshot()


def _say(snapshot: Any, settings: Any, port: int) -> None:
    host, tls = settings.host, settings.tls_certificate is not None
    scheme = "https" if tls else "http"
    base = f"{scheme}://{host}:{port}/mcp"
    active = sum(1 for agent in snapshot.agents.values() if agent.lifecycle == "active")
    policy = f"version {snapshot.policy.number}" if snapshot.policy else "none: all is denied"
    lines = [
        f"exeat is up: {base}",
        f"  servers: {', '.join(sorted(snapshot.servers)) or 'none'}"
        f"   agents: {len(snapshot.agents)} ({active} active)"
        f"   policy: {policy}",
        f"  one server: {base}/SERVER   all servers of an agent: {base}",
    ]
    if settings.workers > 1:
        lines.append(f"  workers: {', '.join(settings.instances)}, a log each")
    if not tls and host not in ("127.0.0.1", "::1", "localhost"):
        lines.append(
            "  WARNING: keys cross the network in the clear; set tls_certificate and tls_key"
        )
    if not snapshot.servers:
        lines.append("  next: exeat server add NAME -- COMMAND…   (or --url URL)")
    elif not snapshot.policy:
        lines.append("  next: exeat policy apply DIR --reason '…'")
    elif not active:
        lines.append("  next: exeat agent add NAME …, then `exeat agent accept` and `activate`")
    else:
        lines.append("  next: exeat key issue AGENT, and give the key to the agent's MCP client")
    print("\n".join(lines), flush=True)


def _say_control(home: Path, state: Any, issuer: str) -> None:
    """Where people sign in; ID-8: a one-time link as long as nobody has a passkey."""
    from exeat.app.control import first_link

    print(f"  sign-in and consent: {issuer}", flush=True)
    if link := first_link(home, state, issuer):
        print(f"  nobody has a passkey yet; open this within 15 minutes, once: {link}", flush=True)
