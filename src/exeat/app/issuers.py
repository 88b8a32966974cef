"""Whose tokens open the gateway: our own authorization server's, and those of trusted issuers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from exeat.adapters.issuers import Issuers
from exeat.app.fetching import LOCAL_HOSTS, make_fetcher
from exeat.app.settings import Settings
from exeat.core.errors import Invalid
from exeat.identity.model.issuer import TrustedIssuer
from exeat.identity.tokens import Keyring, Keys, Tokens

KEY_FILE: Final = "oauth.key"
ALGORITHM: Final = "ES256"


@dataclass(frozen=True, slots=True)
class _OwnKeys:
    keys: KeySet
    algorithms: tuple[str, ...] = (ALGORITHM,)


class OwnAndOthers:
    """Our own keys are at hand; everybody else's are asked for."""

    def __init__(self, own: str, key: ECKey, others: Keyring) -> None:
        self._own, self._others = own, others
        self._keys = _OwnKeys(KeySet([key]))

    def known(self, issuer: str, kid: str | None) -> Keys | None:
        return self._keys if issuer == self._own else self._others.known(issuer, kid)

    async def refresh(self, issuer: str, kid: str | None) -> Keys | None:
        return self._keys if issuer == self._own else await self._others.refresh(issuer, kid)

    async def introspect(self, issuer: str, token: str) -> Mapping[str, Any] | None:
        return await self._others.introspect(issuer, token)

    def trouble(self, issuer: str) -> str:
        return "" if issuer == self._own else self._others.trouble(issuer)


def oauth_key(home: Path) -> ECKey:
    """The authorization server's signing key, made at the first start.  Raises Invalid."""
    path = home / "keys" / KEY_FILE
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = ECKey.generate_key("P-256", private=True).as_pem(private=True)
        temporary = path.with_name(f"{KEY_FILE}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # another worker may have been quicker; its key stands
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return _with_id(path)


def _with_id(path: Path) -> ECKey:
    try:
        key = ECKey.import_key(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError, JoseError, ValueError) as error:
        raise Invalid(
            f"the key of the authorization server cannot be read: {path} ({type(error).__name__})",
            remedy="restore it from a backup, or remove it: then everybody signs in again",
        ) from None
    named = {"kid": key.thumbprint(), "use": "sig", "alg": ALGORITHM}
    return ECKey.import_key({**key.as_dict(private=True), **named})


def make_tokens(settings: Settings, home: Path, clock: Any) -> tuple[Tokens, Issuers]:
    """Raises Invalid."""
    trusted = [each.value() for each in settings.issuers]
    own = settings.issuer
    if any(each.url == own for each in trusted):
        raise Invalid(
            f"setting 'issuers': {own} is the authorization server of this gateway itself",
            remedy="leave it out; it is trusted without being listed",
        )
    local = any(each.url.startswith(("http://localhost", "http://127.0.0.1")) for each in trusted)
    fetcher = make_fetcher(settings, also=LOCAL_HOSTS if local else frozenset())
    others = Issuers(trusted, fetcher, clock)
    keyring = OwnAndOthers(own, oauth_key(home), others)
    ours = TrustedIssuer(own, algorithms=frozenset({ALGORITHM}), life_max_s=3600)
    return Tokens([ours, *trusted], keyring, own), others
