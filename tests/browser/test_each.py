"""The table on Erase Each Concept: a line a concept, in the order of the list."""

from __future__ import annotations

from typing import Any

from tests.browser.page import Page

NAMES = ("tiger", "a winged xylophone", "car")
ADD = """() => {
  app.graph.clear();
  const node = LiteGraph.createNode('EraseAnythingEach');
  node.pos = [0, 0];
  app.graph.add(node);
}"""
# As the server tells it; see nodes/live.py.
HEAR = """async ([name, told]) => {
  const { api } = await import('/scripts/api.js');
  const graph = app.rootGraph ?? app.graph;
  const mine = { node: String(tests.node('EraseAnythingEach').id), prompt_id: 'p' };
  const detail = { ...mine, workflow: String(graph.id ?? ''), ...told };
  api.dispatchEvent(new CustomEvent(name, { detail }));
}"""


def row(concept: str, said: str = "", seconds: float = 0, file: str = "") -> dict[str, Any]:
    failed = said.startswith("MiniFlux does not")
    return {"concept": concept, "said": said, "seconds": seconds, "file": file, "failed": failed}


def test_every_concept_gets_a_line(page: Page) -> None:
    page.js(ADD)
    page.see("EraseAnythingEach")
    note = page.tab.locator(".erase-each .erase-note")
    assert "every concept gets a line" in note.inner_text()
    done = row(NAMES[0], "tiger 98 % -> 0 %, everything else 97 % -> 96 %", 75, "tiger_00001")
    failed = row(NAMES[1], "MiniFlux does not know it.")
    rows = [done, failed, row(NAMES[2])]
    page.js(HEAR, ["eraseanything.each", {"now": "car", "rows": rows}])
    assert note.inner_text() == "2 of 3 are over; at work: car"
    lines = page.tab.locator(".erase-each tr")
    assert [line.split("\t") for line in lines.all_inner_texts()] == [
        ["tiger", done["said"], "1 min 15 s", "tiger_00001"],
        ["a winged xylophone", failed["said"], "", ""],
        ["car", "…", "", ""],
    ]
    assert page.tab.locator(".erase-failed").inner_text().startswith("a winged xylophone")
    assert page.tab.locator(".erase-now").inner_text().startswith("car")
    told = {"phase": "training", "step": 3, "total": 12, "title": "Erasing “car”"}
    more = {"seconds_left": 8, "losses": {}, "history": [], "first": 1, "file": ""}
    page.js(HEAR, ["eraseanything.progress", told | more])
    assert note.inner_text() == "Erasing “car”: Training 3 / 12, 8 s left"
    page.shot("each")
    rows[2] = row(NAMES[2], "done", 60, "car_00001")
    page.js(
        "rows => tests.node('EraseAnythingEach').onExecuted({eraseanything_each: [{rows}]})", rows
    )
    assert note.inner_text() == "3 of 3 are over."
