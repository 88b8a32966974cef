"""An incremental reader of one JSON-RPC response that is too large to keep (GW-9).  Pure.

It follows strings and nesting only, never builds values, and yields the bytes of ``result`` as they
come.  It remembers the scalar ``id`` and the ``resultType`` inside the result; a repeated member
among those, or one spelt with escapes, makes the answer malformed, so that nothing hides in it.
"""

import re
from typing import Final

from exeat.gateway.wire import imitates_result_type

_OUTSIDE: Final = re.compile(rb'["{}\[\],:]')
_INSIDE: Final = re.compile(rb'["\\]')
_SKIP: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""Possessive: a way back would cost 128 bytes of memory for each byte of a string."""
_SCALAR_MAX_BYTES: Final = 2048
_NOT_A_RESULT: Final = frozenset({b"error", b"method", b"params"})


class MalformedAnswer(ValueError):
    """The large answer is not one JSON-RPC response in the expected form."""


class ResultScanner:
    """Feed the body in pieces; collect what ``feed`` returns: the bytes of the result, in order."""

    __slots__ = (
        "_collect", "_depth", "_escaped", "_expect_key", "_in_result", "_key", "_opened", "_scalar",
        "_string", "done", "id", "members", "result_type",
    )  # fmt: skip

    def __init__(self) -> None:
        self._depth = 0
        self._string = self._escaped = False
        self._expect_key = False
        self._key = b""
        self._scalar = b""
        self._collect = False
        self._in_result = self._opened = False
        self.done = False
        self.id = b""
        self.result_type = b""
        self.members: set[bytes] = set()

    def feed(self, data: bytes) -> bytes:
        """Raises MalformedAnswer."""
        out: list[bytes] = []
        position, start, size = 0, 0, len(data)
        while position < size:
            if self.done:
                if data[position:].strip():
                    raise MalformedAnswer("something follows the answer")
                break
            if self._string:
                position = self._in_string(data, position)
                continue
            match = _OUTSIDE.search(data, position)
            stop = match.start() if match else size
            if self._collect:
                self._take(data[position:stop])
            if match is None:
                break
            token = data[stop : stop + 1]
            was_result = self._in_result
            self._token(token, stop)
            position = stop + 1
            if self._in_result and not was_result:
                start = position
            elif was_result and not self._in_result:
                out.append(data[start:stop])
                start = position
        if self._in_result:
            out.append(data[start:size])
        return b"".join(out)

    def _in_string(self, data: bytes, position: int) -> int:
        if self._escaped:
            self._escaped = False
            if self._collect:
                self._take(data[position : position + 1])
            return position + 1
        if not self._collect:
            skipped = _SKIP.match(data, position)
            position = skipped.end() if skipped else position
        match = _INSIDE.search(data, position)
        stop = match.start() if match else len(data)
        if self._collect:
            self._take(data[position:stop])
        if match is None:
            return stop
        if data[stop : stop + 1] == b"\\":
            if self._collect and (self._expect_key or self._depth != 1):
                raise MalformedAnswer("an escape in a member name")
            if self._collect:
                self._take(b"\\")
            self._escaped = True
        else:
            self._string = False
            if self._collect and self._expect_key:
                self._collect = False
            elif self._collect:
                self._take(b'"')
        return stop + 1

    def _take(self, piece: bytes) -> None:
        self._scalar += piece
        if len(self._scalar) > _SCALAR_MAX_BYTES:
            if self._expect_key:
                self._collect, self._scalar = False, b""
            else:
                raise MalformedAnswer("a member that is too long")

    def _watched(self) -> bool:
        return self._depth == 1 or (self._depth == 2 and self._in_result)

    def _token(self, token: bytes, at: int) -> None:
        if token == b'"':
            self._string = True
            if self._watched() and self._expect_key:
                self._collect, self._scalar = True, b""
            elif self._collect:
                self._scalar += b'"'
            elif self._in_result and self._depth == 1:
                raise MalformedAnswer("a result that is not an object")
        elif token == b":":
            if self._watched() and self._expect_key:
                self._member()
        elif token in b"{[":
            self._open(token)
        elif token == b",":
            self._value_ends()
            if self._watched():
                self._expect_key = True
        else:
            self._close()

    def _member(self) -> None:
        self._key, self._scalar = self._scalar, b""
        self._expect_key = False
        level = b"" if self._depth == 1 else b"result."
        if level + self._key in self.members:
            raise MalformedAnswer("a repeated member")
        if self._depth == 1 or self._key == b"resultType":
            self.members.add(level + self._key)
        elif imitates_result_type(self._key.decode("utf-8", "replace")):
            raise MalformedAnswer("a member that only looks like resultType")
        if self._depth == 1 and self._key in _NOT_A_RESULT:
            raise MalformedAnswer("too large, and not a result")
        if self._depth == 1 and self._key == b"result":
            self._in_result = True
        self._collect = (self._depth == 1 and self._key == b"id") or (
            self._depth == 2 and self._key == b"resultType"
        )

    def _open(self, token: bytes) -> None:
        if self._depth == 0 and token != b"{":
            raise MalformedAnswer("not an object")
        if self._collect:
            raise MalformedAnswer("a member of the wrong type")
        self._depth += 1
        if self._watched():
            if self._depth == 2:
                if token != b"{" or self._opened:
                    raise MalformedAnswer("a result that is not an object")
                self._opened = True
            self._expect_key = True

    def _value_ends(self) -> None:
        if self._collect and not self._expect_key:
            value = self._scalar.strip()
            if self._depth == 1:
                self.id = value
            else:
                self.result_type = value.strip(b'"') or value
        self._collect, self._scalar = False, b""
        if self._depth == 1:
            if self._in_result and not self._opened:
                raise MalformedAnswer("a result that is not an object")
            self._in_result = False

    def _close(self) -> None:
        self._value_ends()
        self._depth -= 1
        self._expect_key = False
        if self._depth == 0:
            self.done = True
        elif self._depth < 0:
            raise MalformedAnswer("unbalanced")
