"""Clients: added by an admin, registered by themselves while the window is open, revoked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.core.ids import AgentId
from exeat.identity.authorization.model.client import (
    CLIENT_LIFE_MAX_DAYS,
    CODE,
    CREDENTIALS,
    EVALUATE,
    EXCHANGE,
    JWT_BEARER,
    REDIRECTS_MAX,
    REFRESH,
    SECRET_LIFE_MAX_DAYS,
    SECRET_RANDOM_BYTES,
    Client,
    ClientAuth,
    ClientKind,
    Window,
    secret_digest,
)
from exeat.identity.authorization.model.doing import ITSELF, SECOND_NS, Doing
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.rules.documents import client_of_registration, public_keys
from exeat.identity.authorization.rules.redirects import read_private, why_not_redirect
from exeat.identity.authorization.service.tokens import Draw
from exeat.identity.authorization.store import AuthorizationChange, AuthorizationStore

DAY_NS: Final = 86_400 * SECOND_NS
WINDOW_MAX_MINUTES: Final = 60
PER_WINDOW_MAX: Final = 20
DYNAMIC_MAX: Final = 200
DYNAMIC_LIFE_DAYS: Final = 90
DYNAMIC_RANDOM_BYTES: Final = 12
REGISTERED: Final = "CL-"
DYNAMIC: Final = "DYN-"
"""In capitals, so that no client can be called like a person or an agent."""


@dataclass(frozen=True, slots=True)
class New:
    """What an admin says of a client.  ``agent`` and ``redirects`` exclude each other (ID-6): either it
    is one agent, or people sign in with it.  ``jwks``: its public keys, or empty."""

    name: str
    days: int
    redirects: Sequence[str] = ()
    agent: AgentId | None = None
    jwks: str = ""
    secret: bool = field(default=False)
    evaluates: bool = False


class Clients:
    """Every verb raises NotFound, Conflict, Invalid or Refused, and then nothing has changed."""

    def __init__(self, store: AuthorizationStore, draw: Draw) -> None:
        self._store, self._draw = store, draw

    def add(self, new: New, doing: Doing) -> tuple[Client, str]:
        """The client, and its secret if it has one: shown once and not kept."""
        secret = self._draw(SECRET_RANDOM_BYTES).hex() if new.secret else ""
        client = _made(new, secret, doing.at)
        with self._store.change() as tx:
            _require_admin(tx, doing)
            if tx.client(client.id) is not None:
                raise Conflict(f"There is a client {client.id} already.", remedy="Choose another.")
            if new.agent is not None:
                agent = tx.agent(new.agent)
                if agent is None:
                    raise NotFound(
                        f"There is no agent {new.agent}.", remedy="See `exeat agent list`."
                    )
            tx.save_client(client)
            tx.tell(doing.event("client.registered", client.subject, None, client.as_json()))
        return client, secret

    def open_window(self, minutes: int, doing: Doing) -> Window:
        """RFC 7591 for so long, and for PER_WINDOW_MAX clients.  0 minutes close it."""
        if not 0 <= minutes <= WINDOW_MAX_MINUTES:
            raise Invalid(f"The window is open 1 to {WINDOW_MAX_MINUTES} minutes; 0 closes it.")
        window = Window(doing.at + minutes * 60 * SECOND_NS, PER_WINDOW_MAX if minutes else 0)
        with self._store.change() as tx:
            _require_admin(tx, doing)
            tx.save_window(window)
            kind = "registration.opened" if minutes else "registration.closed"
            tx.tell(doing.event(kind, "registration", None, {"minutes": minutes}))
        return window

    def register(self, said: Any, now: int) -> Client:
        """RFC 7591 3.  Raises Refused: ``access_denied`` (403) while the window is closed."""
        name = DYNAMIC + self._draw(DYNAMIC_RANDOM_BYTES).hex()
        client = client_of_registration(name, said, now + DYNAMIC_LIFE_DAYS * DAY_NS)
        with self._store.change() as tx:
            tx.sweep(now)
            window = tx.window()
            if window is None or not window.open(now):
                raise Refused(
                    "access_denied",
                    "Clients may not register themselves now.",
                    status=403,
                    remedy="An admin runs `exeat client open --minutes 5` and signs in then.",
                )
            if (
                sum(c.kind is ClientKind.DYNAMIC and c.live(now) for c in tx.clients())
                >= DYNAMIC_MAX
            ):
                raise Refused(
                    "access_denied", "Too many clients registered themselves.", status=403
                )
            tx.save_window(Window(window.until, window.left - 1))
            tx.save_client(client)
            doing = Doing(ITSELF, "oauth", now, "it registered itself")
            tx.tell(doing.event("client.registered", client.subject, None, client.as_json()))
        return client

    def revoke(self, name: str, doing: Doing) -> tuple[str, ...]:
        """For good.  Returns the authorizations that it held, each to be revoked."""
        with self._store.change() as tx:
            _require_admin(tx, doing)
            client = tx.client(name) or tx.client(REGISTERED + name)
            held = tuple(g.id for g in tx.grants_to(client.id if client else name) if not g.revoked)
            if client is None:
                if held:  # a document's
                    return held
                raise NotFound(f"There is no client {name}.", remedy="See `exeat client list`.")
            if not client.revoked:
                self._save_revoked(tx, client, doing)
            return held

    def _save_revoked(self, tx: AuthorizationChange, client: Client, doing: Doing) -> None:
        gone = client.revoke()
        tx.save_client(gone)
        tx.tell(doing.event("client.revoked", client.subject, client.as_json(), gone.as_json()))


def _require_admin(tx: AuthorizationChange, doing: Doing) -> None:
    if not tx.is_admin(doing.actor):
        raise Conflict(
            f"{doing.actor} may not change clients: that takes the role admin.",
            remedy="Ask an admin.",
        )


def _made(new: New, secret: str, now: int) -> Client:
    if bool(new.redirects) + (new.agent is not None) + new.evaluates != 1:
        raise Invalid(
            "A client either signs people in, or is one agent, or asks for decisions.",
            remedy="Give --redirect URI (and its owner chooses the agent), --agent NAME, or --evaluates.",
        )
    if new.evaluates and not secret:
        raise Invalid("A client that asks for decisions has a secret.", remedy="Leave out --jwks.")
    limit = SECRET_LIFE_MAX_DAYS if secret else CLIENT_LIFE_MAX_DAYS
    if not 0 < new.days <= limit:
        raise Invalid(f"Such a client lives 1 to {limit} days.")
    if len(new.redirects) > REDIRECTS_MAX:
        raise Invalid(f"A client has at most {REDIRECTS_MAX} redirect URIs.")
    for uri in new.redirects:
        if (why := why_not_redirect(uri)) and read_private(uri) is None:
            raise Invalid(f"{uri!r} cannot be a redirect URI: {why}.")
    if new.agent is not None and not secret and not new.jwks:
        raise Invalid("An agent's client needs a secret or keys.")
    method = ClientAuth.NONE
    if new.jwks or secret:
        method = ClientAuth.KEY if new.jwks else ClientAuth.SECRET
    try:
        jwks = public_keys(new.jwks) if new.jwks else ""
    except Refused as error:
        raise Invalid(f"The key set cannot be used: {error}") from None
    return Client(
        REGISTERED + new.name,
        ClientKind.REGISTERED,
        new.name,
        method,
        tuple(new.redirects),
        _grants(new, method),
        now + new.days * DAY_NS,
        agent=new.agent,
        secret_digest=secret_digest(secret) if secret else None,
        jwks=jwks,
    )


def _grants(new: New, method: ClientAuth) -> frozenset[str]:
    """Only who proves who it is may bring an identity provider's assertion (ID-JAG)."""
    if new.evaluates:
        return frozenset({EVALUATE})
    if new.agent is not None:
        return frozenset({CREDENTIALS, EXCHANGE})
    return frozenset({CODE, REFRESH} if method is ClientAuth.NONE else {CODE, REFRESH, JWT_BEARER})
