"""What one server is given to know the gateway by: names in its registration, values at the last moment.

From the gateway's environment, or from the vault (ID-10), where an agent may have secrets of its own.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from exeat.core.errors import ExeatError, NotFound, UpstreamFailed
from exeat.core.facts import SecretMark, ServerSpec, secret_of
from exeat.core.secret import SecretId
from exeat.identity.vault.model import header_value, variable_value

_log = structlog.get_logger("exeat.upstreams")
Marks = Mapping[SecretId, SecretMark]
NO_MARKS: Final[Marks] = {}
OpenSecret = Callable[[str, str, str], Awaitable[bytes]]
"""(agent or empty, server, name) → the value.  Raises ExeatError."""


async def no_vault(agent: str, server: str, name: str) -> bytes:
    raise NotFound(f"There is no vault here that could hold secret {name}.")


def given_to(spec: ServerSpec, marks: Marks) -> Marks:
    """Those of the secrets that this server may be given."""
    names = spec.secrets
    if not names:
        return NO_MARKS
    return {
        each: mark
        for each, mark in marks.items()
        if each.name in names and each.upstream in ("", spec.id)
    }


class ServerSecrets:
    """``marks``: of the secrets that the server may be given; another value is another mark."""

    def __init__(
        self, spec: ServerSpec, marks: Marks, environ: Mapping[str, str], open_secret: OpenSecret
    ) -> None:
        self._spec = spec
        self.marks = marks
        self._environ = environ
        self._open_secret = open_secret
        self._with_own = frozenset(each.agent for each in marks if each.agent)

    def own_agent(self, principal: str) -> str:
        """The principal's agent if it has secrets of its own here, else empty: who has none shares."""
        if not self._with_own:
            return ""
        agent, slash, _ = principal.partition("/")
        return agent if slash and agent in self._with_own else ""

    async def headers(self, agent: str) -> dict[str, str]:
        """Header → value, opened now.  Raises UpstreamFailed."""
        spec, fields = self._spec, dict[str, str]()
        for header, variable in spec.headers_from.items():
            value = self._environ.get(variable)
            if value is None:
                raise UpstreamFailed(
                    f"server {spec.id} needs the environment variable {variable}, which is not set",
                    remedy=f"set {variable} in the gateway's environment and restart it",
                )
            fields[header] = value
        for header, template in spec.headers_secret.items():
            scheme, name = secret_of(template)
            fields[header] = scheme + await self._secret(agent, name, header_value)
        return fields

    async def variables(self, agent: str) -> dict[str, str]:
        """Variable → value for a process, opened now.  Raises UpstreamFailed."""
        return {
            variable: await self._secret(agent, name, variable_value)
            for variable, name in self._spec.env_secret.items()
        }

    async def _secret(self, agent: str, name: str, read: Callable[[str, bytes], str]) -> str:
        """Where the vault keeps its keys is told to the log alone: an agent may read the error."""
        server = self._spec.id
        try:
            return read(name, await self._open_secret(agent, server, name))
        except NotFound:
            why, remedy = "is not set", f"exeat secret set {name}"
        except ExeatError as error:
            why, remedy = "cannot be used", error.remedy
            _log.error("a secret cannot be used", server=server, secret=name, why=str(error))
        raise UpstreamFailed(f"server {server} needs secret {name}, which {why}", remedy=remedy)
