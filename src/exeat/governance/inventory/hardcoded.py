"""Secrets that stand in a configuration file, found by rules that a person can read here.

A value is a secret if its *name* says so, if it is an *Authorization* header, if it has the *shape* of a
known kind of key, or if it stands in the *user part* or a telling *query parameter* of an address.
References to where a secret really is (``${VAR}``, ``${input:…}``) are none.  No value is ever shown:
only its length and, for values too long to be guessed, the beginning of their SHA-256.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from exeat.governance.inventory.entries import Entry
from exeat.registry.model.server import is_secret_name

GUESSABLE_MAX_CHARS: Final = 15
"""A digest of so short a value would let anybody try a list of passwords against it."""
FINGERPRINT_CHARS: Final = 12

NAMES: Final = re.compile(
    r"TOKEN|SECRET|PASSW(?:OR)?D|PASSPHRASE|CREDENTIAL|API[_-]?KEY|ACCESS[_-]?KEY|PRIVATE[_-]?KEY"
    r"|(?:^|[_-])(?:KEY|PAT|PWD|PASS|AUTH|JWT|DSN|BEARER|COOKIE)$|^AUTHORIZATION$|CONNECTION_?STRING",
    re.I,
)
SHAPES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = tuple(
    (name, re.compile(rf"(?<![A-Za-z0-9])(?:{shape})"))
    for name, shape in (
        ("GitHub token", r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"),
        ("GitLab token", r"glpat-[A-Za-z0-9_-]{16,}"),
        ("sk- key", r"sk-[A-Za-z0-9_-]{16,}|sk_(?:live|test)_[A-Za-z0-9]{16,}"),
        ("Slack token", r"xox[a-z]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}"),
        ("AWS access key", r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
        ("Google key", r"AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{20,}"),
        ("JWT", r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
        ("npm or PyPI token", r"npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}"),
        ("Hugging Face token", r"hf_[A-Za-z0-9]{20,}"),
        ("Notion or Linear token", r"ntn_[A-Za-z0-9]{20,}|lin_api_[A-Za-z0-9]{20,}"),
        ("SendGrid key", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
        ("exeat key", r"exk_[A-Za-z0-9_-]{20,}"),
        ("private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    )
)
_REFERENCE: Final = re.compile(r"\$\{(?:[A-Za-z]+:(?!-))?[^}:]*(?::-(?P<default>[^}]*))?\}")
_BARE_REFERENCE: Final = re.compile(r"\$[A-Za-z_]\w*|%[A-Za-z_]\w*%")
"""Only if it is the whole value: a password may well hold a dollar sign."""
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
_SCHEME: Final = re.compile(r"^(?:Bearer|Basic|Token|ApiKey)(?:\s+|$)", re.I)
_PLAIN: Final = re.compile(
    r"(?:-?[\d.]+|true|false|null|(?:~|\.{1,2})?[/\\].*|[A-Za-z]:\\.*)?", re.S
)
_PLACEHOLDER: Final = re.compile(r"<[^>]*>|\[REDACTED\]|\*+|x{4,}", re.I)
_FLAG: Final = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.S)
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.S)
_HEADER: Final = re.compile(r"([A-Za-z][\w-]*)\s*:\s*(.*)", re.S)
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.I)


@dataclass(frozen=True, slots=True)
class Secret:
    """``where``: such as ``env GITHUB_TOKEN`` or ``args[2]``.  ``rule``: why it is taken for one."""

    where: str
    rule: str
    value: str = field(repr=False)

    @property
    def shown(self) -> str:
        return f"{self.where} ({self.rule}): {fingerprint(self.value)}"


def fingerprint(value: str) -> str:
    """Tells whether two secrets are the same, without telling either."""
    size = f"{len(value)} characters"
    if len(value) <= GUESSABLE_MAX_CHARS:
        return size
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{size}, sha256 {digest[:FINGERPRINT_CHARS]}"


def secrets_of(entry: Entry) -> tuple[Secret, ...]:
    """In the order of the file, each place once."""
    found: dict[str, Secret] = {}
    for secret in _all(entry):
        found.setdefault(secret.where, secret)
    return tuple(found.values())


def _all(entry: Entry) -> Iterator[Secret]:
    passed_on = set(_passed_on(entry.command))
    for name, value in entry.env.items():
        yield from named(f"env {name}", name, value)
        if name in passed_on and literal_of(value):
            yield Secret(f"env {name}", "an argument passes it on as one", literal_of(value))
    for name, value in entry.headers.items():
        yield from named(f"header {name}", name, value)
    yield from in_address("url", entry.url)
    yield from _in_arguments(entry.command)
    for block, settings in entry.sign_in.items():
        for name, value in settings.items() if isinstance(settings, dict) else ():
            if isinstance(value, str):
                yield from named(f"{block} {name}", _snake(name), value)
    if entry.header_command:
        yield from shaped("headersHelper", entry.header_command)


def named(where: str, name: str, value: str) -> Iterator[Secret]:
    """A value that has a name: a variable, a header, an option."""
    literal = literal_of(value)
    if not literal or _PLACEHOLDER.fullmatch(literal):
        return
    shapes = list(shaped(where, value))
    if shapes:
        yield shapes[0]
    elif NAMES.search(name) and not _PLAIN.fullmatch(literal):
        yield Secret(where, "its name says so", literal)
    else:
        yield from in_address(where, value)


def shaped(where: str, value: str) -> Iterator[Secret]:
    for kind, shape in SHAPES:
        match = shape.search(value)
        if match:
            whole = literal_of(value) if kind != "private key" else value
            yield Secret(where, f"looks like: {kind}", whole if " " not in whole else match.group())
            return


def in_address(where: str, text: str) -> Iterator[Secret]:
    """What stands in the user part, the query or the path of an address."""
    for url in _URL.findall(text):
        try:
            parts = urlsplit(url)
            user, secret = parts.username or "", parts.password or ""
        except ValueError:
            continue
        if literal_of(unquote(secret)):
            yield Secret(f"{where}, user part", "an address with a password", unquote(secret))
        elif literal_of(user) and parts.scheme in ("http", "https"):
            yield Secret(f"{where}, user part", "an address with a user part", unquote(user))
        for name, value in parse_qsl(parts.query):
            yield from named(f"{where}, query {name}", name, value)
        for segment in parts.path.split("/"):
            yield from shaped(f"{where}, path", segment)


def _in_arguments(command: tuple[str, ...]) -> Iterator[Secret]:
    for number, word in enumerate(command):
        yield from _in_word(f"args[{number - 1}]" if number else "command", word)
    for number, (before, word) in enumerate(pairwise(command)):
        option = _FLAG.fullmatch(before)
        if option and option[2] is None and not word.startswith("-"):
            yield from named(f"args[{number}]", _snake(option[1]), word)


def _in_word(where: str, word: str) -> Iterator[Secret]:
    for pattern in (_FLAG, _ASSIGNMENT, _HEADER):
        found = pattern.fullmatch(word)
        if found and found[2]:
            yield from named(where, _snake(found[1]), found[2])
            inner = _ASSIGNMENT.fullmatch(found[2]) or _HEADER.fullmatch(found[2])
            if inner and not _URL.match(found[2]):
                yield from named(where, _snake(inner[1]), inner[2])
    yield from shaped(where, word)
    yield from in_address(where, word)


def _passed_on(command: tuple[str, ...]) -> Iterator[str]:
    """Variables whose value a secret's argument takes: ``--header "Authorization: ${NAME}"``."""
    for word in command:
        found = _HEADER.fullmatch(word) or _FLAG.fullmatch(word)
        if found and found[2] and NAMES.search(_snake(found[1])):
            yield from _VARIABLE.findall(found[2])


def literal_of(value: str) -> str:
    """What of a value stands in the file itself: without references, and without a scheme's name."""
    bare = _REFERENCE.sub(lambda found: found["default"] or "", value)
    literal = _SCHEME.sub("", bare.strip()).strip()
    return "" if _BARE_REFERENCE.fullmatch(literal) else literal


def is_reference(value: str) -> bool:
    return bool(value.strip()) and not literal_of(value)


def references_in(value: str) -> tuple[str, ...]:
    """Without what they fall back to."""
    found = [re.sub(r":-[^}]*", "", each.group()) for each in _REFERENCE.finditer(value)]
    bare = _SCHEME.sub("", value.strip()).strip()
    return (*found, bare) if _BARE_REFERENCE.fullmatch(bare) else tuple(found)


def names_a_secret(name: str) -> bool:
    """Never kept in the open under such a name: the registry's own rule, and the rules here."""
    return is_secret_name(name) or bool(NAMES.search(name))


def _snake(name: str) -> str:
    """``clientSecret`` and ``client-secret`` as one writes variables."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).replace("-", "_")
