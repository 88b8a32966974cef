"""Results as Markdown and as an SVG chart."""

from pathlib import Path
from typing import Any, Final

_COLOURS: Final = {
    "nginx": "#6b7280", "exeat": "#0f766e", "exeat, argument rules": "#5eead4",
    "exeat, argument rules, new values": "#99f6e4",
    "fastmcp": "#b45309", "mcp-proxy": "#7c3aed",
}  # fmt: skip
_KINDS: Final = {
    "free": "",
    "args": ", argument rules",
    "fresh": ", argument rules, new values",
}
_PLAIN: Final = {
    "growth": "A decision under 10,000 policies against one under 100",
    "profile": "Where each microsecond goes (our Python only)",
    "evidence": "The record alone",
    "size": "Large results",
    "scale": "Scale",
    "revocation": "From the commit of a change to the last permitted call",
    "token": "A credential, CPU in µs",
    "budgets": "Reserving from two budgets, durably",
    "soak": "Soak",
}
_WIDTH: Final = 760
_BAR: Final = 22
_LABEL: Final = 290


def write_report(results: dict[str, Any], out: Path) -> str:
    """Write results.md and call.svg; return the Markdown."""
    machine = f"Measured {results['at']} UTC on {results['machine']['cores']} cores"
    parts = [f"{machine}; the disk's own flush takes {results['flush_us']:.0f} µs (median)."]
    if lines := results.get("call"):
        parts.append(_call_table(lines))
        (out / "call.svg").write_text(_chart(lines))
    parts += [f"{name} was left out: {why}" for name, why in results.get("missing", {}).items()]
    if lines := results.get("decision"):
        parts.append(_decision_table(lines))
    parts += [
        f"**{title}**\n\n{_table(results[name])}"
        for name, title in _PLAIN.items()
        if results.get(name)
    ]
    text = "\n\n".join(parts) + "\n"
    (out / "results.md").write_text(text)
    return text


def _table(lines: list[dict[str, Any]]) -> str:
    """Any part whose lines share their columns."""
    columns = list(lines[0])
    rows = ["| " + " | ".join(each.replace("_", " ") for each in columns) + " |"]
    rows.append("|---" * len(columns) + "|")
    for line in lines:
        cells = [f"{x:,}" if isinstance(x, int | float) else str(x) for x in line.values()]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _named(line: dict[str, Any]) -> str:
    return f"{line['target']}{_KINDS[line['kind']]}"


def _call_table(lines: list[dict[str, Any]]) -> str:
    yardstick = {
        (line["era"], line["upstream"], line["connections"]): line
        for line in lines
        if line["target"] == "nginx"
    }
    rows = [
        "| era | upstream | connections | target | CPU µs/call | CPU, nginx = 1"
        " | calls/s | of nginx | p50 µs | p99 µs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(lines, key=lambda x: (x["era"], x["upstream"], x["connections"], x["cpu_us"]))
    for line in order:
        base = yardstick.get((line["era"], line["upstream"], line["connections"]))
        cpu = (
            f"{line['cpu_us'] / base['cpu_us']:.2f}"
            if base and base["cpu_us"] and line["cpu_us"]
            else "–"
        )
        rate = f"{line['rate'] / base['rate']:.2f}" if base and base["rate"] else "–"
        rows.append(
            f"| {line['era']} | {line['upstream']} | {line['connections']} | {_named(line)}"
            f" | {line['cpu_us']:.1f} | {cpu} | {line['rate']:,.0f} | {rate}"
            f" | {line['p50_us']:,.0f} | {line['p99_us']:,.0f} |"
        )
    return "\n".join(rows)


def _decision_table(lines: list[dict[str, Any]]) -> str:
    rows = [
        "| policies | reads arguments | µs, memo on | µs, memo off | compile s |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {line['policies']:,} | {'yes' if line['kind'] == 'args' else 'no'} | {line['memo_us']:.1f}"
        f" | {line['engine_us']:.1f} | {line['compile_s']:.2f} |"
        for line in lines
    ]
    return "\n".join(rows)


def _chart(lines: list[dict[str, Any]]) -> str:
    """CPU per call at 32 connections, JSON upstream, legacy era (which every peer speaks), log scale."""
    era = "2025-11-25"
    shown = sorted(
        (
            x
            for x in lines
            if x["cpu_us"] and (x["era"], x["upstream"], x["connections"]) == (era, "json", 32)
        ),
        key=lambda line: float(line["cpu_us"]),
    )
    height = 60 + len(shown) * (_BAR + 10)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
        ' font-size="14" role="img"><title>CPU of the gateway per tools/call</title>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="10" y="24" font-weight="bold">Gateway CPU per tools/call, µs'
        " (32 connections; logarithmic)</text>",
    ]
    largest = max((line["cpu_us"] for line in shown), default=1.0)
    for index, line in enumerate(shown):
        width = (_WIDTH - _LABEL - 90) * _log(line["cpu_us"]) / _log(largest)
        y = 44 + index * (_BAR + 10)
        name = _named(line)
        parts += [
            f'<text x="{_LABEL - 10}" y="{y + 16}" text-anchor="end">{name}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{width:.0f}" height="{_BAR}" rx="3"'
            f' fill="{_COLOURS.get(name, "#9ca3af")}"/>',
            f'<text x="{_LABEL + width + 8:.0f}" y="{y + 16}">{line["cpu_us"]:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _log(value: float) -> float:
    """0.3 at one microsecond, growing with the number of digits."""
    from math import log10

    return 0.3 + max(log10(value), 0.0)
