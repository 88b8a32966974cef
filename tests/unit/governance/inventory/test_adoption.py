"""REG-5: what a server becomes behind the gateway; no secret enters a specification."""

import json

import pytest
from client_files import SECRETS, everything
from requirements import requirement

from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.governance.inventory.adoption import Adopted, Around, CannotAdopt, adopted
from exeat.governance.inventory.clients import CLIENTS, Place, Scope, read_document
from exeat.governance.inventory.entries import Entry, entries
from exeat.governance.inventory.moves import plan_moves, server_id
from exeat.governance.inventory.survey import Gateways, survey
from exeat.registry.model.server import check_spec

AROUND = Around("/home/ada", lambda path: ("FROM_FILE", "LOG"))
HERE = Gateways(("http://127.0.0.1:8717/mcp",))


def one(raw: dict[str, object], client: str = "vscode", project: str = "") -> Entry:
    who = CLIENTS[client]
    scope = Scope.PROJECT if project else Scope.USER
    text = json.dumps({who.holders[0][0]: {"x": raw}})
    (entry,) = entries(Place(who, scope, "f", project), "f", read_document(who, text))
    return entry


def taken(raw: dict[str, object], project: str = "", client: str = "vscode") -> Adopted:
    found = adopted(one(raw, client, project), ServerId("x"), AROUND)
    check_spec(found.spec)
    return found


@requirement("REG-5")
def test_no_secret_of_any_client_enters_a_specification() -> None:
    seen = survey(everything(), HERE)
    plan = plan_moves(seen, {}, AROUND)
    assert len(plan.moves) == 26 and len(plan.stays) == 6
    shown = repr([(m.spec, m.variables, m.secrets, m.notes) for m in plan.moves])
    shown += repr([(s.why, s.remedy) for s in plan.stays])
    assert not [secret for secret in SECRETS if secret in shown]
    for move in plan.moves:
        check_spec(move.spec)


@requirement("REG-5", "ID-10")
def test_a_commands_secrets_go_into_the_vault() -> None:
    found = taken({
        "command": "npx", "args": ["-y", "srv"], "cwd": "~/w", "envFile": "${userHome}/.env",
        "env": {"API_KEY": "EXAMPLE-0", "TOKEN": "${input:t}", "LOG": "info", "DB": "postgres://u:EXAMPLE@h", "NO_KEY": ""},
    })  # fmt: skip
    assert found.spec == ServerSpec(
        ServerId("x"), Transport.STDIO, command=("npx", "-y", "srv"), env={"LOG": "info"},
        env_from=("TOKEN", "FROM_FILE"), cwd="/home/ada/w", env_secret={"API_KEY": "api_key", "DB": "db"},
    )  # fmt: skip
    assert [(g.name, g.value) for g in found.secrets] == [
        ("api_key", "EXAMPLE-0"),
        ("db", "postgres://u:EXAMPLE@h"),
    ]
    assert found.secrets[0].holds == "its API_KEY (9 characters)"
    assert "EXAMPLE" not in repr(found)
    assert [(v.name, v.holds) for v in found.variables] == [
        ("TOKEN", "what `${input:t}` stood for"),
        ("FROM_FILE", "its value in /home/ada/.env"),
    ]


@requirement("REG-5", "ID-10")
def test_headers_go_into_the_vault_and_unknown_ones_are_asked_for() -> None:
    found = taken({"url": "https://u:EXAMPLE@h.test/mcp", "headers": {
        "X-Key": "EXAMPLE-0", "Content-Type": "application/json", "X-Tenant": "t-${env:T}",
        "X-Auth": "Token ${env:A}", "X-Whole": "${env:W:-}"}})  # fmt: skip
    assert found.spec.url == "https://h.test/mcp"
    assert found.spec.headers_secret == {
        "Authorization": "authorization",
        "X-Key": "x-key",
        "X-Tenant": "x-tenant",
        "X-Auth": "Token {x-auth}",
        "X-Whole": "x-whole",
    }
    assert found.secrets[0].value == "Basic dTpFWEFNUExF"
    assert [(g.holds, bool(g.value)) for g in found.secrets[1:]] == [
        ("its header X-Key (9 characters)", True),
        ("its header X-Tenant, with `${env:T}` filled in", False),
        ("what `${env:A}` stood for", False),
        ("what `${env:W}` stood for", False),
    ]


@requirement("REG-5")
def test_what_codex_takes_from_its_environment() -> None:
    found = taken({"url": "https://h.test", "bearer_token_env_var": "T"}, client="vscode")
    assert found.spec.headers_secret == {"Authorization": "Bearer {authorization}"}
    assert [(g.holds, g.value) for g in found.secrets] == [("the value of T", "")]
    found = taken({"url": "https://h.test", "env_http_headers": {"X-T": "TENANT"}})
    assert found.spec.headers_from == {"X-T": "TENANT"}


@requirement("REG-5")
@pytest.mark.parametrize("value", ["tab\there", "new\nline", "ünï", " zzz"])
def test_a_header_that_cannot_be_sent_stays_and_is_not_told(value: str) -> None:
    with pytest.raises(Invalid, match="cannot be sent in a header") as refused:
        taken({"url": "https://h.test", "headers": {"X-Key": value}})
    assert value.strip() not in str(refused.value)


@requirement("REG-5")
def test_containers_take_their_secrets_from_the_environment() -> None:
    found = taken({"command": "docker", "args": [
        "run", "-i", "-e", "A_TOKEN=EXAMPLE-a", "--env=B_TOKEN=EXAMPLE-b", "-eC_TOKEN=EXAMPLE-c", "-e", "LOG=1", "img"]})  # fmt: skip
    assert found.spec.command == (
        "docker", "run", "-i", "-e", "A_TOKEN", "--env=B_TOKEN", "--env=C_TOKEN", "-e", "LOG=1", "img",
    )  # fmt: skip
    assert found.spec.env_secret == {n: n.lower() for n in ("A_TOKEN", "B_TOKEN", "C_TOKEN")}
    assert [g.value for g in found.secrets] == ["EXAMPLE-a", "EXAMPLE-b", "EXAMPLE-c"]


@requirement("REG-5")
def test_mcp_remote_with_headers_becomes_an_address() -> None:
    found = taken({"command": "npx", "args": [
        "-y", "mcp-remote@latest", "https://h.test/mcp", "--header", "Authorization:${AUTH}"],
        "env": {"AUTH": "Bearer EXAMPLE-0"}})  # fmt: skip
    assert (found.spec.url, found.spec.command) == ("https://h.test/mcp", ())
    assert found.spec.headers_secret == {"Authorization": "authorization"}
    assert found.secrets[0].value == "Bearer EXAMPLE-0"
    signs_in = taken({"command": "npx", "args": ["mcp-remote", "https://h.test/mcp"]})
    assert signs_in.spec.command == ("npx", "mcp-remote", "https://h.test/mcp")


@requirement("REG-5")
def test_a_projects_server_runs_in_its_project() -> None:
    assert taken({"command": "./s.py"}, "/srv/p").spec.cwd == "/srv/p"
    assert taken({"command": "s", "cwd": "./a/../b"}, "/srv/p").spec.cwd == "/srv/p/b"
    found = taken({"command": "s", "args": ["${workspaceFolder}/x"]}, "/srv/p")
    assert found.spec.command == ("s", "/srv/p/x")


@requirement("REG-5")
@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"command": "s", "args": ["--token", "EXAMPLE-0"]}, "takes a secret as an argument"),
        ({"command": "s", "args": ["postgres://u:EXAMPLE@h/d"]}, "takes a secret as an argument"),
        ({"url": "https://h.test/mcp?api_key=EXAMPLE-0"}, "its address holds a secret"),
        ({"url": "https://h.test/sk-EXAMPLE-not-a-real-key-0/mcp"}, "its address holds a secret"),
        ({"url": "https://h.test/sse", "type": "sse"}, "the HTTP\\+SSE transport"),
        ({"url": "https://${input:host}/mcp"}, "only VS Code fills in"),
        ({"command": "s", "args": ["${workspaceFolder}"]}, "only VS Code fills in"),
        ({"command": "s", "cwd": "./x"}, "depends on where VS Code is started"),
        ({"url": "https://h.test", "headersHelper": "make-headers"}, "a command of the client"),
        ({"command": 5}, "could not use it either"),
    ],
)
def test_what_cannot_move_says_why(raw: dict[str, object], why: str) -> None:
    with pytest.raises(CannotAdopt, match=why) as refused:
        adopted(one(raw), ServerId("x"), AROUND)
    assert "EXAMPLE" not in f"{refused.value} {refused.value.remedy}"


@requirement("REG-5")
def test_what_an_administrator_set_stays() -> None:
    place = Place(CLIENTS["codex"], Scope.MANAGED, "/etc/codex/config.toml")
    document = read_document(CLIENTS["codex"], '[mcp_servers.x]\ncommand = "s"\n')
    (entry,) = entries(place, "f", document)
    with pytest.raises(CannotAdopt, match="an administrator set it"):
        adopted(entry, ServerId("x"), AROUND)


@requirement("REG-5")
def test_the_same_server_is_registered_once() -> None:
    seen = survey([one({"command": "s"}), one({"command": "s"}, "cursor")], HERE)
    plan = plan_moves(seen, {}, AROUND)
    assert [(m.server, m.new) for m in plan.moves] == [("x", True), ("x", False)]
    known = {
        ServerId("mine"): ServerSpec(ServerId("mine"), Transport.STDIO, command=("s",), shared=True)
    }
    plan = plan_moves(seen, known, AROUND)
    assert [(m.server, m.new) for m in plan.moves] == [("mine", False)] * 2


@requirement("REG-5")
def test_other_servers_of_the_same_name_get_their_own_ids() -> None:
    seen = survey([one({"command": name}) for name in "abc"], HERE)
    known = {ServerId("x-2"): ServerSpec(ServerId("x-2"), Transport.STDIO, command=("z",))}
    assert [m.server for m in plan_moves(seen, known, AROUND).moves] == ["x", "x-3", "x-4"]


@requirement("REG-5", "ID-10")
def test_each_server_has_its_own_secrets() -> None:
    def with_key(command: str, value: str) -> Entry:
        return one({"command": command, "env": {"API_KEY": value}})

    seen = survey([with_key("a", "EXAMPLE-1"), with_key("b", "EXAMPLE-2")], HERE)
    plan = plan_moves(seen, {}, AROUND)
    assert [(m.server, [g.value for g in m.secrets]) for m in plan.moves] == [
        ("x", ["EXAMPLE-1"]),
        ("x-2", ["EXAMPLE-2"]),
    ]
    twins = survey([with_key("a", "EXAMPLE-1"), with_key("a", "EXAMPLE-2")], HERE)
    second = plan_moves(twins, {}, AROUND).moves[1]
    assert (second.new, second.secrets) == (False, ())
    assert second.notes == ("it had another value of api_key; from now on there is one for all",)


@requirement("REG-5")
def test_one_variable_of_the_environment_cannot_hold_two_values() -> None:
    def with_key(command: str, value: str) -> Entry:
        return one({"command": command, "env": {"API_KEY": value}})

    seen = survey([with_key("a", "${A}"), with_key("b", "${B}"), with_key("c", "${A}")], HERE)
    plan = plan_moves(seen, {}, AROUND)
    assert [m.spec.command for m in plan.moves] == [("a",), ("c",)]
    assert [s.why for s in plan.stays] == ["another server needs another value of API_KEY"]
    assert plan.moves[1].notes == ("API_KEY goes to another server, too: both get one value",)


@requirement("REG-5", "ID-9")
def test_a_server_to_which_people_may_sign_in_is_told() -> None:
    seen = survey(
        [
            one({"url": "https://a.test/mcp"}),
            one({"url": "https://b.test/mcp", "auth": {"CLIENT_ID": "c"}}),
            one({"url": "https://c.test/mcp", "headers": {"X-Key": "EXAMPLE-0"}}),
        ],
        HERE,
    )
    how = "if people sign in: exeat server change x{} --auth authorization-code"
    assert [m.notes for m in plan_moves(seen, {}, AROUND).moves] == [
        (f"no credential stands in its entry; {how.format('')}",),
        (f"its own sign-in (auth) is not carried over; {how.format('-2')}",),
        (),
    ]


@requirement("REG-5")
def test_what_goes_through_the_gateway_already_stays() -> None:
    seen = survey([one({"url": "http://localhost:8717/mcp/git"})], HERE)
    plan = plan_moves(seen, {}, AROUND)
    assert not plan.moves and plan.stays[0].why == "it goes through the gateway already"


@requirement("REG-5")
@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("GitHub MCP", "github-mcp"),
        ("ünï", "n"),
        ("---", "server"),
        ("A" * 50, "a" * 31),
        ("x_y.z", "x-y-z"),
    ],
)
def test_ids_are_made_of_names(name: str, server: str) -> None:
    assert server_id(name) == server
