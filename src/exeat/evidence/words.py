"""A verification report in plain words: what it proves and what it does not (EVD-4, EVD-5)."""

import base64
from datetime import UTC, datetime

from exeat.evidence.verify import Report


def moment(nanoseconds: int) -> str:
    """UTC, to the millisecond."""
    when = datetime.fromtimestamp(nanoseconds // 1_000_000 / 1000, UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def report_lines(report: Report) -> list[str]:
    if not report.sound:
        return [
            "NOT SOUND. Do not rely on this ledger:",
            *[f"  - {problem}." for problem in report.problems],
            "Keep the file as it is and compare it with a checkpoint or copy that others hold.",
        ]
    return [*_facts(report), "", *_proves(report), "", *_limits(report)]


def _facts(report: Report) -> list[str]:
    span = f"{moment(report.first_at)} to {moment(report.last_at)}"
    one = "checkpoint" if report.checkpoints == 1 else "checkpoints"
    return [
        f"SOUND: {report.entries} entries, {span}.",
        f"  {report.permits} permitted and {report.denials} denied decisions, {report.outcomes} "
        f"outcomes ({report.unknown} unknown, {report.waiting} still open).",
        f"  {report.checkpoints} signed {one}, the last over {report.signed} entries.",
        f"  key   {report.key}",
        f"  root  {base64.b64encode(report.root).decode()} (at {report.entries} entries)",
    ]


def _proves(report: Report) -> list[str]:
    lines = [
        "What this proves:",
        "  - No entry is missing, doubled or out of order, and each is in its one canonical form.",
        "  - Every outcome stands after the permit that it names by number and hash.",
        f"  - The first {report.signed} entries are exactly those that the key above signed.",
    ]
    if report.held is not None:
        lines.append(
            f"  - They extend the checkpoint that was held outside ({report.held} entries): "
            "nothing under it was cut, edited, reordered or inserted since."
        )
    return lines


def _limits(report: Report) -> list[str]:
    lines = ["What this does not prove:"]
    if not report.key_given:
        lines.append(
            "  - Who signed: the key was read from the file itself. Compare it with the key that "
            "the gateway's owner gives you (--key)."
        )
    if report.held is None:
        lines.append(
            "  - That nothing was rewritten as a whole by the holder of the key, or cut at the "
            "end: that takes a checkpoint that somebody else holds (--checkpoint)."
        )
    after = report.entries - report.signed
    if after:
        lines.append(f"  - The last {after} entries: no signed checkpoint covers them yet.")
    lines += [
        "  - That the facts in the entries were true, nor that no call went around the gateway.",
        "  - When something happened: times are those of the gateway's own clock.",
    ]
    return lines
