"""What must be said of a server that the gateway signs in to (ID-9)."""

from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec, Transport
from exeat.core.upstream_auth import EXCHANGES, AuthMode, UpstreamAuth


def check_auth(spec: ServerSpec) -> None:
    """Raises Invalid.  A client that an operator registered belongs to one issuer, and is shown to no
    other, whatever a server's metadata says."""
    auth = spec.auth
    if auth.mode is AuthMode.NONE:
        return
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
    needed = _needed(auth)
    if needed:
        raise Invalid(
            f"Server {spec.id}: auth mode {auth.mode} needs {needed}.",
            remedy=f"Give --auth-with {needed}=….",
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


def _needed(auth: UpstreamAuth) -> str:
    """The first setting that the mode cannot do without, and lacks; else empty."""
    names = [] if auth.mode is AuthMode.AUTHORIZATION_CODE else ["client_id"]
    names += ["subject_from"] if auth.mode in EXCHANGES else []
    names += ["idp", "idp_client_id"] if auth.mode is AuthMode.ID_JAG else []
    return next((name for name in names if not getattr(auth, name)), "")
