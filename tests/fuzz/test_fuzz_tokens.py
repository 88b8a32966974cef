"""Tokens and proofs with bytes changed, cut, doubled and swapped: nothing is accepted that was not
signed, nothing raises (ID-1, ID-3, ID-4)."""

import json
import os
import random
from base64 import urlsafe_b64encode
from typing import Any

from issuing import ISSUER, NOW_S, RESOURCE, Idp, b64, ec_key, proof
from requirements import requirement
from worlds import NOW

from exeat.identity.dpop import Proof, Unproven, read_proof
from exeat.identity.model.token import Claims, Refused
from exeat.identity.rules.claims import read_claims

EXECUTIONS = int(os.environ.get("EXEAT_FUZZ_EXECUTIONS", "15000"))
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**63, -(2**63), 1e308, "", " ", "a", "\0", "é", "\ud800", "x" * 3000,
    [], [None], [[]], {}, {"": None}, {"sub": "a"}, {"act": {"act": {}}}, NOW_S, NOW_S + 60, str(NOW_S),
    [RESOURCE], [RESOURCE, 1], {"jkt": "x"}, {"jkt": "x" * 43}, ISSUER, "https://id.example/", RESOURCE,
)  # fmt: skip
NAMES = (
    "iss", "sub", "aud", "client_id", "azp", "scope", "scp", "exp", "nbf", "iat", "jti", "act", "cnf",
    "grant", "active", "typ", "alg", "kid", "crit", "jwk", "",
)  # fmt: skip
ALPHABET = "ABCabc019-_=+/. \r\n\0é"


def mangled(text: str, dice: random.Random) -> str:
    """A few changes of characters and parts."""
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(text) + 1)
        way = dice.randrange(7)
        if way == 0:
            text = text[:at] + dice.choice(ALPHABET) + text[at + 1 :]
        elif way == 1:
            text = text[:at] + dice.choice(ALPHABET) + text[at:]
        elif way == 2:
            text = text[:at] + text[at + 1 + int(dice.expovariate(0.2)) :]
        elif way == 3:
            text = text[:at]
        elif way == 4:
            parts = text.split(".")
            dice.shuffle(parts)
            text = ".".join(parts)
        elif way == 5:
            parts = text.split(".")
            parts[dice.randrange(len(parts))] = part(dice)
            text = ".".join(parts)
        else:
            text += dice.choice((".", "..", text[:at], "="))
    return text


def part(dice: random.Random) -> str:
    """A member of a token made up."""
    value = {dice.choice(NAMES): dice.choice(ODD) for _ in range(dice.randrange(6))}
    try:
        return b64(json.dumps(value).encode())
    except UnicodeEncodeError:
        return urlsafe_b64encode(b"\xff\xfe").decode()


@requirement("ID-1", "ID-3")
def test_no_changed_token_is_accepted() -> None:
    dice, idp = random.Random(20), Idp()
    tokens = idp.tokens()
    good = [
        idp.token(),
        idp.token(aud=[RESOURCE, "b"], act={"sub": "c1"}),
        idp.token({"typ": "JWT"}),
    ]
    accepted = {(text, type(tokens.read(text, NOW))) for text in good}
    assert {kind for _, kind in accepted} == {Claims}
    for _ in range(EXECUTIONS):
        text = mangled(dice.choice(good), dice)
        found = tokens.read(text, NOW)
        if isinstance(found, Claims):
            assert text in good
        else:
            assert found is None or isinstance(found, Refused)


@requirement("ID-1")
def test_odd_claims_are_refused_or_read_never_more() -> None:
    """As an issuer that is trusted, and wrong, might sign them."""
    dice, idp = random.Random(21), Idp()
    for _ in range(EXECUTIONS):
        claims = idp.claims()
        for _ in range(dice.randrange(1, 4)):
            claims[dice.choice(NAMES)] = dice.choice(ODD)
        found = read_claims(claims, ISSUER, NOW, life_max_s=86_400)
        if isinstance(found, Claims):
            assert NOW < found.expires_at <= NOW + 86_400 * 10**9
            assert found.audience and all(isinstance(each, str) for each in found.audience)
            assert len(found.actors) <= 4
        else:
            assert isinstance(found, Refused)


@requirement("ID-4")
def test_no_changed_proof_proves_anything() -> None:
    dice, key = random.Random(22), ec_key()
    good = [proof(key, "t"), proof(key, "t", jti="other", iat=NOW_S - 5)]
    for text in good:
        assert isinstance(read_proof(text, "POST", RESOURCE, NOW, "t"), Proof)
    for _ in range(EXECUTIONS):
        text = mangled(dice.choice(good), dice)
        found = read_proof(text, "POST", RESOURCE, NOW, "t")
        assert isinstance(found, Unproven) or text in good
