"""What it costs to redact and cap results of 20 kB and 1 MB: CPU time of one core, the best of several.

.venv/bin/python bench/redaction.py
"""

import json
import random
import time
from typing import Any

from exeat.core.obligations import OnResult
from exeat.gateway.redaction.detectors import DETECTORS
from exeat.gateway.redaction.filter import ResultFilter

ALL = OnResult(frozenset(DETECTORS))
TEXT = (
    "the order of customer was shipped on 2024-01-02 at 10:11 with total 123.45 EUR token of status "
    "ok and key for id 48213 note"
)
WORDS = TEXT.split()
MEASURED_S = 1.0


def prose(chance: random.Random, size: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(size // 4))[:size]


def log(chance: random.Random, size: int) -> str:
    return "".join(
        f"2026-11-29T02:03:04.123Z INFO [req-{chance.getrandbits(32):08x}] 10.0.0.{number % 255} "
        f"GET /a/b?id={number * 7919} 200 {number % 400}ms\n"
        for number in range(size // 75)
    )


def rows(chance: random.Random, size: int, *, mail: bool) -> dict[str, Any]:
    found = [
        {
            "id": number,
            "name": f"Customer {number}",
            "email": f"c{number}@example.com" if mail else "none",
            "note": prose(chance, 60),
            "total": number * 1.5,
        }
        for number in range(size // 300)
    ]
    text = json.dumps(found)
    return {"content": [{"type": "text", "text": text}], "structuredContent": {"rows": found}}


def text(value: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}]}


def measure(name: str, result: dict[str, Any], on: OnResult) -> None:
    raw = json.dumps(result).encode()
    best, began = float("inf"), time.process_time()
    while time.process_time() - began < MEASURED_S:
        start = time.process_time()
        ResultFilter(on, None, "bench").result(raw)
        best = min(best, time.process_time() - start)
    print(f"{name:40} {len(raw):>9,} bytes {best * 1e3:8.2f} ms")


def main() -> None:
    for size in (20_000, 1_000_000):
        chance = random.Random(1)
        mails = rows(chance, size, mail=True)
        measure("prose", text(prose(chance, size)), ALL)
        measure("log", text(log(chance, size)), ALL)
        measure("rows in both forms", rows(chance, size, mail=False), ALL)
        measure("an email address in each row", mails, ALL)
        measure("one field of each row hidden", mails, OnResult(fields=("/rows/*/email",)))
        measure("100 rows pass", mails, OnResult(rows=100))
        measure("10,000 bytes pass", mails, OnResult(bytes=10_000))


if __name__ == "__main__":
    main()
