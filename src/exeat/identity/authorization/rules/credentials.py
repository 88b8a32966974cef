"""How a client says who it is at the token endpoint (OAuth 2.1 2.4): exactly one way at a time."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_plus

from exeat.identity.authorization.model.refusal import Refused, invalid_client

ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Shown:
    """``client_id`` empty: only the assertion names it."""

    client_id: str
    secret: str | None = field(default=None, repr=False)
    assertion: str | None = field(default=None, repr=False)


def read_shown(authorization: str | None, form: Mapping[str, str]) -> Shown:
    """Raises Refused."""
    basic = _basic(authorization)
    ways = [basic is not None, "client_secret" in form, "client_assertion" in form]
    if sum(ways) > 1:
        raise Refused("invalid_request", "A client proves itself in one way at a time.")
    if basic is not None:
        if form.get("client_id", basic.client_id) != basic.client_id:
            raise invalid_client("Two client ids were sent.")
        return basic
    if "client_assertion" in form:
        if form.get("client_assertion_type") != ASSERTION:
            raise invalid_client("The client assertion is not a JWT.")
        return Shown(form.get("client_id", ""), assertion=form["client_assertion"])
    if not form.get("client_id"):
        raise invalid_client("No client id was sent.")
    return Shown(form["client_id"], form.get("client_secret"))


def _basic(authorization: str | None) -> Shown | None:
    """RFC 6749 2.3.1: both parts are form-encoded first."""
    if authorization is None:
        return None
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise invalid_client("The Authorization header is not Basic.")
    try:
        text = base64.b64decode(value.strip(), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise invalid_client("The Authorization header cannot be read.") from None
    name, mark, secret = text.partition(":")
    if not mark or not name:
        raise invalid_client("The Authorization header cannot be read.")
    return Shown(unquote_plus(name), unquote_plus(secret))
