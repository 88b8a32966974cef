"""The grammar of ids and of free text, and days as people write them."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from exeat.core.errors import Invalid

_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SERVER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_ROLE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
TOOL_NAME_MAX_CHARS: Final = 256
SECOND_NS: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def slug(what: str, text: str) -> str:
    """A person's or an agent's id; raises Invalid."""
    if not _SLUG.fullmatch(text):
        raise Invalid(
            f"{text!r} cannot be the id of {what}.",
            remedy="Use 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit; "
            "no personal names or e-mail addresses, because evidence is kept for years.",
        )
    return text


def server_name(text: str) -> str:
    """A server's id; raises Invalid."""
    if not _SERVER.fullmatch(text):
        raise Invalid(
            f"{text!r} cannot be the id of a server.",
            remedy="Use 1 to 31 of a-z, 0-9, '-', beginning with a letter or digit.",
        )
    return text


def role_name(text: str) -> str:
    """A role or a group; raises Invalid."""
    if not _ROLE.fullmatch(text):
        raise Invalid(
            f"{text!r} cannot be the name of a role or group.",
            remedy="Use 1 to 31 of a-z, 0-9, '-', beginning with a letter or digit.",
        )
    return text


def tool_name(text: str) -> bool:
    """Could this be a tool's name?  Generous (servers choose names), but no control characters."""
    return 0 < len(text) <= TOOL_NAME_MAX_CHARS and not _CONTROL.search(text)


def plain_text(what: str, text: str, limit: int) -> str:
    """Non-empty text on one line; raises Invalid."""
    if not text.strip():
        raise Invalid(f"The {what} is empty.", remedy=f"Say the {what} in a few words.")
    if len(text) > limit:
        raise Invalid(f"The {what} is longer than {limit} characters.", remedy="Shorten it.")
    if _CONTROL.search(text):
        raise Invalid(f"The {what} holds control characters.", remedy="Write it on one line.")
    return text


def end_of_day(day: date) -> int:
    """The moment after the last moment of that day in UTC, in nanoseconds."""
    return instant(datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1))


def instant(moment: datetime) -> int:
    """Nanoseconds since the epoch; whole microseconds, without passing through a float."""
    past = moment - _EPOCH
    return (past.days * 86_400 + past.seconds) * SECOND_NS + past.microseconds * 1000


def parse_until(text: Any) -> int:
    """``2027-01-31`` (that day is the last one, UTC) or an RFC 3339 time with offset.

    A ``date`` or ``datetime`` (as YAML gives) serves as well.  Raises Invalid.
    """
    try:
        value = text
        if isinstance(text, str):
            value = date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError("no offset")
            return instant(value)
        if isinstance(value, date):
            return end_of_day(value)
    except (ValueError, OverflowError):
        pass
    raise Invalid(
        f"{text!r} is not a day or a time.",
        remedy="Write the last day as 2027-01-31, or a time with offset as 2027-01-31T18:00:00Z.",
    )


def show_until(at: int) -> str:
    """The text that ``parse_until`` reads back: a day if it ends one, else a time in UTC."""
    seconds, rest = divmod(at, SECOND_NS)
    moment = _EPOCH + timedelta(seconds=seconds, microseconds=rest // 1000)
    if rest == 0 and seconds % 86_400 == 0:
        return (moment - timedelta(days=1)).date().isoformat()
    return moment.isoformat().replace("+00:00", "Z")


def show_time(at: int) -> str:
    """RFC 3339 in UTC, to the second."""
    return (_EPOCH + timedelta(seconds=at // SECOND_NS)).isoformat().replace("+00:00", "Z")
