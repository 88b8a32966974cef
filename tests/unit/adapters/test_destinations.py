"""GW-10: the URLs and addresses that are never called on someone's word."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.adapters.destinations import (
    AllowList,
    FetchRefused,
    check_addresses,
    destination,
    is_public,
)

NOBODY = AllowList()


@requirement("GW-10")
@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/",
        "ftp://idp.example/",
        "file:///etc/passwd",
        "gopher://idp.example/",
        "javascript:alert(1)",
        "data:application/json,{}",
        "//idp.example/",
        "idp.example",
        "",
        "https://",
        "https:///path",
        "https://user@idp.example/",
        "https://user:secret@idp.example/",
        "https://user:secret@idp.example\\x/",
        "https://user:secret/@idp.example /?x=secret",
        "https://idp.example@169.254.169.254/",
        "https://idp.example/#part",
        "https://idp.example/#",
        "https://idp.example:0/",
        "https://idp.example:/",
        "https://idp.example:65536/",
        "https://idp.example:443443/",
        "https://idp.example:+443/",
        "https://idp.example:x/",
        "https://idp.example:22/",
        "https://idp.example:25/",
        "https://[::1]x/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://idp.example\\@evil.example/",
        "https://idp.exa\tmple/",
        "https://idp.example/\r\nx: y",
        "https://idp.example/ x",
        "https://ｌｏｃａｌｈｏｓｔ/",
        "https://еxample.com/",
        "https://127。0。0。1/",
        "https://①②⑦.0.0.1/",
        "https://idp%2eexample/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.1/",
        "https://127.0.0.1.5/",
        "https://127.0.0.256/",
        "https://idp.example.0x1/",
        "https://-idp.example/",
        "https://idp..example/",
        "https://.idp.example/",
        "https://idp.example../",
        f"https://{'a' * 64}.example/",
        f"https://idp.example/{'a' * 2048}",
    ],
)
def test_a_url_that_is_not_plainly_https_is_refused(url: str) -> None:
    with pytest.raises(FetchRefused) as refused:
        destination(url, NOBODY)
    assert "secret" not in str(refused.value)


@requirement("GW-10")
@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://IdP.Example/", "idp.example"),
        ("HTTPS://idp.example./", "idp.example"),
        ("https://idp.example:443/", "idp.example"),
        ("https://idp.example:8443/x?y=z", "idp.example:8443"),
        ("https://xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]:8443"),
        ("https://1.1.1.1/", "1.1.1.1"),
    ],
)
def test_a_plain_https_url_is_read_in_one_way(url: str, authority: str) -> None:
    assert destination(url, NOBODY).authority == authority


@requirement("GW-10")
def test_what_an_operator_listed_may_be_called_by_http_and_nothing_else() -> None:
    allow = AllowList(
        frozenset({"idp.internal", "cache.internal:81", "10.1.0.0/16", "::1", "[::1]:9"})
    )
    for url in (
        "http://idp.internal/", "http://IDP.internal.:8080/", "http://cache.internal:81/",
        "http://10.1.2.3/", "http://[::1]/", "http://[::1]:9/",
    ):  # fmt: skip
        destination(url, allow)
    for url in (
        "http://cache.internal/", "http://cache.internal:82/", "http://10.2.0.1/",
        "http://x.idp.internal/", "http://idp.internal.evil.example/", "https://idp.internal:22/",
    ):  # fmt: skip
        with pytest.raises(FetchRefused):
            destination(url, allow)


@requirement("GW-10")
@pytest.mark.parametrize(
    "entry", ["", "a b", "*.example", "host:x", "10.0.0.0/99", "https://idp.example", "a:"]
)
def test_a_malformed_entry_of_the_list_is_refused(entry: str) -> None:
    with pytest.raises(ValueError):
        AllowList(frozenset({entry}))


_INSIDE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "255.255.255.255",
    "240.0.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "168.63.129.16", "192.88.99.1",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "fe80::1", "fe80::1%eth0",
    "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "100::1", "5f00::1", "4000::1",
]  # fmt: skip


@requirement("GW-10")
@pytest.mark.parametrize("address", _INSIDE)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    found = destination("https://idp.example/", NOBODY)
    with pytest.raises(FetchRefused, match="not a public address"):
        check_addresses(found, [address], NOBODY)


@requirement("GW-10")
@pytest.mark.parametrize("inside", _INSIDE)
def test_one_address_that_is_not_public_spoils_the_name(inside: str) -> None:
    found = destination("https://idp.example/", NOBODY)
    for mixed in (["1.1.1.1", inside], [inside, "2606:4700::1111"]):
        with pytest.raises(FetchRefused):
            check_addresses(found, mixed, NOBODY)
    assert len(check_addresses(found, ["1.1.1.1", "2606:4700::1111"], NOBODY)) == 2


@requirement("GW-10")
def test_a_name_without_address_or_with_nonsense_is_refused() -> None:
    found = destination("https://idp.example/", NOBODY)
    for addresses in ([], ["localhost"], ["1.1.1.1 "], ["0x7f.1"]):
        with pytest.raises(FetchRefused):
            check_addresses(found, addresses, NOBODY)


@requirement("GW-10")
def test_the_list_by_host_by_host_and_port_and_by_network() -> None:
    def allowed(url: str, address: str, *entries: str) -> bool:
        allow = AllowList(frozenset(entries))
        try:
            return bool(check_addresses(destination(url, allow), [address], allow))
        except FetchRefused:
            return False

    assert allowed("https://idp.internal/", "10.0.0.1", "idp.internal")
    assert allowed("https://idp.internal:8443/", "10.0.0.1", "IDP.internal:8443")
    assert allowed("https://any.example/", "10.0.0.1", "10.0.0.0/8")
    assert not allowed("https://idp.internal:8444/", "10.0.0.1", "idp.internal:8443")
    assert not allowed("https://any.example/", "10.0.0.1", "idp.internal")
    assert not allowed("https://any.example/", "192.168.0.1", "127.0.0.0/8")
    assert not allowed("https://any.example/", "127.0.0.1", "localhost")
    assert not allowed("https://any.example/", "::ffff:10.0.0.1", "10.0.0.0/8")
    for nobody in ("0.0.0.0", "::", "224.0.0.1", "ff02::1"):
        assert not allowed("https://idp.internal/", nobody, "idp.internal")


@requirement("GW-10")
@given(
    st.text(max_size=60) | st.text("htps:/@[].%#?\\0x17f:abc", max_size=40).map("https://".__add__)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = destination(text, NOBODY)
    except FetchRefused:
        return
    assert found.https and found.host.isascii() and "@" not in found.authority
    assert destination(f"https://{found.authority}{found.target}", NOBODY) == found


@requirement("GW-10")
@given(st.ip_addresses())
def test_no_address_within_a_special_network_counts_as_public(
    address: ipaddress.IPv4Address,
) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        assert not is_public(address)
