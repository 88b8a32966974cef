"""The gateway's certificate: read, checked and read again on SIGHUP."""

import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from exeat.app.settings import Settings
from exeat.core.errors import ExeatError, Invalid, NotFound

_log = structlog.get_logger("exeat.tls")
ENDS_SOON: Final = timedelta(days=14)
CIPHERS_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and AEAD only.  Those of TLS 1.3 are all of that kind."""


class Certificate:
    """Where the PEM files are.  ``client_ca``: whose certificates clients must show, if any."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self.certificate, self.key, self.client_ca = certificate, key, client_ca

    def context(self) -> ssl.SSLContext:
        """Read the files now.  Raises NotFound or Invalid, naming file and setting."""
        _readable("tls_certificate", self.certificate)
        _readable("tls_key", self.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS_1_2)
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        self._load(context)
        if self.client_ca is not None:
            self._require_clients(context, self.client_ca)
        self.leaf()
        return context

    def leaf(self) -> x509.Certificate:
        """The server's own certificate, the first in its file.  Raises Invalid."""
        try:
            return x509.load_pem_x509_certificates(self.certificate.read_bytes())[0]
        except ValueError:  # such as OpenSSL's own TRUSTED CERTIFICATE
            raise Invalid(
                f"tls_certificate: {self.certificate} is no certificate in plain PEM form",
                remedy="give text that starts with -----BEGIN CERTIFICATE-----",
            ) from None

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
        except ssl.SSLError as error:
            if "KEY_VALUES_MISMATCH" in str(error):
                raise Invalid(
                    f"tls_key: {self.key} is not the key of the certificate {self.certificate}",
                    remedy="give the key that the certificate was made for; in the certificate's "
                    "file the server's own comes first, then its issuers",
                ) from None
            if b"ENCRYPTED" in self.key.read_bytes():
                raise Invalid(
                    f"tls_key: {self.key} is encrypted",
                    remedy="give a key without a passphrase that only the gateway's user can read",
                ) from None
            raise Invalid(
                f"tls_certificate, tls_key: no certificate and key in PEM form could be read from"
                f" {self.certificate} and {self.key}",
                remedy="both files hold text that starts with -----BEGIN",
            ) from None

    def _require_clients(self, context: ssl.SSLContext, client_ca: Path) -> None:
        _readable("tls_client_ca", client_ca)
        try:
            context.load_verify_locations(cafile=client_ca)
        except ssl.SSLError:
            raise Invalid(
                f"tls_client_ca: no certificate in PEM form could be read from {client_ca}",
                remedy="give the certificate of the authority that issues your clients'",
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0  # each connection shows its certificate anew
        context.options |= ssl.OP_NO_TICKET

    @property
    def key_is_open(self) -> bool:
        """True where others than the key's owner can do something with its file."""
        return bool(self.key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))

    def warn(self) -> None:
        """Log what is unwise about usable files."""
        if self.key_is_open:
            _log.warning(
                "others can read the key", file=str(self.key), next=f"chmod 600 {self.key}"
            )
        ends = self.leaf().not_valid_after_utc
        if ends < datetime.now(UTC) + ENDS_SOON:
            _log.warning(
                "the certificate ends, or has ended", file=str(self.certificate), ends=str(ends),
                next="replace it and send SIGHUP to the gateway",
            )  # fmt: skip

    def again(self, old: ssl.SSLContext) -> ssl.SSLContext:
        """The context of the files as they are now, or ``old`` if they cannot be used."""
        try:
            fresh = self.context()
            self.warn()
        except ExeatError as error:
            _log.warning("the old certificate stays in use", why=str(error), next=error.remedy)
            return old
        _log.info("certificate read again", file=str(self.certificate))
        return fresh


def certificate(home: Path, settings: Settings) -> Certificate | None:
    """What the settings name; relative paths start in the home.  Raises Invalid for half of it."""
    given = {
        name: home / path.expanduser()
        for name in ("tls_certificate", "tls_key", "tls_client_ca")
        if (path := getattr(settings, name)) is not None
    }
    if not given:
        return None
    for name in ("tls_certificate", "tls_key"):
        if name not in given:
            raise Invalid(
                f"setting {next(iter(given))!r} is given and {name!r} is not",
                remedy="give tls_certificate and tls_key together, or neither",
            )
    return Certificate(given["tls_certificate"], given["tls_key"], given.get("tls_client_ca"))


def _readable(setting: str, path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except FileNotFoundError:
        raise NotFound(
            f"{setting}: there is no file {path}", remedy="correct the path and start again"
        ) from None
    except OSError as error:
        raise Invalid(
            f"{setting}: {path} cannot be read ({error.strerror})",
            remedy="let the user that the gateway runs as read it",
        ) from None


def warn_of_plain_http(host: str, tls: Certificate | None) -> None:
    """Keys and answers on a network, for everybody there to read, are worth a line at the start."""
    if tls is None and not is_loopback(host):
        _log.warning(
            "listening beyond this machine without TLS: keys and answers travel unencrypted",
            host=host,
            next="set tls_certificate and tls_key, or put a proxy that speaks TLS in front",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
