"""The guarded client of this gateway, as its settings say (GW-10)."""

import ssl
from typing import Final

from exeat.adapters.fetch import Fetcher
from exeat.app.settings import Settings
from exeat.core.errors import Invalid

LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def make_fetcher(settings: Settings, *, also: frozenset[str] = frozenset()) -> Fetcher:
    """``also``: hosts allowed besides the listed ones; LOCAL_HOSTS for what itself came from this
    machine.  Raises Invalid naming the setting."""
    try:
        return Fetcher(settings.internal_hosts | also, settings.internal_ca)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(
            f"setting 'internal_ca': {settings.internal_ca} cannot be used ({error.strerror or error})",
            remedy="name a PEM file with certificates of authorities",
        ) from None
    except ValueError as error:
        raise Invalid(
            f"setting 'internal_hosts': {error}",
            remedy="list hosts, host:port, or networks such as 10.0.0.0/8",
        ) from None
