"""What the used values of one argument have in common, as a Cedar condition (POL-6, ``suggest``).  Pure.

A literal is only ever a number, a boolean, a word of the schema, a short identifier, or a part of a path,
URL, host or address that plainly denotes it.  Free text and whatever could be a secret is never written.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from exeat.policy.canonical import NotCanonical, fact
from exeat.policy.model import Kind
from exeat.policy.schema import Attribute, CedarType, Record, Scalar, SetOf, Tagged, quoted

SET_MAX: Final = 20
WORDS_MAX: Final = 5
REPEATS_MIN: Final = 3
"""How often a text must be repeated to be taken for a word of a closed set."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEYWORDS: Final = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has"})
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._ @+-]{1,64}\Z")
_SECRETIVE: Final = re.compile(
    r"pass|secret|token|key|auth|credential|cookie|session|otp|pin\Z|signature", re.IGNORECASE
)
_PREFIXED: Final = re.compile(
    r"(sk|pk|rk|gh[pousr]|github_pat|glpat|xox[abpr]|AKIA|ASIA|AIza|eyJ|hf|npm|pypi)[-_A-Z0-9]",
    re.ASCII,
)
_PLACEHOLDERS: Final[dict[Kind, str]] = {
    Kind.PATH: "/x",
    Kind.URL: "https://example.com/",
    Kind.EMAIL: "someone@example.com",
    Kind.HOST: "example.com",
}
ABSENT: Final = object()
_LONG_MAX: Final = 2**63 - 1
_DECIMAL_MAX: Final = 900_000_000_000_000


@dataclass(frozen=True, slots=True)
class Bound:
    """``condition``: Cedar text, empty if the argument is free.  ``inside``, ``outside``: made-up values
    for cases; ABSENT: there is none."""

    condition: str = ""
    inside: Any = ABSENT
    outside: Any = ABSENT


def bound_of(name: str, attribute: Attribute, values: Sequence[Any]) -> Bound:
    """``values``: one per call; None where it was absent."""
    given = [value for value in values if value is not None]
    if not given:
        if attribute.required:
            return Bound()
        return Bound(f"!({_has('input', name)})", ABSENT, placeholder(attribute.type))
    found, fact_of = _bound(name, attribute.type, given)
    inside = found.inside if found.inside is not ABSENT else placeholder(attribute.type)
    if attribute.required or not found.condition:
        return Bound(found.condition, inside, found.outside)
    guard = _has(fact_of, name)
    if len(given) == len(values):
        return Bound(f"{guard} && {found.condition}", inside, found.outside)
    return Bound(f"(if {guard} then {found.condition} else true)", inside, found.outside)


def _bound(name: str, of: CedarType, given: Sequence[Any]) -> tuple[Bound, str]:
    """The condition, and the part of the context that it reads."""
    here = at("input", name)
    if isinstance(of, SetOf):
        return _elements(here, of, given), "input"
    if not isinstance(of, Scalar):
        return Bound(), "input"
    if of.name == "Bool":
        return _flag(here, given), "input"
    if of.name in ("Long", "decimal"):
        return _number(here, of.name, given), "input"
    if of.vocabulary is not None:
        return _words(here, {str(each) for each in given}, of.vocabulary), "input"
    kind = of.kind or _kind(given)
    if kind is not None:
        return _kinds(kind, name, given), kind.value
    return _text(name, here, given), "input"


def _flag(here: str, given: Sequence[Any]) -> Bound:
    if len(set(given)) != 1:
        return Bound()
    value = bool(given[0])
    return Bound(f"{here} == {str(value).lower()}", value, not value)


def _number(here: str, kind: str, given: Sequence[Any]) -> Bound:
    least, most = min(given), max(given)
    low = min(least, 0)
    if kind == "Long":
        if not -_LONG_MAX <= least <= most < _LONG_MAX:
            return Bound()
        return Bound(f"{here} <= {most} && {here} >= {low}", most, most + 1)
    if not all(map(_decimal, given)):
        return Bound()  # a policy that read such a number would deny
    texts = [_decimal(most), _decimal(low)]
    condition = (
        f'{here}.lessThanOrEqual(decimal("{texts[0]}"))'
        f' && {here}.greaterThanOrEqual(decimal("{texts[1]}"))'
    )
    return Bound(condition, Decimal(most), Decimal(most) + 1)


def _decimal(value: Any) -> str:
    """Cedar's four places; empty if the value has more, or is too large."""
    if abs(Decimal(value)) > _DECIMAL_MAX:
        return ""
    fixed = Decimal(value).quantize(Decimal("0.0001"))
    if fixed != Decimal(value):
        return ""
    whole, _, places = f"{fixed:f}".partition(".")
    return f"{whole}.{places.rstrip('0') or '0'}"


def _words(here: str, words: Collection[str], vocabulary: Collection[str]) -> Bound:
    others = sorted(set(vocabulary) - set(words))
    if len(words) > SET_MAX or not others:
        return Bound(inside=sorted(words)[0])
    return Bound(_any(here, words), sorted(words)[0], others[0])


def _elements(here: str, of: SetOf, given: Sequence[Any]) -> Bound:
    element = of.element
    if not isinstance(element, Scalar) or element.vocabulary is None:
        return Bound()
    words = sorted({str(each) for several in given for each in several})
    others = sorted(element.vocabulary - set(words))
    if not words or not others or len(words) > SET_MAX:
        return Bound()
    listed = ", ".join(map(quoted, words))
    return Bound(f"[{listed}].containsAll({here})", words[:1], others[:1])


def _text(name: str, here: str, given: Sequence[Any]) -> Bound:
    """Repeated short identifiers are a closed set; anything else is free text."""
    words = {str(each) for each in given}
    if _SECRETIVE.search(name) or len(words) > WORDS_MAX:
        return Bound()
    if len(given) < REPEATS_MIN * len(words) or not all(map(_harmless, words)):
        return Bound()
    return Bound(_any(here, words), sorted(words)[0], f"{sorted(words)[0]}-other")


def _harmless(word: str) -> bool:
    """An identifier, and none that looks like a key: those mix digits and letters at length."""
    if not _WORD.match(word) or _PREFIXED.match(word):
        return False
    runs = re.findall(r"[A-Za-z0-9]{12,}", word)
    return not any(re.search(r"[0-9]", run) and re.search(r"[A-Za-z]", run) for run in runs)


def _kind(given: Iterable[Any]) -> Kind | None:
    """What all values plainly are, though neither schema nor name says so."""
    for kind, mark in ((Kind.URL, "://"), (Kind.EMAIL, "@"), (Kind.PATH, "/")):
        if all(mark in str(each) for each in given) and (
            kind is not Kind.PATH or all(str(each).startswith("/") for each in given)
        ):
            return kind if _facts(kind, given) else None
    return None


def _facts(kind: Kind, given: Iterable[Any]) -> list[dict[str, Any]]:
    """Canonical facts of every value; empty if one has none: a policy that read it would deny."""
    try:
        return [dict(fact(kind, str(each))) for each in given]
    except NotCanonical:
        return []


def _kinds(kind: Kind, name: str, given: Sequence[Any]) -> Bound:
    facts = _facts(kind, given)
    if not facts:
        return Bound()
    here = at(kind.value, name)
    if kind is Kind.PATH:
        return _paths(here, sorted({str(each["canonical"]) for each in facts}))
    if kind is Kind.EMAIL:
        made: Callable[[str], str] = "someone@{}".format
        return _set(f"{here}.domain", {str(each["domain"]) for each in facts}, made)
    if kind is Kind.HOST:
        return _set(f"{here}.name", {str(each["name"]) for each in facts}, str)
    schemes = {str(each["scheme"]) for each in facts}
    hosts = _set(f"{here}.host", {str(each["host"]) for each in facts}, "https://{}/".format)
    if not hosts.condition:
        return Bound()
    inside = str(hosts.inside).replace("https", sorted(schemes)[0])
    outside = str(hosts.outside).replace("https", sorted(schemes)[0])
    return Bound(f"{_any(f'{here}.scheme', schemes)} && {hosts.condition}", inside, outside)


def _set(here: str, names: Collection[str], made: Callable[[str], str]) -> Bound:
    if len(names) > SET_MAX or not all(names):
        return Bound()
    return Bound(_any(here, names), made(sorted(names)[0]), made("outside.example"))


def _paths(here: str, paths: Sequence[str]) -> Bound:
    """The directory that all of them lie in, as far as its name may be written."""
    absolute = paths[0].startswith("/")
    if any(each.startswith("/") is not absolute for each in paths):
        return Bound()
    split = [each.strip("/").split("/") for each in paths]
    common = _common(split)
    if not common:
        if absolute or any(len(each) < 2 for each in split):
            return _files(here, paths)
        return Bound(f"{here}.absolute == false", "x", "/outside/x")
    lead = "/" if absolute else ""
    folder = lead + "/".join(common)
    below = f"{here}.canonical like {_pattern(folder)}"
    if folder in paths:
        below = f"({here}.canonical == {quoted(folder)} || {below})"
    return Bound(below, f"{folder}/x", f"{lead}outside/x")


def _common(split: Sequence[Sequence[str]]) -> list[str]:
    """Leading segments that all share; of one path alone, its directory."""
    parents = split if len(split) > 1 else [split[0][:-1] or split[0][:0]]
    found = []
    for level in zip(*parents, strict=False):
        if len(set(level)) != 1 or not _SEGMENT.match(level[0]) or not _nameable(level[0]):
            break
        found.append(level[0])
    return found


def _nameable(segment: str) -> bool:
    return all(_harmless(word) for word in re.split(r"[ @+]", segment.strip(".")) if word)


def _files(here: str, paths: Sequence[str]) -> Bound:
    """They share no directory: the first directory of each, if those are few; else nothing."""
    tops = {each.strip("/").split("/")[0] for each in paths if "/" in each.strip("/")}
    alone = {each for each in paths if "/" not in each.strip("/")}
    names = tops | {each.strip("/") for each in alone}
    if len(names) > WORDS_MAX or not all(each and _nameable(each) for each in names):
        return Bound()
    lead = "/" if paths[0].startswith("/") else ""
    parts = [f"{here}.canonical == {quoted(each)}" for each in sorted(alone)]
    parts += [f"{here}.canonical like {_pattern(lead + each)}" for each in sorted(tops)]
    inside = sorted(alone)[0] if alone else f"{lead}{sorted(tops)[0]}/x"
    return Bound(f"({' || '.join(parts)})", inside, f"{lead}outside/x")


def _pattern(folder: str) -> str:
    return quoted(folder)[:-1].replace("*", "\\*") + '/*"'


def _any(here: str, words: Iterable[str]) -> str:
    parts = [f"{here} == {quoted(word)}" for word in sorted(words)]
    return parts[0] if len(parts) == 1 else f"({' || '.join(parts)})"


def at(part: str, name: str) -> str:
    return f"context.{part}.{name}" if _is_name(name) else f"context.{part}[{quoted(name)}]"


def _has(part: str, name: str) -> str:
    return f"context.{part} has {name if _is_name(name) else quoted(name)}"


def _is_name(name: str) -> bool:
    return bool(_NAME.match(name)) and name not in _KEYWORDS


def placeholder(of: CedarType) -> Any:
    """A made-up value that says nothing; ABSENT if there is none."""
    if isinstance(of, SetOf):
        return []
    if isinstance(of, Record):
        return ABSENT if any(each.required for each in of.attributes.values()) else {}
    if isinstance(of, Tagged):
        return placeholder(next(iter(of.options.values())))
    if of.vocabulary is not None:
        return sorted(of.vocabulary)[0] if of.vocabulary else ABSENT
    if of.name == "String":
        return _PLACEHOLDERS[of.kind] if of.kind is not None else "text"
    return False if of.name == "Bool" else 0
