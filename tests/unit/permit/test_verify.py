"""Each way in which a permit must not be believed, with the exact answer (ID-11)."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from permits import ARGUMENTS, AT, KEYS, KID, NOW, OTHER, PERMIT, SIGNER
from requirements import requirement

from exeat.permit import (
    KeysUnusable,
    Permit,
    PermitRefused,
    Refusal,
    Seen,
    load_keys,
    verify,
    verify_call,
)
from exeat.permit.canonical import digest
from exeat.permit.token import Signer, key_id


def check(permit: str | Permit, **changes: Any) -> Permit:
    text = SIGNER.sign(permit) if isinstance(permit, Permit) else permit
    given = {
        "keys": KEYS, "audience": AT, "tool": "transfer", "arguments": ARGUMENTS, "seen": Seen(),
        "definition": "d" * 64, "now": NOW + 1.0,
    }  # fmt: skip
    return verify(text, **{**given, **changes})


def encode(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: Any, claims: Any, signer: Signer = SIGNER) -> str:
    body = f"{encode(header)}.{encode(claims)}"
    return f"{body}.{encode(signer._key.sign(body.encode()))}"


HEADER = {"alg": "EdDSA", "kid": KID, "typ": "exeat-permit+jwt"}


@requirement("ID-11")
def test_a_permit_for_exactly_this_call_is_read_as_it_was_signed() -> None:
    assert check(PERMIT) == PERMIT
    assert check(replace(PERMIT, user="")) == replace(PERMIT, user="")
    assert check(signed(HEADER, PERMIT.claims())) == PERMIT


CASES: list[tuple[str, Callable[[], Any], str, str]] = [
    ("another server", lambda: check(PERMIT, audience=AT + "/"), "audience", "The permit is for another server."),
    ("other arguments", lambda: check(PERMIT, arguments={**ARGUMENTS, "amount": 81}), "arguments", "The permit is for other arguments."),
    ("no arguments", lambda: check(PERMIT, arguments={}), "arguments", "The permit is for other arguments."),
    ("members beside", lambda: check(PERMIT, beside={"inputResponses": {}}), "arguments", "The permit is for other arguments."),
    ("another tool", lambda: check(PERMIT, tool="transfer_all"), "tool", "The permit is for another tool."),
    ("another definition", lambda: check(PERMIT, definition="e" * 64), "definition", "The permit is for another definition of this tool."),
    ("expired", lambda: check(PERMIT, now=NOW + 12), "expired", "The permit has expired."),
    ("not yet valid", lambda: check(PERMIT, now=NOW - 2.5), "not_yet_valid", "The permit is not valid yet."),
    ("alg none", lambda: check(f"{encode({**HEADER, 'alg': 'none'})}.{encode(PERMIT.claims())}."), "algorithm", "The permit is not signed with EdDSA."),
    ("alg HS256 with the public key", lambda: check(signed({**HEADER, "alg": "HS256"}, PERMIT.claims())), "algorithm", "The permit is not signed with EdDSA."),
    ("unknown key", lambda: check(OTHER.sign(PERMIT)), "unknown_key", "The permit is signed with an unknown key."),
    ("another key under this id", lambda: check(signed(HEADER, PERMIT.claims(), OTHER)), "signature", "The permit's signature is wrong."),
    ("oversized", lambda: check("a" * 4097), "malformed", "The permit is longer than 4096 characters."),
    ("empty", lambda: check(""), "malformed", "The permit is not a compact JWS."),
    ("two parts", lambda: check("a.b"), "malformed", "The permit is not a compact JWS."),
    ("five parts", lambda: check("a.b.c.d.e"), "malformed", "The permit is not a compact JWS."),
    ("padding", lambda: check(SIGNER.sign(PERMIT) + "=="), "malformed", "The permit is not base64url in its one spelling."),
    ("not ASCII", lambda: check(SIGNER.sign(PERMIT) + "é"), "malformed", "The permit is not a compact JWS."),
    ("crit", lambda: check(signed({**HEADER, "crit": ["x"], "x": 1}, PERMIT.claims())), "malformed", "The permit's header is not that of a permit."),
    ("a key in the header", lambda: check(signed({**HEADER, "jwk": OTHER.public()}, PERMIT.claims(), OTHER)), "malformed", "The permit's header is not that of a permit."),
    ("another type", lambda: check(signed({**HEADER, "typ": "at+jwt"}, PERMIT.claims())), "malformed", "The permit's header is not that of a permit."),
    ("header is a list", lambda: check(signed([HEADER], PERMIT.claims())), "malformed", "The permit does not hold JSON objects."),
    ("a claim twice", lambda: check(signed(HEADER, json.dumps(PERMIT.claims())[:-1].encode() + b',"aud":"x"}')), "malformed", "The permit does not hold JSON objects."),
    ("NaN", lambda: check(signed(HEADER, b'{"exp":NaN}')), "malformed", "The permit does not hold JSON objects."),
    ("a further claim", lambda: check(signed(HEADER, {**PERMIT.claims(), "x": 1})), "malformed", "The permit's claims are not those of a permit."),
    ("no audience", lambda: check(signed(HEADER, {k: v for k, v in PERMIT.claims().items() if k != "aud"})), "malformed", "The permit's claims are not those of a permit."),
    ("audience is a list", lambda: check(signed(HEADER, {**PERMIT.claims(), "aud": [AT]})), "malformed", "The permit's claims are not those of a permit."),
    ("times are texts", lambda: check(signed(HEADER, {**PERMIT.claims(), "exp": str(NOW + 10)})), "malformed", "The permit's times are not whole seconds."),
    ("times are true", lambda: check(signed(HEADER, {**PERMIT.claims(), "iat": True})), "malformed", "The permit's times are not whole seconds."),
    ("lives for ever", lambda: check(replace(PERMIT, expires_at=NOW + 10**9)), "malformed", "The permit lives too long, or its id is none."),
    ("no id", lambda: check(replace(PERMIT, id="")), "malformed", "The permit lives too long, or its id is none."),
    ("a long id", lambda: check(replace(PERMIT, id="x" * 65)), "malformed", "The permit lives too long, or its id is none."),
    ("arguments are no JSON", lambda: check(PERMIT, arguments={"a": {1, 2}}), "malformed", "The arguments are not JSON."),
]  # fmt: skip


@requirement("ID-11")
@pytest.mark.parametrize(
    ("tried", "reason", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_it_is_refused(tried: Callable[[], Any], reason: str, says: str) -> None:
    with pytest.raises(PermitRefused) as refused:
        tried()
    assert (refused.value.reason, str(refused.value)) == (reason, says)


@requirement("ID-11")
def test_each_bit_of_it_counts() -> None:
    text = SIGNER.sign(PERMIT)
    for at in range(len(text)):
        other = "A" if text[at] != "A" else "B"
        with pytest.raises(PermitRefused):
            check(text[:at] + other + text[at + 1 :])


@requirement("ID-11")
def test_it_is_used_once_also_by_another_thread_of_control() -> None:
    seen = Seen()
    check(PERMIT, seen=seen)
    with pytest.raises(PermitRefused) as refused:
        check(PERMIT, seen=seen)
    assert (refused.value.reason, str(refused.value)) == ("replayed", "The permit was used before.")
    check(replace(PERMIT, id="a2"), seen=seen)


@requirement("ID-11")
def test_a_refused_permit_is_not_used_up() -> None:
    seen = Seen()
    with pytest.raises(PermitRefused):
        check(PERMIT, seen=seen, arguments={})
    assert check(PERMIT, seen=seen) == PERMIT


@requirement("ID-11")
def test_memory_is_bounded_and_what_does_not_fit_is_refused_until_others_end() -> None:
    seen = Seen(capacity=2)
    for name in ("a", "b"):
        check(replace(PERMIT, id=name), seen=seen)
    with pytest.raises(PermitRefused) as refused:
        check(replace(PERMIT, id="c"), seen=seen)
    assert (refused.value.reason, str(refused.value)) == ("full", "Too many permits are in use.")
    later = replace(PERMIT, id="c", issued_at=NOW + 12, expires_at=NOW + 20)
    with pytest.raises(PermitRefused):  # the first two could still be shown again
        check(later, seen=seen, now=NOW + 12.0)
    check(later, seen=seen, now=NOW + 12.5)
    assert len(seen) == 1


@requirement("ID-11")
def test_a_clock_that_goes_back_brings_no_permit_to_life_again() -> None:
    seen = Seen()
    check(PERMIT, seen=seen)
    later = replace(PERMIT, id="b", issued_at=NOW + 60, expires_at=NOW + 70)
    check(later, seen=seen, now=NOW + 61.0)
    assert len(seen) == 1  # the first is forgotten
    with pytest.raises(PermitRefused) as refused:
        check(PERMIT, seen=seen, now=NOW + 1.0)
    assert refused.value.reason == "replayed"


@requirement("ID-11")
def test_the_leeway_is_for_clocks_that_differ() -> None:
    check(PERMIT, now=NOW - 2.0)
    check(PERMIT, now=NOW + 11.9)
    with pytest.raises(PermitRefused):
        check(PERMIT, now=NOW - 0.5, leeway_s=0.0)
    with pytest.raises(PermitRefused):
        check(PERMIT, now=NOW + 10.0, leeway_s=0.0)


@requirement("ID-11")
def test_the_params_of_a_call() -> None:
    params: dict[str, Any] = {"name": "transfer", "arguments": ARGUMENTS}
    text = SIGNER.sign(PERMIT)

    def call(params: dict[str, Any], **more: Any) -> Permit:
        return verify_call(params, keys=KEYS, audience=AT, seen=Seen(), now=NOW + 1.0, **more)

    assert call({**params, "_meta": {"exeat/permit": text, "other": 1}}) == PERMIT
    assert call(params, permit=text) == PERMIT
    empty = SIGNER.sign(replace(PERMIT, arguments=digest({})))
    assert call({"name": "transfer"}, permit=empty) and call(
        {"name": "transfer", "arguments": None}, permit=empty
    )
    beside = SIGNER.sign(replace(PERMIT, beside=digest({"task": {"ttl": 1}})))
    assert call({**params, "task": {"ttl": 1}}, permit=beside)
    for given, reason in (
        ({**params, "task": {"ttl": 2}, "_meta": {"exeat/permit": beside}}, "arguments"),
        ({**params, "_meta": {"exeat/permit": beside}}, "arguments"),
        ({**params, "_meta": {"exeat/permit": 7}}, "missing"),
        ({**params, "_meta": "x"}, "missing"),
        (params, "missing"),
        ({"name": 7, "_meta": {"exeat/permit": text}}, "malformed"),
        ({"name": "transfer", "arguments": [], "_meta": {"exeat/permit": text}}, "malformed"),
    ):
        with pytest.raises(PermitRefused) as refused:
            call(given)
        assert refused.value.reason == reason


@requirement("ID-11")
def test_keys_of_several_gateways() -> None:
    both = load_keys(
        json.dumps({"keys": [SIGNER.public()]}), json.dumps({"keys": [OTHER.public()]})
    )
    assert set(both) == {KID, OTHER.public()["kid"]} and key_id(both[KID]) == KID
    assert check(OTHER.sign(PERMIT), keys=both) == PERMIT


@requirement("ID-11")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is not a JWK Set"),
        ("[]", "it is not a JWK Set"),
        ('{"keys": {}}', "it is not a JWK Set"),
        ('{"keys": []}', "there is no key in it"),
        ('{"keys": [7]}', "a key in it is not one of Ed25519"),
        ('{"keys": [{"kty": "RSA"}]}', "a key in it is not one of Ed25519"),
        (json.dumps({"keys": [{**SIGNER.public(), "x": "AA"}]}), "a key in it cannot be read"),
        (
            json.dumps({"keys": [{**SIGNER.public(), "kid": "x"}]}),
            "a key in it bears another key's id",
        ),
        (
            json.dumps({"keys": [{**SIGNER.public(), "d": "AA"}]}),
            "it holds a private key, which nobody but its gateway may have",
        ),
        ("x" * 65_537, "it is longer than 65536 bytes"),
    ],
)
def test_what_is_no_set_of_keys(text: str, says: str) -> None:
    with pytest.raises(KeysUnusable) as refused:
        load_keys(text)
    assert str(refused.value) == says


@requirement("ID-11")
def test_the_reasons_are_closed() -> None:
    assert {case[2] for case in CASES} | {"missing", "replayed", "full"} == set(Refusal)


@requirement("ID-11")
def test_a_tool_server_imports_it_without_the_gateway() -> None:
    script = (
        "import sys, exeat.permit; print(*sorted(m for m in sys.modules if m.partition('.')[0] in "
    )
    script += (
        "{'exeat','joserfc','msgspec','starlette','asyncio','pydantic','structlog','sqlalchemy'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert {name.split(".")[1] for name in done.stdout.split() if "." in name} == {"permit"}
    assert {name.split(".")[0] for name in done.stdout.split()} == {"exeat"}
