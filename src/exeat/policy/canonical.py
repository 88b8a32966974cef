"""One canonical form for paths, URLs, e-mail addresses and hosts (trap 3).

``like "/workspace/*"`` also matches ``/workspace/../etc/passwd``.  So a string that a policy reads
as one of these kinds must plainly denote its canonical form; what two readers could take for
different things is refused, never repaired.  What goes upstream is always the wire value.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final

from exeat.policy.model import Kind, Match

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_ENCODED_TRICK: Final = re.compile(r"%(?:2e|2f|5c|00|25|0a|0d)", re.IGNORECASE)
_EXPANSION: Final = re.compile(r"^~|\$[A-Za-z_{(]|`|^[A-Za-z]:|^%[A-Za-z_]+%")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]{0,30}):(//)?")
_PERCENT: Final = re.compile(r"%(..?)?")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
_URL_MARKS: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%{}|-]+\Z")
_LOCAL: Final = re.compile(r"[A-Za-z0-9_+'&=~-]+(?:\.[A-Za-z0-9_+'&=~-]+)*\Z")
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "ssh": 22}
_SEPARATORS: Final = "./\\:@%"


class NotCanonical(ValueError):
    """The text could denote more than one thing; the message says how, without the text."""


Fact = Mapping[str, Any]
"""What a policy may read of a value: strings, ints, bools; ``ip`` is text for Cedar's ``ip()``."""


def fact(kind: Kind, text: str) -> Fact:
    """The typed facts of a value.  ``canonical`` is always among them.  Raises NotCanonical."""
    _check_characters(text)
    return _READERS[kind](text)


def check_plain(kind: Kind, text: str) -> None:
    """For a policy that matches the wire value itself: it must *be* its canonical form."""
    if fact(kind, text)["canonical"] != text:
        raise NotCanonical("it is not written in its canonical form")


def _check_characters(text: str) -> None:
    if not text:
        raise NotCanonical("it is empty")
    if not text.isascii():
        _check_unicode(text)
    elif not text.isprintable():
        raise NotCanonical("it holds a control character")
    if "\\" in text:
        raise NotCanonical("it holds a backslash")
    if text != text.strip():
        raise NotCanonical("it begins or ends with white space")


def _check_unicode(text: str) -> None:
    for mark in text:
        # Cc, Cf (zero width, bidi), Cs, Co, Cn, Zl, Zp: invisible or without one meaning
        if unicodedata.category(mark) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            raise NotCanonical("it holds an invisible character")
    if unicodedata.normalize("NFC", text) != text:
        raise NotCanonical("its accents are not composed (Unicode NFC)")
    folded = unicodedata.normalize("NFKC", text)
    for mark in _SEPARATORS:
        if folded.count(mark) != text.count(mark):
            raise NotCanonical("it holds a look-alike of a dot, a slash or another separator")


def _path(text: str) -> Fact:
    if _ENCODED_TRICK.search(text):
        raise NotCanonical("it holds a percent-encoded dot, slash or control character")
    if _EXPANSION.search(text):
        raise NotCanonical("it holds something that a shell or a library would expand")
    absolute = text.startswith("/")
    body = text[1:] if absolute else text
    if body.endswith("/"):
        body = body[:-1]
    if body == "." and not absolute:
        return {"canonical": text, "absolute": False, "name": "."}
    segments = body.split("/") if body else []
    for segment in segments:
        if not segment:
            raise NotCanonical("it holds an empty segment ('//')")
        if segment in {".", ".."}:
            raise NotCanonical("it holds a '.' or '..' segment")
        if segment[-1] in ". ":
            raise NotCanonical("a segment ends with a dot or a space, which some systems drop")
    canonical = ("/" if absolute else "") + "/".join(segments)
    return {
        "canonical": canonical,
        "absolute": absolute,
        "name": segments[-1] if segments else "",
    }


def _address(text: str) -> _IP | None:
    """An IP address in its one canonical spelling; None if it is none at all."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if str(found) != text or "%" in text:
        raise NotCanonical("the IP address is not in its canonical spelling")
    if isinstance(found, ipaddress.IPv6Address) and (found.ipv4_mapped or found.sixtofour):
        raise NotCanonical("the IPv6 address hides an IPv4 address")
    return found


def _host(text: str) -> Fact:
    if text.startswith("["):
        raise NotCanonical("brackets belong into URLs only")
    found = _address(text)
    if found is not None:
        return {"canonical": text, "name": text, "ip": text}
    return _name(text)


def _name(text: str) -> Fact:
    if len(text) > 253 or not text.isascii():
        raise NotCanonical("the host is not an ASCII name (write it in Punycode)")
    if text != text.lower():
        raise NotCanonical("the host holds capital letters")
    labels = text.split(".")
    for label in labels:
        if not _LABEL.match(label):
            raise NotCanonical("the host is not a plain DNS name")
        if label.startswith("xn--"):
            _check_punycode(label)
        elif label[2:4] == "--":
            raise NotCanonical("the host has a reserved label")
    last = labels[-1]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        raise NotCanonical("the host is an IP address in an odd spelling")
    return {"canonical": text, "name": text}


def _check_punycode(label: str) -> None:
    try:
        decoded = label.encode("ascii").decode("idna")
        again = decoded.encode("idna").decode("ascii")
    except UnicodeError:
        raise NotCanonical("the host has a broken Punycode label") from None
    if again != label or decoded.isascii():
        raise NotCanonical("the host has a Punycode label that does not round-trip")


def _url(text: str) -> Fact:
    scheme = _SCHEME.match(text)
    if scheme is None or not scheme.group(2):
        raise NotCanonical("it does not begin with a lower-case scheme and '://'")
    return _hierarchical(text, scheme.group(1), scheme.end())


_MARKS: Final = frozenset("?#")


def uri(text: str) -> Fact:
    """A resource URI: like a URL, but an opaque one (``memo:insights``) is admitted as it stands,
    and a server's own scheme may put anything plain where a host would be."""
    _check_characters(text)
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise NotCanonical("it does not begin with a lower-case scheme and ':'")
    if scheme.group(2):
        if scheme.group(1) == "file" and (
            text[scheme.end() : scheme.end() + 1] != "/" or _MARKS & set(text)
        ):
            raise NotCanonical("a file URI has no host, query or fragment")
        return _hierarchical(text, scheme.group(1), scheme.end(), own=scheme.group(1) not in _PORTS)
    if scheme.group(1) in _PORTS or scheme.group(1) == "file":
        raise NotCanonical("its scheme needs '://'")
    _check_url_marks(text)
    rest = text[scheme.end() :]
    if any(segment.split(";", 1)[0] in {".", ".."} for segment in rest.split("/")):
        raise NotCanonical("it holds a '.' or '..' segment")
    opaque = {"canonical": text, "scheme": scheme.group(1), "port": 0, "path": rest, "query": ""}
    return _placed({"name": ""}, opaque)


def _check_url_marks(text: str) -> None:
    if not _URL_MARKS.match(text):
        raise NotCanonical("it holds a character that a URL must encode")
    if _ENCODED_TRICK.search(text.split("?", 1)[0]):
        raise NotCanonical("it holds a percent-encoded dot, slash or control character")
    for match in _PERCENT.finditer(text):
        digits = match.group(1) or ""
        if not re.fullmatch(r"[0-9A-F]{2}", digits):
            raise NotCanonical("a percent sign is not followed by two capital hexadecimal digits")
        if _UNRESERVED.match(chr(int(digits, 16))):
            raise NotCanonical("it percent-encodes a character that needs none")


def _hierarchical(text: str, scheme: str, start: int, *, own: bool = False) -> Fact:
    _check_url_marks(text)
    end = min(
        (at for at in (text.find(mark, start) for mark in "/?#") if at >= 0), default=len(text)
    )
    authority, rest = text[start:end], text[end:]
    if "@" in authority:
        raise NotCanonical("it holds user information before the host")
    host, port = _authority(authority, scheme, own=own)
    before_fragment = rest.split("#", 1)[0]
    path, _, query = before_fragment.partition("?")
    for segment in path.split("/")[1:-1]:
        if not segment:
            raise NotCanonical("its path holds an empty segment ('//')")
    if any(segment.split(";", 1)[0] in {".", ".."} for segment in path.split("/")):
        raise NotCanonical("its path holds a '.' or '..' segment")
    if path.startswith("//"):
        raise NotCanonical("its path begins with '//'")
    canonical = text if path or own else f"{text[:end]}/{rest}"
    found = {"canonical": canonical, "scheme": scheme, "port": port, "query": query}
    return _placed(host, {**found, "path": path or "/"})


def _authority(authority: str, scheme: str, *, own: bool) -> tuple[Fact, int]:
    if not authority:
        if scheme == "file" or own:
            return {"name": ""}, 0
        raise NotCanonical("it has no host")
    name, port = authority, ""
    literal = re.fullmatch(r"\[([0-9a-f:.]+)\](?::([0-9]+))?", authority)
    if literal:
        name, port = literal.group(1), literal.group(2) or ""
        if ":" not in name:
            raise NotCanonical("its brackets hold something else than an IPv6 address")
    elif ":" in authority:
        name, _, port = authority.partition(":")
    if ":" in authority and not port and not literal:
        raise NotCanonical("its port is empty")
    if port and (not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535):
        raise NotCanonical("its port is not a plain number")
    if port and int(port) == _PORTS.get(scheme):
        raise NotCanonical("it names the default port")
    number = int(port) if port else _PORTS.get(scheme, 0)
    if own and re.fullmatch(r"[A-Za-z0-9._{}~-]+", name):
        return {"name": name}, number
    return _host(name), number


def _placed(host: Fact, found: dict[str, Any]) -> Fact:
    """A URL's facts with those of its host."""
    found["host"] = host["name"]
    return {**found, "ip": host["ip"]} if "ip" in host else found


def _email(text: str) -> Fact:
    local, at, domain = text.rpartition("@")
    if not at or "@" in local:
        raise NotCanonical("it is not one plain address (name@domain)")
    if not _LOCAL.match(local) or len(local) > 64:
        raise NotCanonical(
            "the part before '@' holds more than letters, digits and . _ + - & ' = ~"
        )
    host = _name(domain)["name"]
    if "." not in host:
        raise NotCanonical("its domain has no dot")
    folded = local.lower()
    return {"canonical": f"{folded}@{host}", "local": folded, "domain": host}


_READERS: Final[Mapping[Kind, Callable[[str], Fact]]] = {
    Kind.PATH: _path,
    Kind.URL: _url,
    Kind.EMAIL: _email,
    Kind.HOST: _host,
}

FACT_TYPES: Final[Mapping[Kind, str]] = {
    Kind.PATH: "{canonical: String, absolute: Bool, name: String}",
    Kind.URL: (
        "{canonical: String, scheme: String, host: String, port: Long, path: String, "
        "query: String, ip?: ipaddr}"
    ),
    Kind.EMAIL: "{canonical: String, local: String, domain: String}",
    Kind.HOST: "{canonical: String, name: String, ip?: ipaddr}",
}
"""The Cedar type of ``context.path.<argument>``, ``context.url.<argument>`` and so on."""

_USE_PATH: Final = re.compile(r"\*?[/]|\.{1,2}/|~/|[\w.-]+/[\w./*-]*\Z")
_USE_PATH_TAIL: Final = re.compile(r"[\w./* ~@+-]*\Z")
_USE_URL: Final = re.compile(r"[a-z*][a-z0-9+.*-]*://")
_USE_EMAIL: Final = re.compile(r"[^@\s/]*@[\w*-]+(?:\.[\w*-]+)*\Z")


def kind_of_use(match: Match) -> Kind | None:
    """What a policy's own literal says that the argument is: ``like "/workspace/*"`` is a path."""
    if _USE_URL.match(match.literal):
        return Kind.URL
    if _USE_EMAIL.match(match.literal):
        return Kind.EMAIL
    if _USE_PATH.match(match.literal) and _USE_PATH_TAIL.match(match.literal):
        return Kind.PATH
    return None
