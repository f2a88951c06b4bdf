"""Erase Concept in the browser: run, watch, see the result; reload; cancel."""

from __future__ import annotations

import re

import pytest

from tests.browser.page import Page
from tests.host.graphs import SMALL, train

TRAIN = "EraseAnythingTrain"
# Points of the curves.
POINTS = """() => [...document.querySelectorAll('.erase-curve:not([hidden]) .erase-raw')]
  .map(path => path.getAttribute('d')?.split('L').length ?? 0)"""


@pytest.fixture
def erase(page: Page) -> Page:
    """Our first workflow, small enough for a test."""
    page.load("MiniFlux erase and compare")
    page.js(
        """values => {
          const settings = LiteGraph.createNode('EraseAnythingSettings');
          app.graph.add(settings);
          settings.pos = [880, 1100];
          const train = tests.node('EraseAnythingTrain');
          settings.connect(0, train, train.inputs.findIndex(input => input.name === 'settings'));
          for (const [name, value] of Object.entries(values)) tests.set(settings, name, value);
        }""",
        SMALL,
    )
    page.set(TRAIN, width=64, height=64)
    page.set("KSampler", steps=3)
    page.set("EraseAnythingPreview", steps=3, seeds=1)
    page.see(TRAIN)
    return page


def test_curves_move_and_pictures_come(erase: Page) -> None:
    erase.set(TRAIN, steps=12, preview_every=4, filename_prefix="browser")
    erase.run()
    trains(erase, 3)
    early = min(erase.js(POINTS))
    erase.until(f"() => Math.min(...({POINTS})()) > {early + 2}")
    erase.shot("training")
    erase.idle()
    assert erase.js(POINTS) == [12] * 5
    note = erase.tab.locator(".erase-train .erase-note")
    assert note.inner_text() == "Saved as browser_00001.safetensors"
    plot = erase.tab.locator(".erase-plot").first
    plot.hover()
    assert re.match(r"step \d+: ", erase.tab.locator(".erase-value").first.inner_text())
    for kind in (TRAIN, "EraseAnythingPreview", "PreviewImage"):
        erase.until("type => app.nodeOutputs[tests.node(type).id]?.images?.length", kind)
    # The file can be chosen at once.
    erase.until(
        """() => {
          const node = LiteGraph.createNode('LoraLoaderModelOnly');
          return tests.widget(node, 'lora_name').options.values
            .includes('browser_00001.safetensors');
        }"""
    )
    erase.see("KSampler", 0.75)
    erase.shot("compared")
    erase.see("EraseAnythingPreview")
    erase.shot("preview")
    erase.see(TRAIN)
    erase.set(TRAIN, preview_every=6)  # which changes nothing in the file
    erase.run()
    erase.until(
        "() => document.querySelector('.erase-train .erase-note').textContent === "
        "'Used again: browser_00001.safetensors, made on 2025-06-15'"
    )
    assert erase.js(POINTS) == [12] * 5  # its losses are in the file
    erase.shot("used-again")


def test_cancel_keeps_what_there_is(erase: Page) -> None:
    erase.set(TRAIN, steps=2000, preview_every=0, filename_prefix="cancelled")
    erase.set("EraseAnythingSettings", l_adv=0)
    erase.run()
    trains(erase, 3)
    assert not erase.tab.locator(".erase-adv").is_visible()  # without adversaries
    erase.tab.locator("button[aria-label^='Cancel']").first.click()
    check_partial(erase, "cancelled")
    erase.shot("cancelled")
    button = erase.tab.get_by_role("button", name=re.compile(r"Resume: \d+ of 2000 are kept"))
    (kept,) = re.findall(r"(\d+) of", button.inner_text())
    button.click()
    trains(erase, int(kept) + 2)  # the curves begin with those that were kept
    assert not button.is_visible()
    erase.stop()
    check_partial(erase, "cancelled")


def test_a_reload_finds_the_training(erase: Page) -> None:
    erase.set(TRAIN, steps=2000, preview_every=0, filename_prefix="reloaded")
    erase.run()
    trains(erase, 5)
    erase.tab.wait_for_timeout(1500)  # the front end keeps a draft of the workflow
    erase.open()
    erase.until("() => tests.node('EraseAnythingTrain')")
    erase.see(TRAIN)
    trains(erase, 1)
    first = min(erase.js(POINTS))
    assert first >= 5  # those from before the reload
    erase.until(f"() => Math.min(...({POINTS})()) > {first + 2}")  # and those that come
    erase.shot("reloaded")
    erase.stop()
    check_partial(erase, "reloaded")


def trains(erase: Page, points: int) -> None:
    """Wait until a training shows that many points, not what an earlier one left."""
    erase.until("() => document.querySelector('.erase-train')?.dataset.phase === 'training'")
    erase.until(f"() => Math.min(...({POINTS})()) >= {points}")


def check_partial(erase: Page, prefix: str) -> None:
    """The panel names the LoRA that was saved so far, and it is there."""
    erase.until("() => document.querySelector('.erase-train')?.dataset.phase === 'cancelled'")
    note = erase.tab.locator(".erase-train .erase-note").inner_text()
    (name,) = re.findall(rf"{prefix}_\d+\.partial-\d+\.safetensors", note)
    assert (erase.server.base / "models" / "loras" / name).is_file()


def test_a_run_over_the_api_is_not_shown(erase: Page) -> None:
    """Neither while it runs nor after the page is loaded again."""
    node = str(erase.js("type => tests.node(type).id", TRAIN))
    graph = train(steps=1, filename_prefix="foreign")
    graph[node] = graph.pop("train")
    assert erase.server.run(graph).ok
    erase.tab.wait_for_timeout(1500)
    erase.open()
    erase.load("MiniFlux erase and compare")
    erase.tab.wait_for_timeout(1000)
    assert "Press Run" in erase.tab.locator(".erase-train .erase-note").inner_text()


def test_a_run_of_another_workflow_is_not_shown(erase: Page) -> None:
    """Node ids repeat; the state of the run before belongs to that workflow."""
    erase.load("MiniFlux style erasure")
    erase.tab.wait_for_timeout(500)
    assert "Press Run" in erase.tab.locator(".erase-train .erase-note").inner_text()
