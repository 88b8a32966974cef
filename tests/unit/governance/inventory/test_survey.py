"""REG-5: what goes through the gateway, what bypasses it, what stands twice."""

import pytest
from client_files import everything
from requirements import requirement

from exeat.governance.inventory.clients import CLIENTS, Scope
from exeat.governance.inventory.entries import Entry, Reach
from exeat.governance.inventory.survey import Gateways, identity, named, summary, survey

HERE = Gateways(("http://127.0.0.1:8717/mcp",))


def server(name: str = "x", **fields: object) -> Entry:
    reach = Reach.HTTP if "url" in fields else Reach.STDIO
    client = CLIENTS["cursor"]
    return Entry(client, Scope.USER, name, ("mcpServers", name), name, "", reach, {}, **fields)  # type: ignore[arg-type]


@requirement("REG-5")
@pytest.mark.parametrize(
    ("fields", "behind"),
    [
        ({"url": "http://127.0.0.1:8717/mcp"}, ""),
        ({"url": "http://localhost:8717/mcp/"}, ""),
        ({"url": "http://[::1]:8717/mcp/git"}, "git"),
        ({"command": ("/opt/bin/exeat", "bridge", "http://127.0.0.1:8717/mcp/git")}, "git"),
        ({"command": ("py", "-m", "exeat.cli.main", "bridge", "http://localhost:8717/mcp")}, ""),
        ({"command": ("npx", "-y", "mcp-remote@0.1", "http://127.0.0.1:8717/mcp/git")}, "git"),
        ({"url": "http://127.0.0.1:8718/mcp"}, None),
        ({"url": "https://127.0.0.1:8717/mcp"}, None),
        ({"url": "http://127.0.0.1:8717/mcpx"}, None),
        ({"url": "http://127.0.0.1:8717/mcp/git/other"}, None),
        ({"url": "http://127.0.0.1:8717@evil.test/mcp"}, None),
        ({"url": "http://127.0.0.1:8717/mcp?to=elsewhere"}, None),
        ({"url": "http://127.0.0.1:x/mcp"}, None),
        ({"command": ("exeat", "bridge", "https://evil.test/mcp")}, None),
        ({"command": ("exeat", "bridge")}, None),
        ({"command": ("exeat-like", "bridge", "http://127.0.0.1:8717/mcp")}, None),
    ],
)
def test_only_a_known_gateways_address_counts_as_through_it(
    fields: dict[str, object], behind: str | None
) -> None:
    (seen,) = survey([server(**fields)], HERE)
    assert (seen.behind, seen.bypasses) == (behind, behind is None)


@requirement("REG-5")
def test_a_gateway_under_a_path_of_its_own() -> None:
    far = Gateways(("https://gw.example.test/agents/mcp",))
    assert far.leads_to("https://GW.example.test:443/agents/mcp/git") == "git"
    assert far.leads_to("https://gw.example.test/mcp/git") is None


@requirement("REG-5")
def test_without_a_known_gateway_everything_bypasses_it() -> None:
    (seen,) = survey([server(url="http://127.0.0.1:8717/mcp")], Gateways(()))
    assert seen.bypasses


@requirement("REG-5")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"command": ("npx", "-y", "a@1.0")}, {"command": ("/usr/bin/npx", "a@2.0")}),
        ({"command": ("npx", "-y", "@s/a@latest", "/d")}, {"command": ("npx.cmd", "@s/a", "/d")}),
        ({"command": ("c", "--token", "one-value")}, {"command": ("c", "--token", "other-value")}),
        ({"url": "https://H.test/mcp?key=one-value"}, {"url": "https://h.test:443/mcp/"}),
        ({"url": "https://h.test/mcp"}, {"command": ("npx", "mcp-remote", "https://h.test/mcp")}),
    ],
)
def test_the_same_server_is_known_whatever_its_version_and_secrets(
    one: dict[str, object], other: dict[str, object]
) -> None:
    assert identity(server(**one)) == identity(server("y", **other))
    first, second = survey([server(**one), server("y", **other)], HERE)
    assert [t.name for t in first.twins] == ["y"] and [t.name for t in second.twins] == ["x"]


@requirement("REG-5")
def test_different_servers_stay_different() -> None:
    listed = [
        server(command=("npx", "a", "/one")),
        server(command=("npx", "a", "/two")),
        server(command=("npx", "b", "/one")),
        server(url="https://h.test/mcp"),
        server(url="http://h.test/mcp"),
        server(url="https://h.test/other"),
    ]
    assert all(not each.twins for each in survey(listed, HERE))


@requirement("REG-5")
def test_the_figures_of_all_clients() -> None:
    seen = survey(everything(), HERE)
    assert summary(seen) == {
        "servers": 32,
        "files": 13 - 3,
        "bypassing": 32,
        "secrets": 16,
        "twice": 2,
    }
    assert [f"{s.entry.client.id}/{s.entry.name}" for s in named(seen, ["github"])] == [
        "claude-code/github",
        "claude-desktop/github",
        "codex/github",
        "windsurf/github",
    ]
    assert [s.entry.name for s in named(seen, ["windsurf"])] == ["zap", "github"]
    assert len(list(named(seen, ["windsurf/github", "codex/docs"]))) == 2
