"""What upstreams and their authorization servers may say, in every spelling: challenges, URLs and consent
links are read or refused, nothing raises, and nothing leads inside (ID-9, GW-10)."""

import os
import random

from fuzz.test_fuzz_tokens import mangled
from requirements import requirement

from exeat.adapters.consent_links import ConsentLinks, Wish
from exeat.adapters.destinations import AllowList, FetchRefused, check_addresses, destination
from exeat.identity.upstream.challenge import HEADER_MAX_CHARS, read_challenge, scopes_of
from exeat.identity.upstream.rules import covers

EXECUTIONS = int(os.environ.get("EXEAT_FUZZ_EXECUTIONS", "15000"))
HEADERS = (
    'Bearer realm="x", error="insufficient_scope", scope="a b:c", resource_metadata="https://m.example/x"',
    'Basic realm="a, b", Bearer scope=mcp:basic, DPoP algs="ES256"',
    r'Negotiate YWJj==, Bearer error="a\"b\\", scope="c"',
)
URLS = (
    "https://m.example/mcp", "https://m.example:8443/a?b=c", "https://[2606:4700::1111]/", "https://1.1.1.1/",
    "https://127.0.0.1/", "https://0x7f.1/", "https://user@m.example/", "http://m.example/",
)  # fmt: skip
INSIDE = ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1")


@requirement("ID-9", "GW-10")
def test_challenges_urls_and_links_in_every_spelling() -> None:
    dice, nobody = random.Random(9), AllowList()
    links = ConsentLinks(bytes(32), lambda: 1_700_000_000_000_000_000)
    good = links.seal(Wish("drive", "bot/ann", ("a",), ""))
    for _ in range(EXECUTIONS):
        found = read_challenge(mangled(dice.choice(HEADERS), dice))
        assert all(scopes_of(scope) == (scope,) for scope in found.scopes)
        url = mangled(dice.choice(URLS), dice)
        covers(url, "https://m.example/mcp")
        try:
            where = destination(url, nobody)
        except FetchRefused:
            continue
        assert where.https and "@" not in where.authority
        for address in (*INSIDE, *([str(where.literal)] if where.literal else [])):
            try:
                check_addresses(where, [address], nobody)
            except FetchRefused:
                continue
            assert address not in INSIDE
    for _ in range(EXECUTIONS // 20):
        spoilt = mangled(good, dice)
        assert links.open(spoilt) is None or spoilt == good


@requirement("ID-9")
def test_a_long_header_takes_no_long_time() -> None:
    """Quadratic reading of what a server sends would hold up everybody: bounded by length, and by what is
    looked at."""
    for text in (
        'a="',
        "a=b," * 3000,
        "a " * 5000,
        '"' * 8000,
        "\\" * 8000,
        'Bearer a="' + "\\" * 8000,
    ):
        read_challenge(text)
    assert HEADER_MAX_CHARS == 8192
