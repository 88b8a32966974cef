"""docs/reference/interoperability.md: the part between the marks is made by the run, and is compared."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from install import ROOT

if TYPE_CHECKING:
    from run import Pair

PAGE: Final = ROOT / "docs" / "reference" / "interoperability.md"
BEGIN: Final = "<!-- made by make interop -->"
END: Final = "<!-- end -->"


def render(pairs: "Sequence[Pair]") -> str:
    clients = list(dict.fromkeys(pair.client for pair in pairs))
    servers = list(dict.fromkeys(pair.upstream.name for pair in pairs))
    found = {(pair.client, pair.upstream.name): pair for pair in pairs}
    rows = [
        ["client", "revision", *servers],
        ["---"] * (len(servers) + 2),
        *(
            [kind.label, _versions(kind, pairs), *(_cell(found[kind, s]) for s in servers)]
            for kind in clients
        ),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    packages = dict.fromkeys((pair.upstream.name, pair.upstream.package) for pair in pairs)
    legend = "\n".join(f"* `{name}`: {package}" for name, package in packages)
    return f"{BEGIN}\n{table}\n\nServers:\n\n{legend}\n{END}"


def _versions(kind: object, pairs: "Sequence[Pair]") -> str:
    seen = {pair.version for pair in pairs if pair.client is kind and pair.version}
    return ", ".join(sorted(seen)) or "–"


def _cell(pair: "Pair") -> str:
    if pair.failures:
        return "**" + ", ".join(pair.failures) + "**"
    return "yes" if set(pair.after.values()) == {"goes on"} else "yes, reconnects"


def differs(made: str) -> bool:
    return not PAGE.exists() or made not in PAGE.read_text()


def write(made: str) -> None:
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + made + rest.split(END)[1])
