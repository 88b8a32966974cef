"""What must be said of a server that the gateway signs in to (ID-9)."""

from typing import Final

from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec, Transport
from exeat.core.upstream_auth import AuthMode

SERVED: Final = frozenset({AuthMode.NONE, AuthMode.CLIENT_CREDENTIALS, AuthMode.AUTHORIZATION_CODE})


def check_auth(spec: ServerSpec) -> None:
    """Raises Invalid.  A client that an operator registered belongs to one issuer, and is shown to no
    other, whatever a server's metadata says."""
    auth = spec.auth
    if auth.mode is AuthMode.NONE:
        return
    if auth.mode not in SERVED:
        raise Invalid(
            f"Server {spec.id}: auth mode {auth.mode} is not served yet.",
            remedy=f"Use one of: {', '.join(sorted(SERVED))}.",
        )
    if spec.transport is not Transport.HTTP:
        raise Invalid(
            f"Server {spec.id} is reached on stdio, where nobody signs in.",
            remedy="Hand it a secret: --env-secret VARIABLE=NAME.",
        )
    if any(name.lower() == "authorization" for name in (*spec.headers_from, *spec.headers_secret)):
        raise Invalid(
            f"Server {spec.id} has both a fixed Authorization header and auth mode {auth.mode}.",
            remedy="Take one away.",
        )
    if sum(map(bool, (auth.secret, auth.secret_from, auth.key_file))) > 1:
        raise Invalid(
            f"Server {spec.id}: its client shows itself in more than one way.",
            remedy="Give one of secret, secret_from and key_file.",
        )
    if auth.mode is AuthMode.CLIENT_CREDENTIALS and not auth.client_id:
        raise Invalid(
            f"Server {spec.id}: client-credentials needs a client_id.",
            remedy="Give --auth-with client_id=ID.",
        )
    if auth.client_id and not auth.issuer:
        raise Invalid(
            f"Server {spec.id}: the client {auth.client_id} is known to one authorization server.",
            remedy="Name it: --auth-with issuer=https://….",
        )
    if not auth.client_id and (auth.secret or auth.secret_from or auth.key_file):
        raise Invalid(
            f"Server {spec.id}: a client's secret says nothing without its client_id.",
            remedy="Give --auth-with client_id=ID.",
        )
