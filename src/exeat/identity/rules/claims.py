"""Claims of a token whose signature is good: what they must hold (RFC 7519, RFC 9068, RFC 8693)."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from exeat.identity.model.token import (
    CHAIN_MAX,
    SKEW_S,
    Actor,
    Claims,
    Confirmation,
    Flaw,
    Refused,
)

SECOND_NS: Final = 1_000_000_000
TEXT_MAX_CHARS: Final = 2_000
SCOPES_MAX: Final = 100
_TIME_MAX_S: Final = 2**40
_CONFIRMATIONS: Final = {"jkt": "dpop", "x5t#S256": "mtls"}
_OTHER_KINDS: Final = frozenset({"id", "id_token", "refresh", "refresh_token", "offline", "logout"})
_NOT_OF_ACCESS: Final = ("at_hash", "c_hash", "s_hash", "events")
"""What ID tokens (OpenID Connect Core 3.3.2.11) and logout tokens hold, and access tokens do not."""
_THUMBPRINT_CHARS: Final = 43  # SHA-256 in base64url


_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class _Bad(Exception):
    def __init__(self, flaw: Flaw) -> None:
        self.flaw = flaw


def read_claims(
    claims: Mapping[str, Any],
    issuer: str,
    now: int,
    *,
    life_max_s: int,
    client_claims: Sequence[str] = ("client_id", "azp"),
    user_claim: str = "sub",
    workload: Mapping[str, str] = _NOTHING,
    own: str = "",
) -> Claims | Refused:
    """``now``: nanoseconds.  ``own``: our own issuer, whose grants are ended by their plain name.
    ``workload``: claims by which a token that a client got for itself is told, if its ``sub`` is another
    word for the client."""
    try:
        _check_kind(claims)
        expires = _times(claims, now, life_max_s)
        client = _first(claims, client_claims)
        subject = (
            client if _for_itself(claims, workload, client) else _user(claims, user_claim, client)
        )
        names = [_text(claims, name) for name in ("grant", "jti")]
        if issuer != own:
            names = [f"{issuer} {name}" for name in names if name]
        return Claims(
            issuer,
            subject,
            client,
            _audience(claims.get("aud")),
            _scopes(claims),
            expires,
            tuple(name for name in names if name),
            _actors(claims.get("act"), issuer),
            _confirmation(claims.get("cnf")),
        )
    except _Bad as bad:
        return Refused(bad.flaw)


def _check_kind(claims: Mapping[str, Any]) -> None:
    """Many providers write the same ``typ`` into the head of every token, and the difference inside
    (Keycloak: ``typ``; Cognito, Hydra: ``token_use``), or show it by claims alone."""
    said = (claims.get(name) for name in ("typ", "token_use", "token_type"))
    if any(isinstance(each, str) and each.lower() in _OTHER_KINDS for each in said):
        raise _Bad(Flaw.TYPE)
    if any(name in claims for name in _NOT_OF_ACCESS):
        raise _Bad(Flaw.TYPE)


def _times(claims: Mapping[str, Any], now: int, life_max_s: int) -> int:
    expires = _time(claims, "exp")
    if expires is None:
        raise _Bad(Flaw.CLAIMS)
    if expires <= now:
        raise _Bad(Flaw.EXPIRED)
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and begins > now + SKEW_S * SECOND_NS:
            raise _Bad(Flaw.NOT_YET)
    if expires - now > life_max_s * SECOND_NS:
        raise _Bad(Flaw.TOO_LONG)
    return expires


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    """NumericDate (RFC 7519 section 2) in nanoseconds."""
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in (int, float, Decimal) or not 0 <= value < _TIME_MAX_S:
        raise _Bad(Flaw.CLAIMS)
    return int(Decimal(str(value)) * SECOND_NS)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str) or len(value) > TEXT_MAX_CHARS or not value.isprintable():
        raise _Bad(Flaw.CLAIMS)
    return value


def _first(claims: Mapping[str, Any], names: Sequence[str]) -> str:
    for name in names:
        if found := _text(claims, name):
            return found
    return ""


def _user(claims: Mapping[str, Any], claim: str, client: str) -> str:
    """Empty only if the token is its client's own: who leaves out the claim that names them (a scope
    less is enough at many providers) is somebody all the same."""
    named, subject = _text(claims, claim), _text(claims, "sub")
    if not named and subject not in ("", client):
        raise _Bad(Flaw.CLAIMS)
    return named


def _for_itself(claims: Mapping[str, Any], workload: Mapping[str, str], client: str) -> bool:
    """Client credentials, in the provider's own words: ``{client}`` stands for the client, which some
    write in small letters."""
    if not workload or not client or claims.get("act") is not None:
        return False
    return all(
        _text(claims, name) in {says.replace("{client}", each) for each in (client, client.lower())}
        for name, says in workload.items()
    )


def _audience(value: Any) -> frozenset[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or len(values) > SCOPES_MAX:
        raise _Bad(Flaw.AUDIENCE)
    if not all(isinstance(each, str) and len(each) <= TEXT_MAX_CHARS for each in values):
        raise _Bad(Flaw.AUDIENCE)
    return frozenset(values)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """``scope`` (RFC 8693, a string) or ``scp``, which some providers write as a list."""
    value = claims.get("scope", claims.get("scp", ""))
    found = value.split(" ") if isinstance(value, str) else value
    if not isinstance(found, list) or len(found) > SCOPES_MAX:
        raise _Bad(Flaw.CLAIMS)
    if not all(isinstance(each, str) and len(each) <= TEXT_MAX_CHARS for each in found):
        raise _Bad(Flaw.CLAIMS)
    return frozenset(found) - {""}


def _actors(act: Any, issuer: str) -> tuple[Actor, ...]:
    found: list[Actor] = []
    while act is not None:
        if not isinstance(act, Mapping) or len(found) >= CHAIN_MAX:
            raise _Bad(Flaw.CHAIN)
        name, says = act.get("client_id", act.get("sub")), act.get("iss", issuer)
        for text in (name, says):
            if not isinstance(text, str) or not 0 < len(text) <= TEXT_MAX_CHARS:
                raise _Bad(Flaw.CHAIN)
            if not text.isprintable():
                raise _Bad(Flaw.CHAIN)
        found.append(Actor(str(says), str(name)))
        act = act.get("act")
    return tuple(found)


def _confirmation(cnf: Any) -> Confirmation | None:
    """A binding that we cannot check is no token that we can accept."""
    if cnf is None:
        return None
    if not isinstance(cnf, Mapping) or len(cnf) != 1:
        raise _Bad(Flaw.PROOF)
    (name, value), *_ = cnf.items()
    if name not in _CONFIRMATIONS or not isinstance(value, str):
        raise _Bad(Flaw.PROOF)
    if len(value) != _THUMBPRINT_CHARS:
        raise _Bad(Flaw.PROOF)
    return Confirmation(_CONFIRMATIONS[name], value)
