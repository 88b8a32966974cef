"""AuthZEN 1.0 (Authorization API 1.0): the published examples, with our subjects, actions and resources, on a
real registry and the real PDP (POL-8).  Names of tests follow the specification's figures."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from portal import ISSUER, Portal
from registry_world import BOB, EVE, GIT, act, definition
from requirements import requirement
from worlds import MemoryLedger
from worlds import State as Frozen

from exeat.app.control_app import Beside
from exeat.app.evaluating import Evaluating
from exeat.app.live import load_view
from exeat.core.controls import Charge, Order
from exeat.core.facts import Effect, tool_action
from exeat.core.ids import AgentId, ServerId
from exeat.core.kills import Target
from exeat.gateway.pipeline import Pipeline
from exeat.identity.authorization.service.clients import New
from exeat.registry.model.agent import Scope
from exeat.registry.model.tool import Profile
from exeat.registry.rules.pins import definition_digest
from exeat.storage.budgets import SqlBudgets
from exeat.storage.state import State, open_state

pytestmark = pytest.mark.anyio
POLICY = """
@id("log") permit(principal, action == Action::"git/log", resource);
@id("note") permit(principal, action == Action::"git/note", resource);
@id("search") @narrow("limit") permit(principal, action == Action::"git/search", resource) when
  { context.input has limit && context.input.limit <= 5 };
@id("push") permit(principal, action == Action::"git/push", resource) when
  { context.session.controls.contains(Control::"approved_by_owner") };
@id("read") permit(principal, action == Action::"resources/read", resource);
@id("get") permit(principal, action == Action::"prompts/get", resource);
"""
CONTROLS = """
budgets:
  - {id: notes, actions: [git/note], counts: calls, limit: "1", window: 1h}
"""
SUBJECT = {"type": "agent", "id": "bot"}
CALL = {"name": "tools/call"}
LOG = {"type": "tool", "id": "git/log"}
ONE = {"subject": SUBJECT, "action": CALL, "resource": LOG}
SCHEMA = {"type": "object", "properties": {"limit": {"type": "integer"}}}


class Pdp:
    """A control listener with a PDP beside it, and an enforcement point that may ask."""

    def __init__(self, state: State) -> None:
        self.state, self.ledger = state, MemoryLedger()
        self.live = Frozen(None)
        pipeline = Pipeline(self.live, self.ledger, lambda: self.portal.now)
        evaluating = Evaluating(
            pipeline,
            lambda server, tool, pin: self.observed.get(tool, pin),
            state.budgets,
            lambda: self.live.view.pdp.controls,
            ISSUER,
        )
        self.observed: dict[str, str] = {}
        self.portal = Portal(state, Beside(evaluator=evaluating))
        self._build()
        self.reload()
        client, self.secret = self.portal.clients.add(
            New("pep", 30, evaluates=True, secret=True), self.portal.doing()
        )
        self.client = client.id

    def _build(self) -> None:
        world = self.portal.world
        names = ("log", "note", "search", "push", "other")
        shown = [definition(name, inputSchema=SCHEMA) for name in names]
        world.show(*shown)
        for name, each in zip(names, shown, strict=True):
            digest = definition_digest(each)
            action = world.registry.pin(tool_action(GIT, name), digest, act()).action
            monotone = (("limit", Order.LESS),) if name == "search" else ()
            effect = Effect.WRITE if name == "push" else Effect.READ
            profile = Profile(effect, monotone=monotone)
            world.registry.confirm_profile(action, profile, digest, act())
        scope = Scope(frozenset({ServerId("git")}), frozenset({Effect.READ, Effect.WRITE}))
        charter_of = world.draft("draft").charter
        drafted = world.registry.register_agent("bot", charter_of, scope, ENDS, act())
        world.registry.accept_scope(drafted.id, drafted.scope_digest, act())
        world.registry.activate(drafted.id, act())
        self.policy(POLICY)

    def policy(self, text: str) -> None:
        files = {"test.cedar": text, "controls.yaml": CONTROLS}
        self.portal.world.registry.apply_policy(files, BOB, act())
        self.reload()

    def reload(self) -> None:
        self.live.view = load_view(self.state, None)

    def basic(self, client: str = "", secret: str = "") -> str:
        text = f"{client or self.client}:{secret or self.secret}"
        return "Basic " + base64.b64encode(text.encode()).decode()

    async def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        text = body if isinstance(body, bytes | str) else json.dumps(body)
        fields = {"Content-Type": "application/json", "Authorization": self.basic(), **headers}
        async with self.portal._http() as http:
            return await http.post(
                path, content=text, headers={k: v for k, v in fields.items() if v}
            )

    async def ask(self, body: Mapping[str, Any], many: bool = False) -> dict[str, Any]:
        answer = await self.post(f"/access/v1/evaluation{'s' if many else ''}", body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        found: dict[str, Any] = answer.json()
        return found

    async def reason(self, **more: Any) -> str:
        answer = await self.ask({**ONE, **more})
        assert answer["decision"] is False
        return str(answer["context"]["reason"])

    def verdicts(self) -> list[str]:
        return [decision.verdict.value for _, decision in self.ledger.decisions]


ENDS = 1_800_000_000 * 10**9 + 50 * 86_400 * 10**9


@pytest.fixture
def pdp(tmp_path: Path) -> Iterator[Pdp]:
    state = open_state(tmp_path / "home")
    yield Pdp(state)
    state.close()


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"resource": {"type": "tool", "id": f"git/{name}"}} for name in names]


def decided(answer: Mapping[str, Any]) -> list[bool]:
    return [each["decision"] for each in answer["evaluations"]]


# ---- sections 6, 7, 9 and 10: the examples


@requirement("POL-8")
async def test_example_access_evaluation_request_and_response(pdp: Pdp) -> None:
    body = {
        "subject": SUBJECT,
        "resource": LOG,
        "action": {**CALL, "properties": {"arguments": {"limit": 3}}},
        "context": {"time": "1985-10-26T01:22-07:00"},
    }
    request_id = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"
    answer = await pdp.post("/access/v1/evaluation", body, **{"X-Request-ID": request_id})
    assert answer.status_code == 200 and answer.headers["x-request-id"] == request_id
    assert answer.json() == {
        "decision": True, "context": {"reason": "permitted", "decision_id": "d0"},
    }  # fmt: skip


@requirement("POL-8", "GW-1")
async def test_an_evaluation_is_a_decision_on_record_without_an_effect(pdp: Pdp) -> None:
    assert (await pdp.ask({**ONE, "context": {"run": "r-7"}}))["decision"] is True
    ((request, decision),), (context,) = pdp.ledger.decisions, pdp.ledger.contexts
    assert (request.action, request.caller.agent.id, request.now) == (
        "git/log", "bot", pdp.portal.now,
    )  # fmt: skip
    assert (decision.permitted, decision.policies) == (True, ("log",))
    assert (context.mode, context.run, context.approval) == ("evaluate", "r-7", "")
    assert context.chain == ("evaluated for CL-pep",) and request.caller.credential == "CL-pep"
    assert pdp.ledger.ended == [("failed", "evaluated")]
    assert await pdp.reason(resource={"type": "tool", "id": "git/other"}) == "not_permitted"
    assert len(pdp.ledger.decisions) == 2 and len(pdp.ledger.outcomes) == 1


@requirement("POL-8")
@pytest.mark.parametrize("form", ["every value", "default subject", "default action, overridden"])
async def test_example_access_evaluations_request(pdp: Pdp, form: str) -> None:
    """7.1 and 7.1.1: what stands in an evaluation overrides the default."""
    edit = {"action": {"name": "can_edit"}}
    if form == "every value":
        body: dict[str, Any] = {"evaluations": [{**ONE, **each} for each in tools("log", "other")]}
        body["evaluations"].append({**ONE, **edit})
    elif form == "default subject":
        items = [{"action": CALL, **each} for each in tools("log", "other")]
        body = {"subject": SUBJECT, "evaluations": [*items, {**edit, "resource": LOG}]}
    else:
        items = [*tools("log", "other"), {**edit, "resource": LOG}]
        body = {"subject": SUBJECT, "action": CALL, "evaluations": items}
    answer = await pdp.ask({**body, "context": {"time": "2024-05-31T15:22-07:00"}}, many=True)
    assert set(answer) == {"evaluations"} and decided(answer) == [True, False, False]
    assert answer["evaluations"][2]["context"]["reason"] == "method_unknown"
    assert pdp.verdicts() == ["permit", "deny", "deny"]


@requirement("POL-8")
@pytest.mark.parametrize(
    ("semantic", "expected"),
    [
        (None, [True, False, True]),
        ("execute_all", [True, False, True]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
async def test_example_evaluations_semantics(
    pdp: Pdp, semantic: str | None, expected: list[bool]
) -> None:
    """7.1.2.1; what is not answered was not asked either."""
    options = {
        "another_option": "value",
        **({"evaluations_semantic": semantic} if semantic else {}),
    }
    body = {"subject": SUBJECT, "action": CALL, "options": options}
    answer = await pdp.ask({**body, "evaluations": tools("log", "other", "log")}, many=True)
    assert decided(answer) == expected
    assert len(pdp.ledger.decisions) == len(expected)


@requirement("POL-8")
async def test_example_errors_of_single_evaluations(pdp: Pdp) -> None:
    """7.2.1: closed, with what is wrong; the others are answered."""
    items = [LOG, {"type": "document", "id": "1"}, {"type": "tool", "id": "git/other"}]
    body = {"subject": SUBJECT, "action": CALL, "evaluations": [{"resource": r} for r in items]}
    answer = await pdp.ask(body, many=True)
    assert decided(answer) == [True, False, False]
    error = answer["evaluations"][1]["context"]["error"]
    assert error["status"] == 400 and "resource.type" in error["message"]
    lacking = {"subject": SUBJECT, "action": CALL, "evaluations": [{"resource": LOG}, {}]}
    answer = await pdp.ask(lacking, many=True)
    assert decided(answer) == [True, False]
    assert "resource" in answer["evaluations"][1]["context"]["error"]["message"]
    first = {**body, "options": {"evaluations_semantic": "deny_on_first_deny"}}
    assert decided(await pdp.ask(first, many=True)) == [True, False]


@requirement("POL-8")
@pytest.mark.parametrize("more", [{}, {"evaluations": []}])
async def test_without_evaluations_it_is_one_evaluation(pdp: Pdp, more: dict[str, Any]) -> None:
    assert (await pdp.ask({**ONE, **more}, many=True))["decision"] is True


@requirement("POL-8")
async def test_example_metadata(pdp: Pdp) -> None:
    async with pdp.portal._http() as http:
        answer = await http.get("/.well-known/authzen-configuration")
    said = answer.json()
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert said["policy_decision_point"] == ISSUER
    assert said["access_evaluation_endpoint"] == f"{ISSUER}/access/v1/evaluation"
    assert said["access_evaluations_endpoint"] == f"{ISSUER}/access/v1/evaluations"
    assert "redact" in said["supported_obligations"]
    assert not any(name.startswith("search_") for name in said)


@requirement("POL-8")
async def test_prompts_resources_servers_and_unknown_members(pdp: Pdp) -> None:
    for resource, action in (
        ({"type": "prompt", "id": "git/review"}, "prompts/get"),
        ({"type": "resource", "id": "git/file:///a/b"}, "resources/read"),
        ({"type": "server", "id": "git"}, "tools/list"),
        ({**LOG, "properties": {"arguments": {"limit": 1}, "owner": "x"}}, "tools/call"),
    ):
        body = {**ONE, "resource": resource, "action": {"name": action, "new": 1}, "later": {}}
        assert (await pdp.ask(body))["decision"] is True, resource
    seen = [(request.target, dict(request.arguments)) for request, _ in pdp.ledger.decisions]
    assert seen == [
        ("review", {"name": "review"}), ("file:///a/b", {"uri": "file:///a/b"}), ("", {}),
        ("log", {"limit": 1}),
    ]  # fmt: skip
    assert await pdp.reason(resource={"type": "tool", "id": "nowhere/log"}) == "out_of_scope"
    assert await pdp.reason(resource={"type": "tool", "id": "git/none"}) == "action_unknown"


# ---- more than yes and no


@requirement("POL-8", "APP-1")
async def test_a_hold_says_what_would_be_needed_and_asks_nobody(pdp: Pdp) -> None:
    answer = await pdp.ask({**ONE, "resource": {"type": "tool", "id": "git/push"}})
    assert answer["decision"] is False
    assert answer["context"]["reason"] == "approval_required"
    assert answer["context"]["hold"] == {"alternatives": [["approved_by_owner"]]}
    assert "nobody was asked" in answer["context"]["remedy"]
    assert pdp.verdicts() == ["hold"] and pdp.ledger.outcomes == []
    with pdp.state.approvals.read() as read:
        assert read.load(AgentId("bot"), pdp.portal.now, 0).pending == 0


@requirement("POL-8", "APP-8")
async def test_budgets_are_looked_at_and_nothing_is_taken(pdp: Pdp) -> None:
    note = {**ONE, "resource": {"type": "tool", "id": "git/note"}}
    for _ in range(3):
        answer = await pdp.ask(note)
        assert answer["decision"] is True, answer
    assert answer["context"]["obligations"] == [
        {"id": "o1", "type": "budget", "properties": {"value": "notes=1"}}
    ]
    (charge,) = pdp.ledger.decisions[-1][1].charges
    assert isinstance(charge, Charge) and pdp.state.budgets.reserve([charge], "c-1") is None
    spent = await pdp.ask(note)
    assert spent["decision"] is False and spent["context"]["reason"] == "budget_exhausted"
    assert "notes" in spent["context"]["remedy"] and "obligations" not in spent["context"]
    pdp.state.budgets.release("c-1")
    assert (await pdp.ask(note))["decision"] is True


@requirement("POL-8", "APP-8", "APP-10")
async def test_what_changes_while_budgets_are_looked_at_is_answered_as_it_is_now(
    pdp: Pdp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer without an obligation that policy had come to ask by then."""
    look = SqlBudgets.look
    redacted = POLICY.replace(
        'action == Action::"git/note", resource)',
        'action == Action::"git/note", resource)'
        ' when { context.session.controls.contains(Control::"redacted_pii") }',
    )

    def changing(self: SqlBudgets, charges: Any) -> Any:
        pdp.policy(redacted)
        return look(self, charges)

    monkeypatch.setattr(SqlBudgets, "look", changing)
    note = {**ONE, "resource": {"type": "tool", "id": "git/note"}}
    understood = {"supported_obligations": ["budget", "control", "redact"]}
    answer = await pdp.ask({**note, "context": understood})
    assert answer["decision"] is True
    asked = {each["type"] for each in answer["context"]["obligations"]}
    assert asked == {"budget", "control", "redact"}
    assert "redact:email" in pdp.ledger.decisions[-1][1].obligations


@requirement("POL-8")
@pytest.mark.parametrize(
    ("understood", "permitted"),
    [(None, False), (["narrow", "redact"], True), (["redact"], False), ([], False)],
)
async def test_an_obligation_that_cannot_be_met_denies(
    pdp: Pdp, understood: list[str] | None, permitted: bool
) -> None:
    body: dict[str, Any] = {
        **ONE,
        "resource": {"type": "tool", "id": "git/search"},
        "action": {**CALL, "properties": {"arguments": {"limit": 400}}},
    }
    if understood is not None:
        body["context"] = {"supported_obligations": understood}
    answer = await pdp.ask(body)
    assert answer["decision"] is permitted
    if permitted:
        context = answer["context"]
        assert context["arguments"] == {"limit": 5}
        assert context["obligations"] == [
            {"id": "o1", "type": "narrow", "properties": {"value": "limit"}}
        ]
    else:
        assert answer["context"]["reason"] == "obligation_unknown"
        assert pdp.verdicts() == ["deny"], "what is answered is what is on record"


@requirement("POL-8", "ID-2", "ID-5")
async def test_who_is_asked_about(pdp: Pdp) -> None:
    assert await pdp.reason(subject={**SUBJECT, "id": "nobody"}) == "agent_unregistered"
    assert await pdp.reason(subject={**SUBJECT, "id": "draft"}) == "agent_not_active"
    for user, reason in ((EVE, ""), ("mallory", "user_not_live")):
        asked = {**SUBJECT, "properties": {"user": user}}
        answer = await pdp.ask({**ONE, "subject": asked})
        assert answer["decision"] is not bool(reason)
    assert pdp.ledger.decisions[-2][0].caller.user.id == EVE  # type: ignore[union-attr]
    scoped = {**SUBJECT, "properties": {"scope": "mcp:write other"}}
    assert await pdp.reason(subject=scoped) == "insufficient_scope"
    assert pdp.ledger.contexts[-1].chain[-1] == "scope mcp:write other"


@requirement("POL-8", "REG-6")
async def test_a_definition_that_changed_is_no_longer_permitted(pdp: Pdp) -> None:
    pdp.observed["log"] = "0" * 64
    assert await pdp.reason() == "definition_changed"


@requirement("POL-8", "APP-9", "APP-10")
async def test_kills_freshness_and_changes_count_as_for_a_call(pdp: Pdp) -> None:
    pdp.live.fresh = False
    assert await pdp.reason() == "state_stale"
    pdp.live.fresh = True
    pdp.portal.world.registry.suspend(AgentId("bot"), act())
    pdp.reload()
    assert await pdp.reason() == "agent_not_active"
    pdp.portal.world.registry.kill(Target.TOOL, "git/log", act())
    pdp.reload()
    assert await pdp.reason() == "killed"


@requirement("POL-8", "APP-10")
async def test_a_change_while_it_is_recorded_denies(pdp: Pdp) -> None:
    import asyncio

    pdp.ledger.hold = True
    asking = asyncio.ensure_future(pdp.ask(ONE))
    while not pdp.ledger.held:
        await asyncio.sleep(0)
    pdp.policy("forbid(principal, action, resource);")
    pdp.ledger.release()
    answer = await asking
    assert (answer["decision"], answer["context"]["reason"]) == (False, "forbidden")
    assert pdp.ledger.ended == [("failed", "state_changed")]


@requirement("POL-8", "GW-1")
async def test_what_cannot_be_recorded_is_not_answered(pdp: Pdp) -> None:
    pdp.ledger.failure = "disk full"
    answer = await pdp.post("/access/v1/evaluation", ONE)
    assert answer.status_code == 503 and "disk full" in answer.text
    many = await pdp.ask({**ONE, "evaluations": [{}, {}]}, many=True)
    assert decided(many) == [False, False]
    assert many["evaluations"][0]["context"]["error"]["status"] == 503


# ---- who may ask, and what is refused


@requirement("POL-8", "GW-13")
async def test_who_may_ask(pdp: Pdp) -> None:
    portal = pdp.portal
    _, key = portal.world.registry.issue_key(AgentId("bot"), None, 3600, act())
    agents, secret = portal.clients.add(
        New("of-bot", 30, agent=AgentId("bot"), secret=True), portal.doing()
    )
    gone, old = portal.clients.add(New("gone", 30, evaluates=True, secret=True), portal.doing())
    portal.clients.revoke(gone.id, portal.doing())
    for sent, status in (
        ("", 401),
        (f"Bearer {key}", 401),
        (pdp.basic(secret="wrong"), 401),
        (pdp.basic("CL-none"), 401),
        ("Basic %%%", 401),
        (pdp.basic(gone.id, old), 401),
        (pdp.basic(agents.id, secret), 403),
    ):
        answer = await pdp.post("/access/v1/evaluation", ONE, Authorization=sent)
        assert answer.status_code == status, (sent, answer.text)
        challenged = answer.headers.get("www-authenticate", "")
        assert challenged.startswith("Basic ") == (status == 401)
    assert pdp.ledger.decisions == []
    for _ in range(25):
        answer = await pdp.post(
            "/access/v1/evaluations", ONE, Authorization=pdp.basic("CL-x", "guess")
        )
    assert answer.status_code == 429
    assert (await pdp.ask(ONE))["decision"] is True, "others go on"


@requirement("POL-8")
async def test_such_a_client_can_do_nothing_else(pdp: Pdp) -> None:
    for kind in ("client_credentials", "authorization_code", "urn:exeat:evaluate"):
        form = {"grant_type": kind, "client_id": pdp.client, "client_secret": pdp.secret}
        assert (await pdp.portal.token(**form)).status_code in (400, 401)


BAD: list[tuple[Any, str]] = [
    (b"", "JSON"),
    (b"[]", "object"),
    (b'{"subject": {}, "subject": {}}', "duplicate"),
    (b"[" * 500, "JSON"),
    ({}, "subject"),
    ({**ONE, "subject": "bot"}, "subject"),
    ({**ONE, "subject": {"type": "agent"}}, "subject.id"),
    ({**ONE, "subject": {"type": "user", "id": "ada"}}, "subject.type"),
    ({**ONE, "subject": {**SUBJECT, "id": 7}}, "subject.id"),
    ({**ONE, "subject": {**SUBJECT, "id": ""}}, "subject.id"),
    ({**ONE, "subject": {**SUBJECT, "properties": []}}, "subject.properties"),
    ({**ONE, "subject": {**SUBJECT, "properties": {"user": 1}}}, "subject.properties.user"),
    ({**ONE, "subject": {**SUBJECT, "properties": {"scope": []}}}, "scope"),
    ({**ONE, "action": {}}, "action.name"),
    ({**ONE, "action": {"name": "x" * 500}}, "action.name"),
    ({**ONE, "action": {"name": "resources/read"}}, "action.name"),
    ({**ONE, "action": {**CALL, "properties": {"arguments": [1]}}}, "arguments"),
    ({**ONE, "resource": {"type": "tool", "id": "log"}}, "resource.id"),
    ({**ONE, "resource": {"type": "tool", "id": "git/"}}, "resource.id"),
    ({**ONE, "resource": {"type": "account", "id": "123"}}, "resource.type"),
    ({**ONE, "context": "now"}, "context"),
    ({**ONE, "context": {"run": ["r"]}}, "context.run"),
    ({**ONE, "context": {"supported_obligations": "redact"}}, "supported_obligations"),
    ({**ONE, "action": {**CALL, "properties": {"arguments": {"limit": 2**70}}}}, "64 bits"),
]


@requirement("POL-8")
@pytest.mark.parametrize(("body", "says"), BAD)
async def test_a_malformed_request_is_400_with_a_message(pdp: Pdp, body: Any, says: str) -> None:
    answer = await pdp.post("/access/v1/evaluation", body, **{"X-Request-ID": "r1"})
    assert answer.status_code == 400 and says in answer.text
    assert answer.headers["x-request-id"] == "r1" and pdp.ledger.decisions == []


@requirement("POL-8")
async def test_limits(pdp: Pdp) -> None:
    path = "/access/v1/evaluations"
    assert len((await pdp.ask({**ONE, "evaluations": [{}] * 50}, many=True))["evaluations"]) == 50
    for bad, says in (
        ({"evaluations": [{}] * 51}, "50"),
        ({"evaluations": {}}, "array"),
        ({"evaluations": [1]}, "objects"),
        ({"evaluations": [{}], "options": 1}, "options"),
        ({"evaluations": [{}], "options": {"evaluations_semantic": "any"}}, "execute_all"),
    ):
        answer = await pdp.post(path, {**ONE, **bad})
        assert answer.status_code == 400 and says in answer.text
    large = {**ONE, "context": {"more": "x" * 70_000}}
    assert (await pdp.post(path, large)).status_code == 413
    answer = await pdp.post(path, ONE, **{"Content-Type": "text/plain"})
    assert answer.status_code == 400 and "Content-Type" in answer.text
    answer = await pdp.post(path, ONE, **{"X-Request-ID": "x" * 300})
    assert answer.status_code == 400 and "X-Request-ID" in answer.text
