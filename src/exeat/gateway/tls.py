"""TLS towards clients: TLS 1.2 or newer, optionally with client certificates from one authority."""

import ssl
from pathlib import Path
from typing import Final

from exeat.core.errors import Invalid

HANDSHAKE_MAX_S: Final = 10.0
CLOSING_MAX_S: Final = 5.0


class ServerTls:
    """One context for the life of a gateway; ``reload`` puts new files into it, for connections to come.

    ``client_ca``: a PEM file; clients must then show a certificate that it signed."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.reload()
        if client_ca is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self._read("tls_client_ca", client_ca)
            try:
                self.context.load_verify_locations(client_ca)
            except ssl.SSLError:
                raise Invalid(
                    f"tls_client_ca: {client_ca} holds no certificate",
                    remedy="name a PEM file with the certificate of the authority",
                ) from None

    def reload(self) -> None:
        """Raises Invalid naming the file; then the certificate in use stays."""
        self._read("tls_certificate", self._certificate)
        self._read("tls_key", self._key)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
            self.context.load_cert_chain(self._certificate, self._key)
        except (ssl.SSLError, OSError) as error:
            mismatch = "KEY_VALUES_MISMATCH" in str(error)
            raise Invalid(
                f"tls_certificate {self._certificate} and tls_key {self._key} "
                + (
                    "do not belong together"
                    if mismatch
                    else "are not a PEM certificate and its key"
                ),
                remedy="name the certificate chain and its own unencrypted key, both in PEM",
            ) from None

    def _read(self, setting: str, path: Path) -> None:
        try:
            path.read_bytes()
        except OSError as error:
            raise Invalid(
                f"{setting}: {path} cannot be read ({error.strerror})",
                remedy=f"correct {setting} or the file's permissions",
            ) from None
