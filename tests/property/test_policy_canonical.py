"""Canonical forms are fixed points, and no accepted path leaves its directory."""

import posixpath
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requirements import requirement

from exeat.policy.canonical import NotCanonical, check_plain, fact, uri
from exeat.policy.model import Kind

PARTS = st.sampled_from(
    ["a", "b", ".", "..", "", "%2e", "%2E%2e", "\\", "etc", "c:", "~", "$HOME", "é", "e\u0301"]
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.lists(PARTS, max_size=6).map("/".join),
    st.lists(PARTS, max_size=6).map(lambda parts: "https://h.example/" + "/".join(parts)),
    st.lists(st.sampled_from(list("ab.@:/\\%[]#?0123456789xn-A ")), max_size=20).map(
        lambda marks: "https://" + "".join(marks)
    ),
)


@requirement("POL-9")
@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from(list(Kind)))
def test_the_canonical_form_is_a_fixed_point(text: str, kind: Kind) -> None:
    try:
        canonical = fact(kind, text)["canonical"]
    except NotCanonical:
        return
    check_plain(kind, canonical)


@requirement("POL-9")
@settings(max_examples=400, deadline=None)
@given(st.lists(PARTS, max_size=6).map(lambda parts: "/workspace/" + "/".join(parts)))
def test_no_accepted_path_leaves_its_directory(text: str) -> None:
    try:
        check_plain(Kind.PATH, text)
    except NotCanonical:
        return
    for reading in (text, unquote(text), unquote(unquote(text)), text.replace("\\", "/")):
        assert posixpath.normpath(reading) == reading


@requirement("POL-9")
@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_an_accepted_url_has_the_host_that_another_reader_sees(text: str) -> None:
    try:
        found = fact(Kind.URL, text)
    except NotCanonical:
        return
    other = urlsplit(text)
    assert (other.hostname, other.username) == (found["host"] or None, None)
    assert other.scheme == found["scheme"]


@requirement("POL-9")
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.URL, "https://good.example@evil.example/"),
        (Kind.URL, "https://good.example\\@evil.example/"),
        (Kind.URL, "HTTPS://good.example/"),
        (Kind.URL, "https://Good.example/"),
        (Kind.URL, "https://good.example./"),
        (Kind.URL, "https://good.example"),
        (Kind.URL, "https://good.example:443/"),
        (Kind.URL, "https://good.example:0443/"),
        (Kind.URL, "https://2130706433/"),
        (Kind.URL, "https://[a]/"),
        (Kind.URL, "https://[dead.beef]/"),
        (Kind.URL, "https://[1.2.3.4]/"),
        (Kind.URL, "https://127.1/"),
        (Kind.URL, "https://0x7f.0.0.1/"),
        (Kind.URL, "https://0177.0.0.1/"),
        (Kind.URL, "https://[::ffff:127.0.0.1]/"),
        (Kind.URL, "https://[0:0:0:0:0:0:0:1]/"),
        (Kind.URL, "https://good.example/a/../b"),
        (Kind.URL, "https://good.example/a%2e%2e/b"),
        (Kind.URL, "https://good.example/%61"),
        (Kind.URL, "https://good.example/%7e"),
        (Kind.URL, "https://g\u043eod.example/"),
        (Kind.URL, "https://good\u3002example/"),
        (Kind.URL, "https://good.example/\t"),
        (Kind.URL, "javascript:alert(1)"),
        (Kind.EMAIL, "Ada <ada@good.example>"),
        (Kind.EMAIL, "ada@good.example,eve@evil.example"),
        (Kind.EMAIL, '"a@evil.example"@good.example'),
        (Kind.EMAIL, "ada%evil.example@good.example"),
        (Kind.EMAIL, "ada@GOOD.example"),
        (Kind.EMAIL, "ada@good.example."),
        (Kind.EMAIL, "ada@[127.0.0.1]"),
        (Kind.HOST, "good.example."),
        (Kind.HOST, "good.example:80"),
        (Kind.HOST, "127.1"),
        (Kind.HOST, "xn--a"),
    ],
)
def test_what_two_readers_take_differently_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(NotCanonical):
        check_plain(kind, text)


@requirement("POL-9")
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.PATH, "/"),
        (Kind.PATH, "/workspace/a b/été.txt"),
        (Kind.PATH, "docs/index.md"),
        (Kind.PATH, "."),
        (Kind.URL, "https://good.example/a?q=%20#top"),
        (Kind.URL, "http://127.0.0.1:8080/"),
        (Kind.URL, "https://[::1]/"),
        (Kind.URL, "https://xn--bcher-kva.example/"),
        (Kind.EMAIL, "ada+list@good.example"),
        (Kind.HOST, "good.example"),
        (Kind.HOST, "::1"),
    ],
)
def test_what_is_plain_is_accepted(kind: Kind, text: str) -> None:
    check_plain(kind, text)


@requirement("POL-9")
def test_resource_uris_of_servers_own_schemes() -> None:
    for text in ("file:///x/y", "memo:insights", "test://static-text", "repo://o/n/{id}"):
        assert uri(text)["canonical"] == text
    for text in ("file:///x/../y", "file:///x/%2e%2e/y", "memo:../x", "no-scheme", "a://[a]"):
        with pytest.raises(NotCanonical):
            uri(text)
