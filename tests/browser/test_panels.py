"""The attention viewer and the concept chips in the browser."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.page import Page

PIXELS = """() => {
  const canvas = document.querySelector('.erase-heat canvas');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return data.reduce((sum, value, i) => (sum * 31 + value * (i % 97)) % 1000003, 0);
}"""
CHIPS = "EraseAnythingConceptSet"
TOLD = {
    "set": {
        "version": 1,
        "concepts": [
            {
                "name": "crane",
                "kind": "entity",
                "sense": "crane.n.04",
                "synonyms": ["wader"],
                "irrelevant": {"none": ["chair"], "far": [], "mid": ["duck"], "near": ["heron"]},
                "sentences": [],
            }
        ],
    },
    "own": ["crane"],
    "source": "WordNet",
    "senses": [
        {"name": "crane.n.04", "definition": "lifts and moves heavy objects", "examples": []},
        {"name": "crane.n.05", "definition": "large long-necked wading bird", "examples": []},
    ],
    "file": "",
}


def test_hovering_a_word_shows_where_it_lands(page: Page) -> None:
    page.load("MiniFlux attention maps")
    page.set("EraseAnythingAttentionMap", steps=6, width=192, height=128)
    page.see("EraseAnythingAttentionMap")
    page.run()
    words = page.tab.locator("button.erase-word")
    words.first.wait_for()
    page.idle()
    told = words.all_inner_texts()
    assert " ".join(told) == "a tiger left of a car on a yellow background"
    shape = page.tab.locator(".erase-heat canvas").evaluate(
        "canvas => canvas.width / canvas.height"
    )
    assert shape == pytest.approx(1.5, abs=0.01)
    seen = {}
    for word in ("tiger", "car", "yellow"):
        words.filter(has_text=word).hover()
        assert f"“{word}”" in page.tab.locator(".erase-attention .erase-note").inner_text()
        seen[word] = page.js(PIXELS)
    page.shot("attention")
    assert len(set(seen.values())) == 3
    page.tab.mouse.move(5, 500)
    assert page.js(PIXELS) == seen["tiger"]  # the first word that was asked for is kept
    words.filter(has_text="car").click()
    page.tab.mouse.move(5, 500)
    assert page.js(PIXELS) == seen["car"]
    words.filter(has_text="tiger").focus()
    page.tab.keyboard.press("ArrowRight")
    assert page.js("() => document.activeElement.innerText") == "left"
    page.tab.keyboard.press("Enter")
    page.tab.locator(".erase-choices select").first.select_option(label="1")
    assert page.js(PIXELS) not in seen.values()


@pytest.fixture
def chips(page: Page) -> Page:
    page.load("MiniFlux erase and compare")
    page.set(CHIPS, concept="crane", source="WordNet")
    page.js("told => tests.node('EraseAnythingConceptSet').onExecuted(told)", _output(TOLD))
    page.see(CHIPS)
    return page


def _output(told: dict[str, Any]) -> dict[str, Any]:
    return {"eraseanything_concepts": [told]}


def value(page: Page, name: str) -> str:
    """A text input as the saved workflow has it."""
    return page.js(
        """name => {
          const node = tests.node('EraseAnythingConceptSet');
          const saved = app.graph.serialize().nodes.find(other => other.type === node.type);
          return saved.widgets_values[node.widgets.findIndex(widget => widget.name === name)];
        }""",
        name,
    )


def test_chips_write_the_words_into_the_workflow(chips: Page) -> None:
    near = chips.tab.locator(".erase-near")
    assert near.locator(".erase-found").all_inner_texts() == ["heron\n×"]
    assert value(chips, "irrelevant_near") == ""  # found, not chosen
    chips.shot("chips")
    field = near.locator("input")
    field.fill("stork")
    field.press("Enter")
    chips.tab.keyboard.type("egret, ibis,")
    assert value(chips, "irrelevant_near") == "heron, stork, egret, ibis"
    near.get_by_label("Remove stork").click()
    assert value(chips, "irrelevant_near") == "heron, egret, ibis"
    near.locator("input").press("Backspace")
    assert value(chips, "irrelevant_near") == "heron, egret"
    assert not near.locator(".erase-found").count()
    near.locator(".erase-reset").click()
    assert value(chips, "irrelevant_near") == ""


def test_a_list_can_be_emptied(chips: Page) -> None:
    erased = chips.tab.locator(".erase-erased")
    erased.get_by_label("Remove wader").focus()
    chips.tab.keyboard.press("Enter")
    assert not erased.locator(".erase-chip").count() and value(chips, "synonyms") == "-"
    chips.tab.keyboard.type("waterbird,")  # the keyboard is where it was
    assert value(chips, "synonyms") == "waterbird"
    erased.get_by_label("Remove waterbird").click()
    chips.js("() => app.loadGraphData(app.graph.serialize())")
    chips.tab.wait_for_timeout(500)
    assert value(chips, "synonyms") == "-"
    erased.locator(".erase-reset").click()
    assert value(chips, "synonyms") == ""


def test_words_go_with_their_concept(chips: Page) -> None:
    field = chips.tab.locator(".erase-erased input")
    field.fill("wading bird")
    field.press("Enter")
    chips.set(CHIPS, concept="Crane ")  # the same
    assert value(chips, "synonyms") == "wader, wading bird"
    chips.set(CHIPS, concept="tiger")
    assert value(chips, "synonyms") == ""
    chips.set(CHIPS, concept="crane")
    assert value(chips, "synonyms") == "wader, wading bird"
    assert not chips.tab.get_by_text("Take them along").count()
    chips.set(CHIPS, concept="cranes of Japan")
    assert value(chips, "synonyms") == ""
    chips.tab.get_by_text("Take them along").click()
    assert value(chips, "synonyms") == "wader, wading bird"
    assert not chips.tab.get_by_text("Take them along").count()


def test_a_meaning_can_be_chosen(chips: Page) -> None:
    senses = chips.tab.get_by_role("radio")
    assert senses.count() == 2 and senses.first.get_attribute("aria-checked") == "true"
    title = senses.nth(1).get_attribute("title")
    senses.nth(1).click()
    assert value(chips, "sense") == title
    chips.tab.locator(f"[role=radio][aria-checked=true][title='{title}']").wait_for()
    assert "heron\n×" not in chips.tab.locator(".erase-near .erase-found").all_inner_texts()


def test_a_word_cannot_smuggle_in_markup(chips: Page) -> None:
    field = chips.tab.locator(".erase-mid input")
    field.fill("<img src=x onerror=document.title='broken'>")
    field.press("Enter")
    assert not chips.tab.locator(".erase-mid img").count()
    assert "<img" in value(chips, "irrelevant_mid")


def test_words_survive_saving_and_loading(chips: Page) -> None:
    field = chips.tab.locator(".erase-far input")
    field.fill("pond")
    field.press("Enter")
    chips.js("() => app.loadGraphData(app.graph.serialize())")
    chips.tab.wait_for_timeout(500)
    assert "pond" in chips.tab.locator(".erase-far .erase-chip").first.inner_text()
    assert value(chips, "irrelevant_far") == "pond"


def test_words_are_found_in_a_subgraph_too(page: Page) -> None:
    page.load("MiniFlux erase and compare")
    page.js(
        """() => {
          const node = tests.node('EraseAnythingConceptSet');
          const { node: outer } = app.graph.convertToSubgraph(new Set([node]));
          app.canvas.openSubgraph(outer.subgraph, outer);
        }"""
    )
    page.tab.locator(".erase-find").click()
    page.tab.locator(".erase-found").first.wait_for()


def test_find_words_answers_without_a_run(page: Page) -> None:
    page.load("MiniFlux erase and compare")
    page.see(CHIPS)
    page.tab.locator(".erase-find").click()
    page.tab.locator(".erase-found").first.wait_for()
    assert "bengal\n×" in page.tab.locator(".erase-erased .erase-found").all_inner_texts()
    page.shot("found")
    page.set(CHIPS, concept="tigre")
    page.tab.locator(".erase-find").click()
    page.tab.get_by_text('Did you mean "tiger"?').wait_for()
    assert page.js("() => Object.keys(app.nodeOutputs).length") == 0  # nothing was run
