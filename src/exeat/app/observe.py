"""What a server shows, fetched once on behalf of a person at the command line."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exeat.app.home import home_path
from exeat.core.errors import UpstreamFailed
from exeat.core.facts import ServerSpec
from exeat.core.ids import ServerId
from exeat.gateway.guarded import NoCredentials
from exeat.gateway.isolation import choose_isolation, landlock_abi
from exeat.gateway.ports import CredentialSource
from exeat.gateway.server_secrets import OpenSecret, no_vault
from exeat.gateway.upstreams import Surroundings, UpstreamServer


async def fetch_definitions(
    spec: ServerSpec,
    home: Path | None = None,
    open_secret: OpenSecret = no_vault,
    credentials: CredentialSource | None = None,
    principal: str = "exeat",
) -> list[dict[str, Any]]:
    """The server's tools as it lists them now, to ``principal``.  Raises UpstreamFailed,
    CredentialFailed, ConsentNeeded."""
    kept = home_path(home)
    seen: list[dict[str, Any]] = []

    def observe(
        server: ServerId, definitions: list[dict[str, Any]], found: Mapping[str, str]
    ) -> None:
        seen[:] = definitions

    around = Surroundings(
        loop=asyncio.get_running_loop(),
        home=kept,
        environ=os.environ,
        isolate=lambda each: choose_isolation(each, kept, os.geteuid(), landlock_abi()),
        notice=lambda kind, server, details: None,
        observe=observe,
        client_message=lambda server, principal, message: None,
        open_secret=open_secret,
        credentials=credentials or NoCredentials(),
    )
    server = UpstreamServer(spec, around)
    try:
        await server.prepare(principal)
    except UpstreamFailed as error:
        raise UpstreamFailed(
            f"server {spec.id} {error}" if spec.id not in str(error) else str(error),
            remedy=error.remedy or "check that it runs and that its address or command is right",
        ) from None
    finally:
        await server.close()
    return seen
