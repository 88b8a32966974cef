"""What the authorization server answers when it does not do what it was asked."""

from exeat.core.errors import ExeatError


class Refused(ExeatError):
    """An error answer of OAuth (RFC 6749 5.2, RFC 7591 3.2.2, RFC 8707 2, RFC 9449 5).

    ``code``: the value of ``error``.  The message is for developers and goes into
    ``error_description``: it never holds a secret.
    """

    def __init__(self, code: str, message: str, *, status: int = 400, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code, self.http_status = code, status


def invalid_client(message: str) -> Refused:
    """RFC 6749 5.2: the client could not be authenticated."""
    return Refused("invalid_client", message, status=401)


def invalid_grant(message: str) -> Refused:
    """RFC 6749 5.2: the code, token or assertion is not (or no longer) good for this."""
    return Refused("invalid_grant", message)
