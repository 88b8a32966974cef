"""``exeat up``: start the gateway."""

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
        serve(where, settings, lambda gateway, at: _say(gateway.live.view.snapshot, settings, at))
        return
    from exeat.app.crew import serve_crew

    def ready(at: int) -> None:
        _say(_snapshot(where, settings.database_url), settings, at)

    serve_crew(where, settings, ready, verbose=verbose)


def _snapshot(home: Path, url: str | None) -> Any:
    from contextlib import closing

    from exeat.storage.state import look_at_state

    with closing(look_at_state(home, url)) as state:
        return state.snapshot()


def _say(snapshot: Any, settings: Any, port: int) -> None:
    from exeat.app.inventory.address import base_url

    host, tls = settings.host, settings.tls_certificate is not None
    base = base_url(settings, port)
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
