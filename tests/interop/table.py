"""docs/reference/interoperability.md: the part between the marks is made by the run, and is compared."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from install import ROOT

if TYPE_CHECKING:
    from clients import Kind
    from pairs import Pair

PAGE: Final = ROOT / "docs" / "reference" / "interoperability.md"
BEGIN: Final = "<!-- made by make interop -->"
END: Final = "<!-- end -->"
SIGN_IN: Final = ("<!-- made by make interop: sign-in -->", "<!-- end of sign-in -->")
HELD: Final = ("<!-- made by make interop: held -->", "<!-- end of held -->")


def render(pairs: "Sequence[Pair]") -> str:
    clients = list(dict.fromkeys(pair.client for pair in pairs))
    servers = list(dict.fromkeys(pair.upstream.name for pair in pairs))
    found = {(pair.client, pair.upstream.name): pair for pair in pairs}
    rows = [
        ["client", "revision", "after a restart", *servers],
        ["---"] * (len(servers) + 3),
        *(
            [kind.label, *_of(kind, pairs), *(_cell(found[kind, s]) for s in servers)]
            for kind in clients
        ),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    packages = dict.fromkeys((pair.upstream.name, pair.upstream.package) for pair in pairs)
    legend = "\n".join(f"* `{name}`: {package}" for name, package in packages)
    return f"{BEGIN}\n{table}\n\nServers:\n\n{legend}\n{END}"


def _of(kind: "Kind", pairs: "Sequence[Pair]") -> list[str]:
    """The revision that a client agreed upon, and how it goes on after a restart."""
    mine = [pair for pair in pairs if pair.client is kind]
    versions = {pair.version for pair in mine if pair.version}
    went = {how for pair in mine for how in pair.after.values()}
    return [", ".join(sorted(said)) or "–" for said in (versions, went)]


def _cell(pair: "Pair") -> str:
    return f"**{', '.join(pair.failures)}**" if pair.failures else "yes"


def differs(made: str) -> bool:
    return not PAGE.exists() or made not in PAGE.read_text()


def write(made: str, begin: str = BEGIN, end: str = END) -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(begin)
    PAGE.write_text(before + made + rest.partition(end)[2])
