"""Signed messages by Standard Webhooks (APP-5)."""

import base64

import pytest
from requirements import requirement

from exeat.approvals.rules.messages import ID, SIGNATURE, TIMESTAMP, read_secret, signed, verified
from exeat.core.errors import Invalid, Unauthenticated

SECRET = b"s" * 32
BODY = b'{"hold": "h-1"}'
AT = 1_700_000_000


def headers(**changes: str | list[str]) -> dict[str, list[str]]:
    found = {name: [value] for name, value in signed(SECRET, "msg_1", AT, BODY).items()}
    for name, value in changes.items():
        found[f"webhook-{name}"] = [value] if isinstance(value, str) else value
    return found


@requirement("APP-5")
def test_the_published_example_of_the_specification() -> None:
    """standardwebhooks.com: secret, id, time stamp and signature of its reference libraries."""
    secret = read_secret(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found[SIGNATURE] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    one = {name: [value] for name, value in found.items()}
    assert verified(secret, one, body, 1614265330).id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


@requirement("APP-5")
def test_one_of_several_signatures_suffices_while_a_secret_is_changed() -> None:
    good = headers()[SIGNATURE][0]
    several = headers(signature=f"v1,AAAA v1a,{good[3:]} {good}")
    assert verified(SECRET, several, BODY, AT + 300).at == AT


@requirement("APP-5")
@pytest.mark.parametrize(
    "wrong",
    [
        headers(signature="v1,AAAA"),
        headers(signature=""),
        headers(signature="v2," + headers()[SIGNATURE][0][3:]),
        headers(signature=headers()[SIGNATURE] * 2),
        headers(id="msg_2"),
        headers(id=""),
        headers(id="msg 1"),
        headers(timestamp=str(AT + 1)),
        headers(timestamp="now"),
        headers(timestamp="-1"),
        {name: value for name, value in headers().items() if name != ID},
        {name: value for name, value in headers().items() if name != TIMESTAMP},
        {},
    ],
)
def test_a_wrong_signature(wrong: dict[str, list[str]]) -> None:
    with pytest.raises(Unauthenticated, match="not signed as it must be"):
        verified(SECRET, wrong, BODY, AT)


@requirement("APP-5")
def test_another_body_another_secret_another_time() -> None:
    with pytest.raises(Unauthenticated):
        verified(SECRET, headers(), BODY + b" ", AT)
    with pytest.raises(Unauthenticated):
        verified(b"t" * 32, headers(), BODY, AT)
    for now in (AT - 301, AT + 301):
        with pytest.raises(Unauthenticated, match="300 seconds"):
            verified(SECRET, headers(), BODY, now)
    assert verified(SECRET, headers(), BODY, AT - 300)


@requirement("APP-5")
@pytest.mark.parametrize(
    "text",
    [b"", b"whsec_", b"hunter2-hunter2", b"whsec_!!!!", b"whsec_" + base64.b64encode(b"x" * 23),
     b"whsec_" + base64.b64encode(b"x" * 65)],
)  # fmt: skip
def test_a_secret_that_is_none_is_refused_without_being_said(text: bytes) -> None:
    with pytest.raises(Invalid, match="24 to 64 bytes") as refused:
        read_secret(text)
    assert "hunter2" not in str(refused.value)
