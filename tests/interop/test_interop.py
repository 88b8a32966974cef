"""What `make interop` rests upon, without npm: the committed table, the locks, the sentence it looks for."""

import re
import sys
from pathlib import Path

import pytest
from requirements import requirement
from worlds import World

sys.path.insert(1, str(Path(__file__).parent))

from clients import kinds
from held import CANNOT, STEPS
from held import render as held_calls
from install import HERE, ROOT, Peers
from pairs import SENTENCE
from sign_in import LABELS, PLACES
from sign_in import render as sign_ins
from suite import Suite
from table import BEGIN, END, PAGE, differs

pytestmark = pytest.mark.anyio
CLIENTS, SERVERS = 10, 10


def cells() -> list[list[str]]:
    table = PAGE.read_text().split(BEGIN)[1].split(END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("| ").split("|")] for row in rows]


@requirement("GW-4", "GW-5", "GW-6")
def test_the_committed_table_has_every_pair_and_every_pair_works() -> None:
    head, _, *rows = cells()
    assert len(head) == 3 + SERVERS
    assert len(rows) == CLIENTS
    assert {row[2] for row in rows} == {"goes on", "reconnects"}
    assert {cell for row in rows for cell in row[3:]} == {"yes"}
    page = PAGE.read_text()
    made = page[page.index(BEGIN) : page.index(END) + len(END)]
    assert not differs(made)
    assert differs(made.replace("| yes |", "| **calls** |", 1))


@requirement("ID-3", "ID-7")
def test_the_committed_table_says_that_every_client_signs_in_at_both_places() -> None:
    found = {place: dict.fromkeys(LABELS, "") for place in PLACES}
    assert not differs(sign_ins(found))
    for place in PLACES:
        for name in LABELS:
            but = {**found, place: {**found[place], name: "no call is on record"}}
            assert differs(sign_ins(but)), (place, name)


@requirement("APP-4")
def test_the_committed_table_says_how_every_client_is_held() -> None:
    """Every client of the first table is in it, and each does what it can do."""
    labels = {kind.name: kind.label for kind in kinds(Peers(ROOT, Suite(ROOT)))}
    assert list(labels.values()) == [row[0] for row in cells()[2:]]
    assert {name for name, _ in CANNOT} <= set(labels)
    found = {name: dict.fromkeys(STEPS, "") for name in labels}
    assert not differs(held_calls(labels, found))
    for name in labels:
        for step in STEPS:
            but = {**found, name: {**found[name], step: "the answer was a protocol error"}}
            assert differs(held_calls(labels, but)), (name, step)


@requirement("POL-3")
async def test_a_real_denial_is_the_sentence_that_is_looked_for() -> None:
    forbidden = (
        'forbid(principal, action == Action::"up/add", resource) when { context.input has x };'
    )
    text = "Denied by exeat: a policy forbids this action (reason forbidden, decision gw1-7)."
    assert SENTENCE.search(text) is None, "without a remedy it is none"
    properties = {"x": {"type": "string"}}
    tool = {"name": "add", "inputSchema": {"type": "object", "properties": properties}}
    policy = '@id("all") permit(principal, action, resource);' + f'@id("no") {forbidden}'
    async with World(tools=[tool], policy=policy) as world:
        answer = await world.ask(world.tool("add", {"x": "1"}))
        said = answer.json["result"]["content"][0]["text"]
    assert SENTENCE.search(re.sub(r"decision \S+?\)", "decision gw1-7)", said)), said


def test_no_lock_names_an_address() -> None:
    for path in [*HERE.glob("*.lock"), HERE / "package-lock.json", HERE / "package.json"]:
        assert "://" not in path.read_text(), path.relative_to(ROOT)
