"""What the detectors must find, and what they must leave alone (POL-9)."""

import pytest
from requirements import requirement

from exeat.gateway.redaction.checks import card, country_code, entropy, iban, luhn
from exeat.gateway.redaction.detectors import (
    DETECTORS,
    RULES,
    STEPS_MAX,
    Finder,
    Unsearchable,
    finder,
    mark,
)
from exeat.gateway.redaction.fold import folded

ALL = finder(frozenset(DETECTORS))
CUT = "~"
"""Stands in the shapes of keys, so that nobody takes this file for a leak; it is taken out before use."""

FOUND = {
    "email": [
        "请发送到joe@example.com谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢谢",
        "m\\u00fcller@gr\\u00f6\\u00dfe.de",
        "mail john.doe+x@example.co.uk now",
        "<a@b.io>",
        "user%40example.com",
        "user@exam\u200bple.com",
        "\uff55\uff53\uff45\uff52\uff20\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45\uff0e\uff43\uff4f\uff4d",
        "j\u0301ohn@example.com",
        "john [at] example [dot] com",
        "john (at) example.com",
        "m\xfcller@gr\xf6\xdfe.de",
        "x&#64;y.org",
        "a@xn--bcher-kva.example",
        "o'brien@firm.com",
        "mailto:x_y@z.museum?subject=1",
        "https://h/p?email=joe@ex.com",
        "u\\u0040ex.com",
        '"john doe"@example.com',
        '{"a":"\\nfoo@bar.com"}',
        "user@[192.168.1.1]",
        "link?u=x.y%40z.io&v=1",
        "A@B.CO",
        "last-@weird.com",
        "me@\uff45xample.com",
        "a\u2060b@c.org",
        "<mailto:Jo.Doe@Sub.Example.Info>",
        "joe&#64;example&#46;com",
        "(jane@corp.example)",
        "jane@corp.example.",
        "e\\u0040f.org",
        "user <user@host.net>; other",
    ],
    "card": [
        "卡号4111111111111111有效",
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "3056 930902 5904",
        "6011111111111117",
        "3530111333300000",
        "5555.5555.5555.4444",
        "2223003122003222",
        "4111\u200b111111111111",
        "\u0664\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661",
        "41 11 11 11 11 11 11 11",
        "6304000000000000",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "pan=4111111111111111;",
        "4111 - 1111 - 1111 - 1111",
        "4111\xa01111\xa01111\xa01111",
        "card4012888888881881x",
        "4222222222222",
        "card no. 4000056655665556",
        "4111_1111_1111_1111",
        "4111/1111/1111/1111",
        "\U0001d7d2\U0001d7cf\U0001d7cf\U0001d7cf 1111 1111 1111",
        "5105105105105100",
        "x4111111111111111",
        "6200000000000005",
        "3566002020360505",
        "4242 4242 4242 4242",
        "4111\xad1111\xad1111\xad1111",
        "first 1234 then 4111 1111 1111 1111 too",
    ],
    "iban": [
        "账号DE89370400440532013000的",
        "DE89 3704 0044 0532 0130 00",
        "DE89370400440532013000",
        "GB29 NWBK 6016 1331 9268 19 and",
        "fr1420041010050500013m02606",
        "NL91-ABNA-0417-1643-00",
        "IBANDE89370400440532013000",
        "NO9386011117947",
        "CH93 0076 2011 6238 5295 7.",
        "MT84MALT011000012345MTLCAST001S",
        "D\u200bE89 3704 0044 0532 0130 00",
        "IBAN: DE89 3704 0044 0532 0130 00, thanks",
        "iban_DE89370400440532013000",
        "ES9121000418450200051332",
        "PL61 1090 1014 0000 0712 1981 2874",
        "it60x0542811101000000123456",
        "CH9300762011623852957",
        "BE68 5390 0754 7034",
        "\uff24\uff2589370400440532013000",
    ],
    "phone": [
        "电话+49 30 901820谢谢",
        "+49 30 901820",
        "+14155552671",
        "+1 (415) 555-2671",
        "(415) 555-2671",
        "415-555-2671",
        "415.555.2671",
        "1-800-555-0199",
        "020 7946 0958",
        "(020) 7946 0958",
        "+44 (0)20 7946 0958",
        "030/123456",
        "0170 1234567",
        "01 23 45 67 89",
        "01.23.45.67.89",
        "06-12345678",
        "044 668 18 00",
        "03-1234-5678",
        "(11) 91234-5678",
        "8 (912) 345-67-89",
        "138-0013-8000",
        "0049 30 123456",
        "tel:+1-201-555-0123",
        "Tel.: 030 123456",
        "phone: 5551234567",
        "+1.4155552671",
        "call +4915112345678!",
        "\uff0b49 30 901820",
        "+49\xa030\xa0901820",
        "%2B14155552671",
        "Mobile 07700900123",
        "08-123 456 78",
        "+1 415 555 2671 ext. 55",
        "Phone number: 555-0100-22",
        "ring 07700 900123 now",
        "+33 1 23 45 67 89",
        "+91 98765 43210",
        "+81-3-1234-5678",
        "+7 912 345-67-89",
        "(0)20 is not but +44 20 7946 0958 is",
        "fax=0301234567",
        "+\u0664\u0669\u0663\u0660\u0669\u0660\u0661\u0668\u0662\u0660",
        "02 9876 5432",
        "0412 345 678",
        "010-1234-5678",
        "+49 (0) 30 / 90 18 20",
        "1 (415) 555-2671",
    ],
    "secret": [
        "-----BEGIN RSA PR~IVATE KEY-----\nMIIE\n-----END RSA PR~IVATE KEY-----",
        "-----BEGIN PR~IVATE KEY-----\nMIIEabc\nxyz",
        "AK~IAIOSFODNN7EXAMPLE",
        "AI~zaSyA1234567890abcdefghijklmnopqrstuvw",
        "gh~p_abcdefghijklmnopqrstuvwxyz0123456789",
        "gi~thub_pat_11ABCDEFG0abcdefghijkl_mnopqr",
        "gl~pat-abcdefghij1234567890",
        "xo~xb-1234567890-abcdefghij",
        "sk~_live_abcdefghijklmnop",
        "sk~-proj-abcdefghijklmnopqrstuvwx",
        "sk~-ant-api03-abcdefghijklmnopqrst",
        "sk~-abcdefghijklmnopqrstuvwxyz012345",
        "ey~JhbGciOiJIUzI1NiJ9.ey~JzdWIiOiIxIn0.abcdefgh",
        "Authorization: Bearer abcdef.12345",
        "Authorization: Basic dXNlcjpwYXNz",
        "password=hunter2",
        "password = 'hunter2'",
        "Password: hunter2",
        "postgres://bob:s3cret@db/x",
        "https://x:ghs@h.com",
        "ex~k_A1b2A1b2A1b2A1b2A1b2A1b2A1b2A1b2A1b2A1b2xyz",
        "api_key: 8f14e45fceea167a5a36dedd4bea2543",
        '"clientSecret": "Abc123def456"',
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "DB_PASSWORD=letmein",
        "--password hunter2",
        "--token=abc123def456",
        "<password>hunter2</password>",
        "Server=x;Pwd=abc!1;",
        "bearer abcdefghij1234567890",
        "Set-Cookie: sid=abcdef123456; Path=/",
        "hf~_abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "np~m_abcdefghijklmnopqrstuvwxyz0123456789",
        "AccountKey=abcdEFGH1234abcdEFGH1234==;",
        "gh~p_abcdefghijk\u200blmnopqrstuvwxyz0123456789",
        "123456789:A~Aabcdefghijklmnopqrstuvwxyz1234567",
        "export TOKEN=abc123def456ghi",
        'passphrase: "correct horse battery staple"',
        "my password is: hunter2",
        "curl -H 'X-Api-Key: 8f14e45fceea167a5a36'",
        "client_secret=AbCdEf123456GhIj",
        '{"token": "a1b2c3d4e5f6"}',
        "mysql://root:pa%24%24w0rd@10.0.0.1/db",
        "amqp://guest:guest1@mq",
        "redis://:s3cr3tpw@cache:6379",
        "PWD=Tr0ub4dor&3",
        "passwd: 'x9#kk'",
        "https://ho~oks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXaaaa1",
        'secret_key = "k3y-0f-th3-h0use"',
        "-----BEGIN OPENSSH PR~IVATE KEY-----\nb3BlbnNz\n-----END OPENSSH PR~IVATE KEY-----",
        "-----BEGIN PGP PR~IVATE KEY BLOCK-----\nxx\n-----END PGP PR~IVATE KEY BLOCK-----",
        'Authorization: Digest username="a", response="b1c2d3"',
        "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44\uff1dhunter2",
        "pass\u200bword=hunter2",
        "AS~IA1234567890ABCDEF",
        "SG~.abcdefghijklmnop.qrstuvwxyzabcdef1",
        "ya~29.a0AfH6SMBabcdefghijklmnopq",
        "gl~rt-abcdefghij1234567890",
        "sk~-or-v1-abcdefghijklmnop1234",
        "sk~-abc_DEF-123456789012345678XYZ",
        "rk~_test_abcdefghij12",
        "wh~sec_abcdefghijklmnopqrstuv",
        "dc~kr_pat_abcdefghijklmnopqrst1",
        "hv~s.abcdefghijklmnopqrstuvwx",
        "xa~pp-1-ABCDEF-123456-abcdef",
        "signingKey=9f86d081884c7d659a2f",
        '"password" => "geheim99"',
        "password := 'geheim99'",
        "MY_PASSWORD_PROD=geheim99",
        "the api key is: 8f14e45fceea167a",
    ],
}
LEFT = [
    '{"[redacted:phone]": 1000000}',
    '{"[redacted:secret]": "AbC12345678"}',
    "git@github.com:org/repo.git",
    "image@2x.png",
    "package@1.2.3",
    "@types/node",
    "2024-01-02 10:11:12",
    "192.168.100.200",
    "2024-01-01T00:00:00+01:00",
    "123e4567-e89b-12d3-a456-426614174000",
    "0.4539148803436467",
    "1699999999999",
    "1234567890123456",
    "d41d8cd98f00b204e9800998ecf8427e",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "password = get_password()",
    "password=password",
    "password: string",
    "Password: must be at least 8 characters",
    "token_type: Bearer",
    "max_tokens: 4096000",
    "nextToken: abc123def456",
    "tokenizer=bert-base-uncased",
    "secret: ${SECRET}",
    "api_key=os.environ['KEY']",
    "token: <your token>",
    "sk~-estimator-doc-link-with-long-class",
    "bearer authentication",
    "Authorization: required",
    "password: incorrect",
    "ISBN 978-3-16-148410-0",
    "12 345 678",
    "price 1,234,567.89",
    "v1.2.3-rc.4+20240101",
    "01/02/2024 10:15",
    "01.02.2024",
    "+1.23456",
    "commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "10.0.0.1:8080",
    "INV-2024-000123",
    "2024-0001-0002",
    "order 123-456-789",
    "secret santa",
    "the token: a short word",
    "key: value",
    "cache_key: users_2024",
    "ticket PROJ-1234",
    "x+y=12345678",
    "id 17592186044416",
    "lat 52.5200066, lon 13.4049540",
    "3.14159265358979",
    "#ff00aa1122",
    "05:04:03.123456",
    "ratio 4:3",
    "git diff +1,7 -1,9",
    "AK~IA is a prefix",
    "public key: ssh-rsa AAAAB3Nza user@host",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "http://localhost:8080/path",
    "redis://localhost:6379/0",
    "password=${DB_PASSWORD}",
    "self.password = password",
    "passwords are hashed",
    "reset your password: click here",
    "GB82 is a plate",
    "DE12345678",
    "1 2 3 4 5 6 7 8 9 10 11 12 13",
    "100 200 300 4000",
    "chapter 01 02 03",
    "0x1234567890abcdef",
    "1e10",
    "18446744073709551615",
    "2^63",
    "user@localhost",
    "twitter @example",
    "a @ b",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "page 1-800",
    "rgb(255, 255, 255)",
    "00:1A:2B:3C:4D:5E",
    "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    "0123456789",
    "RFC 2119",
    "9780306406157",
    "978-0-306-40615-7",
    "1970-01-01 00:00:00",
    "5.0.0-beta.1",
    "1609459200",
    "20240101120000",
    "user@localhost:8080",
    "foo@bar",
    "@handle said hi",
    "price@5",
    "logo@3x.jpg",
    "1.2.3.4:443",
    "2026-11-29T02:03:04.123456789Z",
    "12:34:56",
    "4111111111111112",
    "4111 1111 1111 1112",
    "411111111111111",
    "9999 9999 9999 9995",
    "41111111111111111111111",
    "DE89 3704 0044 0532 0130 01",
    "XX89370400440532013000",
    "DE8937040044053201300",
    "GB29",
    "+1",
    "+123",
    "(2024) 12-31",
    "0.5.1",
    "3-5-7",
    "tel aviv",
    "phone home",
    "cell 3",
    "mobile first",
    "[0-9]{3}-[0-9]{4}",
    "07.12.2024 10:30",
    "2024/11/29",
    "19-11-2024",
    "01/12/24",
    "0x41111111",
    "10 000 000 000",
    "1.000.000,00",
    "12-34-56",
    "N 48\xb0 51' 24\"",
    "id=0049",
    "build 20241129.1",
    "#1234567",
    "1e-9",
    "50% off",
    "100%25",
    "&amp;",
    "\\u00e9t\\u00e9",
    "passwordless login",
    "secretary: Jane",
    "tokens: 1200",
    "input_tokens=1500",
    "page_token: CAEQAA1234",
    "access key to success",
    "keyboard: qwerty123456",
    "monkey=banana12345",
    "public_key: ssh-ed25519",
    "Bearer of bad news",
    "basic auth is used",
    "cookie: yes",
    "password:",
    'password = ""',
    "password: ********",
    "password=<hidden>",
    "token=$TOKEN",
    "secret={{ vault }}",
    "apiKey: process.env.API_KEY",
    "set a password: type it twice",
    "sk~-learn",
    "ey~J",
    "AK~IA1234",
    "gh~p_short",
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "http://user@host/",
    "ftp://host:21/x",
    "see RFC 7519 (JWT)",
    "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "uuid 00000000-0000-0000-0000-000000000000",
    "4-1-1-1",
    "route 66 exit 0123",
    "[redacted:email]",
    "password=[redacted:secret]",
    "postgres://bob:[redacted:secret]@db/x",
    "Total: 4111 of 1111 (1111 left)",
    "x-request-id: 7b1f2c3d4e5f60718293a4b5c6d7e8f9",
    'etag: "33a64df551425fcc55e4d42a148795d9f25f89d4"',
]
CASES = [(what, text.replace(CUT, "")) for what, texts in FOUND.items() for text in texts]


@requirement("POL-9")
@pytest.mark.parametrize(("what", "text"), CASES)
def test_found(what: str, text: str) -> None:
    found = finder(frozenset({what})).find(text)
    assert [each.what for each in found] == [what]
    left = text[: found[0].start] + mark(what) + text[found[0].end :]
    assert finder(frozenset({what})).find(left) == []


@requirement("POL-9")
@pytest.mark.parametrize(("what", "text"), CASES)
def test_found_beside_others(what: str, text: str) -> None:
    """As one of many texts, under all detectors, at the place where it is."""
    found = ALL.search(("before", text, "after \0 it"))
    assert found[0] == found[2] == []
    alone = finder(frozenset({what})).find(text)[0]
    assert any(each.start <= alone.start and alone.end <= each.end for each in found[1])


@requirement("POL-9")
@pytest.mark.parametrize("text", [each.replace(CUT, "") for each in LEFT])
def test_left_alone(text: str) -> None:
    assert [text[each.start : each.end] for each in ALL.find(text)] == []


@requirement("POL-9")
def test_digits_check_themselves() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert card("4111111111111111")
    assert not card("4111111111111112")
    assert not card("7992739871300000")  # no issuer
    assert iban("GB29NWBK60161331926819")
    assert not iban("GB29NWBK60161331926818")
    assert not iban("GB29NWBK6016133192681")
    assert country_code("49") and country_code("1") and not country_code("0")
    assert entropy("") == 0 and entropy("aaaa") == 0 and entropy("abcd") == 2


@requirement("POL-9")
def test_a_text_is_read_as_it_looks_and_places_are_those_of_the_text() -> None:
    assert folded("plain, with\ttabs\n") is None
    look = folded("x\u200b\uff41%40b &#64; \u0665")
    assert look is not None
    assert look.text == "xa@b @ 5"
    assert look.back(2, 3) == (3, 6)  # %40 as a whole
    assert look.back(0, 2) == (0, 3)
    assert look.back(7, 8) == (14, 15)


@requirement("POL-9")
def test_every_rule_has_a_hint_that_fires_where_it_does() -> None:
    """A rule that its hint would skip finds nothing: each case is found without hints, too."""
    for what, text in CASES:
        bare = Finder({what})
        with_hints = bare.find(text)
        bare._hints = _Always(len([rule for rule in RULES if rule.detector == what]))
        assert bare.find(text) == with_hints


class _Always:
    """A set of hints that says of every rule that it may match."""

    def __init__(self, rules: int) -> None:
        self._rules = rules

    def Match(self, _: bytes) -> list[int]:
        return list(range(self._rules + 1))


@requirement("POL-9")
def test_a_set_that_ran_out_of_memory_hides_nothing() -> None:
    """re2 then matches nothing, and says nothing."""
    starved = Finder({"email"})
    starved._hints = type("Starved", (), {"Match": lambda self, text: None})()
    assert [each.what for each in starved.find("joe@example.com")] == ["email"]


@requirement("POL-9")
def test_an_unknown_detector_withholds() -> None:
    with pytest.raises(Unsearchable, match="smell"):
        finder(frozenset({"email", "smell"}))


@requirement("POL-9")
def test_too_much_that_looks_like_values_is_not_searched_for_ever() -> None:
    with pytest.raises(Unsearchable):
        ALL.find("@ " * (STEPS_MAX + 1))


@requirement("POL-9")
@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000 + "@",
        "1 " * 100_000,
        "4111-" * 40_000,
        "((((" * 50_000,
        "password" * 25_000 + "=",
        "\u200b" * 200_000,
        "-----BEGIN PRIVATE KEY-----" * 7_000,
        "x." * 100_000,
        "eyJ." * 50_000,
        "%40" * 70_000,
    ],
    ids=lambda text: text[:8],
)
def test_long_texts_are_searched_in_linear_time(text: str) -> None:
    """Each would take a backtracking engine hours; no time is asserted, it is just done."""
    try:
        ALL.find(text)
    except Unsearchable:
        pass
