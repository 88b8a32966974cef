"""Numbers that check themselves: cards (ISO/IEC 7812), IBAN (ISO 13616), telephone numbers (E.164)."""

import math
import re
from collections import Counter
from typing import Final

_DOUBLED: Final = bytes.maketrans(b"0123456789", b"0246813579")
"""Twice a digit, and the sum of the digits of that."""


def luhn(digits: str) -> bool:
    raw = digits.encode()
    total = sum(raw[-1::-2]) + sum(raw[-2::-2].translate(_DOUBLED))
    return (total - 48 * len(raw)) % 10 == 0


_ISSUERS: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:30[0-5]|309)\d{11,16}|3[689]\d{12,17}"  # Diners Club
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12,15}"  # Discover, RuPay
    r"|35(?:2[89]|[3-8]\d)\d{12,15}"  # JCB
    r"|(?:62|81|82)\d{14,17}"  # UnionPay, RuPay
    r"|(?:50|5[6-8])\d{11,17}"  # Maestro
    r"|(?:63|67)\d{11,17}|60\d{14}"  # Maestro, RuPay
    r"|220[0-4]\d{12,15}"  # Mir
    r"|9792\d{12}"  # Troy
)


def card(digits: str) -> bool:
    """13 to 19 digits of a known issuer in a length it uses, with the right check digit."""
    return _ISSUERS.fullmatch(digits) is not None and luhn(digits)


_LENGTHS: Final = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 "
    "DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 "
    "IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 "
    "MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 "
    "SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
IBAN_LENGTHS: Final = {each[:2]: int(each[2:]) for each in _LENGTHS.split()}
"""SWIFT's registry of IBAN formats, release 99."""


def iban(text: str) -> bool:
    """Letters and digits only, of the length that the country uses, with the right check number."""
    text = text.upper()
    if IBAN_LENGTHS.get(text[:2]) != len(text) or not text.isascii() or not text.isalnum():
        return False
    return int("".join(str(int(each, 36)) for each in text[4:] + text[:4])) % 97 == 1


_COUNTRY: Final = re.compile(
    r"1|7|20|21[1-368]|22\d|23\d|24\d|25[0-8]|26\d|27|29[0-1789]|3[0-469]|35\d|37\d|38[0-35-79]"
    r"|4[013-9]|42[013]|5[1-8]|50\d|59\d|6[0-6]|67[02-9]|68\d|69[0-2]|8[1246]|800|808|85[02356]"
    r"|87\d|88[0-368]|9[0-58]|96[0-8]|97[0-79]|99[2-8]"
)


def country_code(digits: str) -> bool:
    """Whether an international number can begin so (ITU-T E.164, list of assigned country codes)."""
    return _COUNTRY.match(digits) is not None


def entropy(text: str) -> float:
    """Bits for each character, by how often each stands in this text (Shannon)."""
    size = len(text)
    return -sum(n / size * math.log2(n / size) for n in Counter(text).values()) if size else 0.0
