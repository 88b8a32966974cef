"""Mutations of HTTP bytes, deterministic by their random source; seeds are the smuggling corpus."""

import random
from collections.abc import Callable
from typing import Final

import smuggling

SIZE_MAX: Final = 6000
_WORDS: Final = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"1", b"2", b"a", b"ff",
    b"+", b"-", b"_", b"0x", b"\x0b", b"\x80", b"\xff", b"%", b"//", b"/.", b"0\r\n\r\n", b"1\r\na\r\n",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"chunked",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: ", b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n", b"Host: localhost\r\n", b"X: y\r\n", b"Proxy-Connection: close\r\n",
    b"GET /mcp HTTP/1.1\r\n", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n", b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2",
    smuggling.SMUGGLED, b"Trailer: x\r\n", b"TE: trailers\r\n", b"Keep-Alive: x\r\n", b"CONNECT", b"PRI",
)  # fmt: skip


def seeds() -> dict[str, list[bytes]]:
    """Long ones are left out: what they show is a limit, and every mutation of them costs."""
    before = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
    asked = [case.raw for case in smuggling.requests()]
    told = [reply.raw for reply in smuggling.responses()]
    return {
        "requests": [raw for raw in asked + [before + each for each in asked] if len(raw) < 3000],
        "responses": [raw for raw in told if len(raw) < 3000],
    }


def _flip(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]


def _bit(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return (
        data[:at]
        + bytes(byte ^ (1 << dice.randrange(8)) for byte in data[at : at + 1])
        + data[at + 1 :]
    )


def _insert(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(_WORDS) + data[at:]


def _replace(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(_WORDS) + data[at + dice.randrange(6) :]


def _cut(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + data[at + 1 + int(dice.expovariate(0.2)) :]


def _repeat(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    at, size = dice.randrange(len(data) + 1), 1 + int(dice.expovariate(0.05))
    return data[: at + size] + data[at : at + size] * dice.choice((1, 1, 2, 5)) + data[at + size :]


def _lines(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    a, b = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\r\n".join(lines)


def _line(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    """A line of another seed among these."""
    lines, others = data.split(b"\r\n"), dice.choice(pool).split(b"\r\n")
    lines.insert(dice.randrange(len(lines) + 1), dice.choice(others))
    return b"\r\n".join(lines)


def _splice(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    other = dice.choice(pool)
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other) + 1) :]


def _append(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    return data + dice.choice(pool)


def _number(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    places = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
    if not places:
        return data
    at = dice.choice(places)
    return (
        data[:at] + b"%d" % dice.choice((0, 1, 2, 3, 9, 10, 43, 999, 1000, 1001)) + data[at + 1 :]
    )


def _case(data: bytes, dice: random.Random, pool: list[bytes]) -> bytes:
    at, size = dice.randrange(len(data) + 1), dice.randrange(1, 20)
    return data[:at] + data[at : at + size].swapcase() + data[at + size :]


_WAYS: Final[tuple[Callable[[bytes, random.Random, list[bytes]], bytes], ...]] = (
    _flip, _bit, _insert, _insert, _replace, _cut, _repeat, _lines, _line, _splice, _append, _number, _case,
)  # fmt: skip


def mutated(pool: list[bytes], dice: random.Random) -> bytes:
    """One seed of ``pool``, changed in one to six ways."""
    data = dice.choice(pool)
    for _ in range(dice.choice((1, 1, 2, 2, 3, 4, 6))):
        data = dice.choice(_WAYS)(data, dice, pool)[:SIZE_MAX]
    return data
