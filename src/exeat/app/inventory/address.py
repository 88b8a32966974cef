"""Where the gateway of a home is reached, as a client on this machine writes it."""

import shutil
import sys
from pathlib import Path
from typing import Final

from exeat.app.settings import Settings
from exeat.core.errors import Invalid

EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 - compared


def base_url(settings: Settings) -> str:
    """``http://127.0.0.1:8717/mcp``: under which clients reach what `exeat up` serves, and for which
    their tokens are (RFC 8707).  Raises Invalid if the port is any."""
    if settings.public_url:
        return f"{settings.public_url}/mcp"
    if not settings.port:
        raise Invalid(
            "The gateway's port is chosen at each start.",
            remedy="Give --gateway URL, or set `port`.",
        )
    return _own_url(settings)


def addresses(settings: Settings) -> tuple[str, ...]:
    """All under which the gateway may be known to clients; none if its port is any."""
    own = (_own_url(settings),) if settings.port else ()
    return (f"{settings.public_url}/mcp", *own) if settings.public_url else own


def _own_url(settings: Settings) -> str:
    scheme = "http" if settings.tls_certificate is None else "https"
    host = EVERYWHERE.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{scheme}://{host}:{settings.port}/mcp"


def server_url(base: str, server: str) -> str:
    """The endpoint of one server, or of all ("")."""
    return f"{base.rstrip('/')}/{server}" if server else base.rstrip("/")


def bridge_command(url: str, key_file: Path | None = None) -> tuple[str, ...]:
    """The command by which a client that knows only stdio reaches the gateway: absolute, since such
    clients start programs with a search path of their own."""
    beside = Path(sys.argv[0]).absolute()
    installed = Path(sys.executable).with_name("exeat")
    found = next(
        (str(each) for each in (beside, installed) if each.name == "exeat" and each.is_file()),
        shutil.which("exeat"),
    )
    start = (found,) if found else (sys.executable, "-m", "exeat.cli.main")
    key = ("--key-file", str(key_file.expanduser().absolute())) if key_file is not None else ()
    return (*start, "bridge", url, *key)
