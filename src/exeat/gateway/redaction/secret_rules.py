"""Secrets in text: keys of known shape, headers, addresses with a password, and values named as secret.

The shapes are those that the issuers document; what has no shape is taken for a secret by its name, and
then only if it is no reference, no word of a sentence and no piece of a program.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from exeat.gateway.redaction.checks import entropy
from exeat.gateway.redaction.spans import Match, Span, marked

SECRET: Final = "secret"  # noqa: S105 - the name of a detector
PEM: Final = (
    r"-----?\s?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?\s?-----?"
    r"(?:[^\x00]*?-----?\s?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?\s?-----?|[\sA-Za-z0-9+/=:,\-\\]*)"
)
SHAPES: Final = (
    r"(?:\b|_)(?:"
    + "|".join(
        (
            r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
            r"AIza[0-9A-Za-z_\-]{35,}",
            r"ya29\.[0-9A-Za-z_\-]{20,}",
            r"GOCSPX-[0-9A-Za-z_\-]{20,}",
            r"1//0[0-9A-Za-z_\-]{30,}",
            r"gh[pousr]_[0-9A-Za-z]{20,}",
            r"github_pat_[0-9A-Za-z_]{20,}",
            r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[0-9A-Za-z_.\-]{18,}",
            r"xox[abceoprs](?:\.xox[bp])?-[0-9A-Za-z\-]{10,}",
            r"xapp-[0-9]-[0-9A-Za-z\-]{10,}",
            r"(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{10,}",
            r"whsec_[0-9A-Za-z+/=]{20,}",
            r"sk-(?:proj|svcacct|admin|or-v1|lf|ant-[a-z0-9]{2,12})-[0-9A-Za-z_\-]{16,}",
            r"sk-[0-9A-Za-z]{20,}",
            r"hf_[0-9A-Za-z]{20,}",
            r"npm_[0-9A-Za-z]{30,}",
            r"pypi-AgE[0-9A-Za-z_\-]{30,}",
            r"SG\.[0-9A-Za-z_\-]{16,}\.[0-9A-Za-z_\-]{16,}",
            r"SK[0-9a-f]{32}\b",
            r"key-[0-9a-f]{32}\b",
            r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
            r"do[opr]_v1_[0-9a-f]{64}",
            r"dckr_pat_[0-9A-Za-z_\-]{20,}",
            r"(?:lin_api|ntn|figd|gsk|r8|sbp|glsa|nvapi|pplx|tvly|fc)[_-][0-9A-Za-z_\-]{24,}",
            r"secret_[0-9A-Za-z]{43}\b",
            r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",
            r"sntry[su]_[0-9A-Za-z+/=_\-]{20,}",
            r"hv[sbr]\.[0-9A-Za-z_\-]{24,}",
            r"rubygems_[0-9a-f]{48}",
            r"dapi[0-9a-f]{32}\b",
            r"xkeysib-[0-9a-f]{64}",
            r"AT(?:ATT3x|BB|CTT3x)[0-9A-Za-z_\-=]{20,}",
            r"[0-9]{8,10}:AA[0-9A-Za-z_\-]{33}",
            r"EAA[0-9A-Za-z]{80,}",
            r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
            r"exk_[0-9A-Za-z]{43}",
            r"(?:eyJ|ewog)[0-9A-Za-z_\-]{8,}(?:\.[0-9A-Za-z_\-]*){2,4}",
            r"hooks\.slack\.com/(?:services|workflows|triggers)/[0-9A-Za-z/_\-]{16,}",
            r"discord(?:app)?\.com/api/webhooks/[0-9]{10,}/[0-9A-Za-z_\-]{20,}",
        )
    )
    + r")|\b[0-9A-Za-z_~.\-]{3}8Q~[0-9A-Za-z_~.\-]{31,34}|\bsig=[0-9A-Za-z%/+]{40,}={0,2}"
)
"""AWS, Google, GitHub, GitLab, Slack, Stripe, OpenAI, Anthropic and others; exeat's own; JWT and JWE."""

LOOSE_SK: Final = r"\bsk-[0-9A-Za-z_\-]{24,}"
HEADER: Final = (
    r"(?i)\bauthorization[\"'\]]{0,2}\s{0,2}[:=]\s{0,2}[\"']?(?:basic|bearer|token|negotiate|apikey|key|"
    r"dpop|gnap)\s+([^\s\"',;\x00]{6,})"
    r"|\bauthorization[\"'\]]{0,2}\s{0,2}[:=]\s{0,2}[\"']?(?:digest|hawk|aws4-hmac-sha256)\s+([^\n\x00]{6,})"
    r"|\b(?:bearer|dpop)\s{1,2}([0-9a-z\-._~+/]{16,}=*)"
    r"|\bbasic\s{1,2}([0-9a-z+/]{12,}={0,2})"
    r"|\b(?:set-)?cookie:\s{0,2}([^\s=;\x00]{1,80}=[^\n\x00]{6,})"
)
ADDRESS: Final = (
    r"(?i)[a-z][a-z0-9+.\-]{1,20}://(?:[^\s/:@\"'<>\x00]{0,120}:([^\s/@\"'<>\x00]+)@"
    r"|([^\s/:@\"'<>?#\x00]{16,})@)"
)
_STRONG: Final = r"pass(?:word|wd|phrase|code)s?|pwd"
_WEAK: Final = (
    r"secrets?|tokens?|(?:api|access|private|secret|auth|encryption|signing|master|shared|account|"
    r"license|session|service|webhook)[_\- ]?keys?|credentials?|jwt|connection[_\-]?string"
)
_SUFFIX: Final = r"(?:[_\-](?:prod|production|dev|test|staging|live|value|old|new|[0-9]{1,2}))?"
_VALUE: Final = r"(?:\"([^\"\\\n\x00]+)|'([^'\\\n\x00]+)|`([^`\n\x00]+)|([^\s\"'`,;&<>\\\x00]+))"
NAMED: Final = (
    rf"(?i)({_STRONG}|{_WEAK}){_SUFFIX}"
    r"\\?[\"'`]?\]?(?:\s{1,2}is)?\s{0,3}(?:=>|:=|={1,3}|:)\s{0,3}\\?" + _VALUE
)
OPTION: Final = rf"(?i)--[a-z0-9\-]{{0,40}}({_STRONG}|{_WEAK}) {{1,2}}" + _VALUE
ELEMENT: Final = (
    rf"(?i)<(?:[a-z0-9_.:\-]{{0,40}})({_STRONG}|{_WEAK})"
    r"(?:\s[^<>\x00]{0,80})?>\s*([^<>\s\x00]+)\s*</"
)
_NAME: Final = re.compile(
    rf"(?:^|[_\-.]|[a-z0-9])(?P<kind>{_STRONG}|{_WEAK})"
    r"(?:[_\-](?:prod|production|dev|test|staging|live|value|old|new|\d{1,2}))?$",
    re.I,
)
_STRONG_NAME: Final = re.compile(rf"(?:{_STRONG})$", re.I)
_PAGING: Final = re.compile(
    r"(?:next|prev|previous|page|paging|pagination|continuation|continue|sync|progress|resume|delta|"
    r"start|start(?:ing)?|max|min|num|n|total|input|output|prompt|completion|cached|reasoning|eos|bos|pad)"
    r"[_\-.]?(?:page[_\-.]?)?$",
    re.I,
)
"""What stands before ``token`` where it is no secret: places in a list, and counts of a model."""
_REFERENCE: Final = re.compile(
    r"\$\{.*|\$\(.*|\$[A-Za-z_]\w*|%[A-Za-z_]\w*%|\{\{.*|\{[\w.]*\}|%[sd(].*|<.*|\[.*|\*+|[xX]{3,}|\.{3,}.*|_+"
    r"|(?:process\.env|os\.environ|os\.getenv|env|secrets?|vars?|self|this|config|settings|args|"
    r"request|ctx|params|data|options|opts|vault|secretKeyRef|valueFrom)[.:\[(].*|arn:.*|projects/.*"
    r"|.*\(.*|[\w]+\[.*|!.*",
    re.S,
)
_WORDS: Final = frozenset(
    """
    str string text none null nil undefined true false yes no on off bool boolean int integer number
    bytes object any optional required hidden empty unset set value values var type is was are must
    should can cannot could will would has have may might not the a an and or of to for from in with
    your my our their this that these it its be been by at as if when where which who than then
    please enter choose use using incorrect invalid missing ok okay wrong expired changed reset
    updated enabled disabled protected stored encrypted hashed plain default example changeme? todo
    tbd n/a na redacted masked removed withheld unknown denied accepted verified success successful
    failed failure error ask prompt stdin env file authentication authorization based auth basic
    bearer mismatch policy length field input verification
    """.split()  # noqa: SIM905
)
"""What stands behind the name of a secret in a sentence, a schema or a form, and is none."""


def known(_: str, match: Match) -> Iterator[Span]:
    yield match.span()


def loose(text: str, match: Match) -> Iterator[Span]:
    """``sk-`` and anything: also how style sheets name things, so it must look like chance."""
    start, end = match.span()
    value = text[start + 3 : end]
    if _mixed(value) and entropy(value) > 3.7 and any(each.isupper() for each in value):
        yield start, end


def header(text: str, match: Match) -> Iterator[Span]:
    for group in (1, 2):
        start, end = match.span(group)
        if start >= 0 and not _REFERENCE.fullmatch(text[start:end]):
            yield start, end
    for group in (3, 4):
        start, end = match.span(group)
        if start >= 0 and _mixed(text[start:end]):
            yield start, end
    start, end = match.span(5)
    if start >= 0 and not is_removed(text[start:end]):
        yield start, end


def address(text: str, match: Match) -> Iterator[Span]:
    start, end = match.span(1)
    if start >= 0:
        if not _REFERENCE.fullmatch(text[start:end]):
            yield start, end
        return
    start, end = match.span(2)
    if _mixed(text[start:end]) and entropy(text[start:end]) > 3:
        yield start, end


def named(text: str, match: Match) -> Iterator[Span]:
    kind = match.group(1) or ""
    start, end = _value(match)
    quoted = match.start(5) < 0
    value = text[start:end]
    if not quoted:
        value = value.rstrip(".!?)]}")
        end = start + len(value)
    before = text[max(match.start() - 40, 0) : match.start()]
    if before[-1:].isascii() and before[-1:].islower() and text[match.start()].islower():
        return  # the end of a longer word
    if marked(text, match.start()):
        return
    if _PAGING.search(before) and not _STRONG_NAME.fullmatch(kind):
        return
    if not value or not secret_value(kind, value, quoted=quoted):
        return
    if not quoted and "=" not in text[match.end(1) : start] and _in_sentence(text, end, value):
        return
    yield start, end


def element(text: str, match: Match) -> Iterator[Span]:
    start, end = match.span(2)
    if secret_value(match.group(1) or "", text[start:end], quoted=True):
        yield start, end


def _value(match: Match) -> Span:
    for group in (2, 3, 4, 5):
        start, end = match.span(group)
        if start >= 0:
            return start, end
    return match.span()


def _in_sentence(text: str, end: int, value: str) -> bool:
    """``password: something that follows``: a word, and then more of them."""
    rest = text[end : end + 2]
    plain = value.isalpha() and (value.islower() or value.istitle())
    return plain and rest[:1] == " " and rest[1:2].isalpha()


@lru_cache(maxsize=4096)
def names_secret(name: str) -> str:
    """The part of a member's name that says so, or empty."""
    found = _NAME.search(name)
    if found is None or (
        _PAGING.search(name[: found.start("kind")]) and not _STRONG_NAME.fullmatch(found["kind"])
    ):
        return ""
    return found["kind"]


_MARKS: Final = re.compile(r"\[redacted:[a-z]+\]")


def secret_value(kind: str, value: str, *, quoted: bool) -> bool:
    """Whether what stands under such a name is one."""
    value = value.strip()
    if "[redacted:" in value and not re.search(r"\w", _MARKS.sub("", value)):
        return False
    if is_removed(value) or _REFERENCE.fullmatch(value) or value.casefold() in _WORDS:
        return False
    if _STRONG_NAME.fullmatch(kind):
        return _password(kind, value, quoted=quoted)
    if " " in value or len(value) < 8 or "://" in value or value.startswith(("/", "./", "~")):
        return False
    if not value.isascii() or re.fullmatch(r"[\d.,:\-+eE]+", value):
        return False
    if _mixed(value):
        return entropy(value) > 2.5 and not re.fullmatch(
            r"[a-z]+(?:[-_.][a-z]+)*[-_.]?v?\d{1,4}", value
        )
    return len(value) >= 20 and value.isalnum() and entropy(value) > 3.5 and _both_cases(value)


def _password(kind: str, value: str, *, quoted: bool) -> bool:
    if len(value) < 3 or _NAME.search(value):
        return False
    if quoted:
        first = value.split(" ", 1)[0].casefold()
        phrase = "phrase" in kind.casefold() or any(each.isdigit() for each in value)
        return " " not in value or (phrase and first not in _WORDS)
    return not re.fullmatch(r"[A-Za-z_]\w*\.[A-Za-z_][\w.]*", value)


def _mixed(value: str) -> bool:
    return any(each.isdigit() for each in value) and any(each.isalpha() for each in value)


def _both_cases(value: str) -> bool:
    return not (value.islower() or value.isupper() or value.istitle())


def is_removed(value: str) -> bool:
    """What we, or someone before us, put in the place of a value."""
    return value.startswith(("[redacted", "[withheld", "redacted-")) or not value.strip("*xX0.-+ ")


def strong(kind: str) -> bool:
    """A password by its name: whatever stands there is one."""
    return _STRONG_NAME.fullmatch(kind) is not None
