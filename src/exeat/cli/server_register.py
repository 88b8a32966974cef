"""``exeat server add`` and ``change``: how a server is reached, and what it is given."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from exeat.cli.desk import NO_REASON as NONE
from exeat.cli.desk import AsOption, Desk, HomeOption, ReasonOption, next_step, open_desk, say
from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import PersonId, ServerId
from exeat.core.upstream_auth import NO_AUTH, UpstreamAuth, read_auth

CommandArgument = Annotated[
    list[str] | None, typer.Argument(help="After `--`: the command of a stdio server.")
]
UrlOption = Annotated[str | None, typer.Option(help="The address of an HTTP server.")]
OwnerOption = Annotated[str | None, typer.Option(help="Who answers for it (you).")]
EnvOption = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE for a stdio server; no secrets.")
]
EnvFromOption = Annotated[
    list[str] | None, typer.Option(help="Hand down this variable of the gateway.")
]
EnvSecretOption = Annotated[
    list[str] | None, typer.Option(help="VARIABLE=NAME: a secret of the vault, for a stdio server.")
]
HeaderFromOption = Annotated[
    list[str] | None,
    typer.Option(help="HEADER=VARIABLE: a header's value from the gateway's environment."),
]
HeaderSecretOption = Annotated[
    list[str] | None,
    typer.Option(help="HEADER=NAME, or 'HEADER=Bearer {NAME}': a secret of the vault."),
]
AuthOption = Annotated[
    str | None,
    typer.Option(
        help="How the gateway signs in to an HTTP server: none, client-credentials, authorization-code, "
        "token-exchange, id-jag."
    ),
]
AuthWithOption = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=VALUE for --auth: issuer, client_id, secret (in the vault), secret_from (a variable), "
        "key_file, scopes."
    ),
]
CwdOption = Annotated[str | None, typer.Option(help="Working directory of a stdio server.")]
RunAsOption = Annotated[str | None, typer.Option(help="User of a stdio server (gateway as root).")]
MethodOption = Annotated[
    list[str] | None,
    typer.Option(help="A method beyond MCP's own that may pass if policy permits."),
]


PermitOption = Annotated[
    bool | None,
    typer.Option(
        "--permit/--no-permit",
        help="It demands a signed permit for each tools/call (exeat.permit).",
    ),
]
AudienceOption = Annotated[
    str | None,
    typer.Option(
        "--permit-audience", help="What its permits are for; else its address, or its id."
    ),
]


def _pairs(given: list[str] | None, what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Invalid(f"{each!r} is not {what}.", remedy="Write NAME=VALUE.")
        found[name] = value
    return found


def add(  # noqa: PLR0913 - one per option
    name: str,
    command: CommandArgument = None,
    url: UrlOption = None,
    owner: OwnerOption = None,
    trust: Annotated[int, typer.Option(help="0 (unknown) to 100; policy may read it.")] = 0,
    env: EnvOption = None,
    env_from: EnvFromOption = None,
    env_secret: EnvSecretOption = None,
    header_from: HeaderFromOption = None,
    header_secret: HeaderSecretOption = None,
    auth: AuthOption = None,
    auth_with: AuthWithOption = None,
    cwd: CwdOption = None,
    run_as: RunAsOption = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="It keeps no state: one process serves all.")
    ] = False,
    permit: PermitOption = None,
    permit_audience: AudienceOption = None,
    allow_method: MethodOption = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Register a server: `exeat server add time -- mcp-server-time`, or with --url."""
    desk = open_desk(home, as_)
    if bool(command) == bool(url):
        raise Invalid(
            "A server has either a command or a --url.", remedy="exeat server add NAME -- COMMAND…"
        )
    spec = ServerSpec(
        ServerId(name),
        Transport.HTTP if url else Transport.STDIO,
        url=url or "",
        headers_from=_pairs(header_from, "a header and a variable"),
        command=tuple(command or ()),
        env=_pairs(env, "a name and a value"),
        env_from=tuple(env_from or ()),
        cwd=cwd or "",
        run_as=run_as or "",
        shared=shared,
        headers_secret=_pairs(header_secret, "a header and a secret"),
        env_secret=_pairs(env_secret, "a variable and a secret"),
        auth=_auth(auth, auth_with, NO_AUTH),
    )
    spec = _with_permit(spec, permit, permit_audience)
    server = desk.registry.add_server(
        spec, PersonId(owner or desk.actor), trust, allow_method or [], desk.act(reason)
    )
    say(f"Server {server.id} is registered; none of its tools is pinned yet.")
    if not _missing(desk, server.spec):
        whose = (
            " --for AGENT/PERSON   (while the gateway runs)" if server.spec.auth.per_user else ""
        )
        next_step(f"exeat server observe {server.id}{whose}")


def change(  # noqa: PLR0913 - one per option
    name: str,
    command: CommandArgument = None,
    url: UrlOption = None,
    owner: OwnerOption = None,
    trust: Annotated[int | None, typer.Option(help="0 (unknown) to 100.")] = None,
    env: EnvOption = None,
    env_from: EnvFromOption = None,
    env_secret: EnvSecretOption = None,
    header_from: HeaderFromOption = None,
    header_secret: HeaderSecretOption = None,
    auth: AuthOption = None,
    auth_with: AuthWithOption = None,
    cwd: CwdOption = None,
    run_as: RunAsOption = None,
    shared: Annotated[
        bool | None, typer.Option("--shared/--not-shared", help="Whether one process serves all.")
    ] = None,
    permit: PermitOption = None,
    permit_audience: AudienceOption = None,
    allow_method: MethodOption = None,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Change what is given and keep the rest; `HEADER=` or `VARIABLE=` takes an entry away."""
    desk = open_desk(home, as_)
    with desk.state.registry.read() as read:
        old = read.server(ServerId(name))
    spec = old.spec
    pairs = {
        "headers_from": _pairs(header_from, "a header and a variable"),
        "headers_secret": _pairs(header_secret, "a header and a secret"),
        "env": _pairs(env, "a name and a value"),
        "env_secret": _pairs(env_secret, "a variable and a secret"),
    }
    given: dict[str, Any] = {"url": url, "cwd": cwd, "run_as": run_as, "shared": shared}
    given |= {"auth": _auth(auth, auth_with, spec.auth)}
    given |= {"command": tuple(command) if command else None}
    given |= {"env_from": tuple(env_from) if env_from is not None else None}
    given |= {field: _merged(getattr(spec, field), new) for field, new in pairs.items() if new}
    changed = replace(spec, **{field: new for field, new in given.items() if new is not None})
    changed = _with_permit(changed, permit, permit_audience)
    server = desk.registry.change_server(
        changed,
        PersonId(owner) if owner is not None else old.owner,
        old.trust if trust is None else trust,
        old.extra_methods if allow_method is None else allow_method,
        desk.act(reason),
    )
    say(f"Server {server.id} is changed.")
    _missing(desk, server.spec)


def _with_permit(spec: ServerSpec, permit: bool | None, audience: str | None) -> ServerSpec:
    if permit is None and audience is None:
        return spec
    if permit is False:
        return replace(spec, permit="")
    return replace(spec, permit=audience or spec.permit or spec.url or spec.id)


def _auth(mode: str | None, given: list[str] | None, before: UpstreamAuth) -> UpstreamAuth:
    """Another mode starts afresh; `NAME=` takes an entry away."""
    kept = before.pairs() if mode in (None, before.mode.value) else {}
    pairs = _merged(kept, _pairs(given, "a name and a value"))
    if mode is not None:
        pairs["mode"] = mode
    if pairs and "mode" not in pairs:
        raise Invalid("--auth-with says nothing without --auth.", remedy="Give --auth MODE too.")
    return read_auth(pairs)


def _merged(old: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in {**old, **given}.items() if value}


def _missing(desk: Desk, spec: ServerSpec) -> bool:
    """Say which secrets the server needs that nobody has set yet."""
    if not spec.secrets:
        return False
    with desk.state.vault.read() as read:
        known = {each.id.name for each in read.secrets() if each.id.upstream in ("", spec.id)}
    missing = [each for each in spec.secrets if each not in known]
    for each in missing:
        next_step(f"exeat secret set {each} --server {spec.id}")
    return bool(missing)
