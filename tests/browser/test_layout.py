"""How the templates lie in both designs, with nodes as large as the front end makes them."""

from __future__ import annotations

import pytest

from tests.browser.page import Page
from tests.browser.test_front_end import MODERN, NAMES

# Names of nodes that lie on each other, or are cut by the frame of a group. In the coordinates of
# the graph: what the modern design draws are elements.
WRONG = """() => {
  const [canvas, { scale, offset }] = [app.canvas.canvas.getBoundingClientRect(), app.canvas.ds];
  const drawn = node => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`);
    if (!LiteGraph.vueNodesMode || !element) {
      const [left, top, width, height] = node.boundingRect;
      return [left, top, left + width, top + height];
    }
    const { left, top, right, bottom } = element.getBoundingClientRect();
    const x = value => (value - canvas.left) / scale - offset[0];
    const y = value => (value - canvas.top) / scale - offset[1];
    return [x(left), y(top), x(right), y(bottom)];
  };
  const touch = (a, b) => a[0] < b[2] - 1 && b[0] < a[2] - 1 && a[1] < b[3] - 1 && b[1] < a[3] - 1;
  const holds = (a, b) => a[0] <= b[0] && a[1] <= b[1] && b[2] <= a[2] && b[3] <= a[3];
  const nodes = (app.graph.nodes ?? app.graph._nodes).map(node => [node.title, drawn(node)]);
  const wrong = [];
  for (const [one, a] of nodes)
    for (const [other, b] of nodes) if (a !== b && touch(a, b)) wrong.push(`${one} on ${other}`);
  for (const group of app.graph.groups ?? app.graph._groups) {
    const [left, top, width, height] = group.boundingRect ?? group._bounding;
    const frame = [left, top, left + width, top + height];
    for (const [title, box] of nodes)
      if (touch(frame, box) && !holds(frame, box)) wrong.push(`${title} cut by ${group.title}`);
  }
  return wrong;
}"""


@pytest.mark.parametrize("modern", [False, True], ids=["classic", "modern"])
def test_nothing_lies_on_anything_else(page: Page, modern: bool) -> None:
    if modern:
        version = page.js("() => window.__COMFYUI_FRONTEND_VERSION__ ?? '0.0'")
        if int(version.split(".")[1]) < MODERN:
            pytest.skip(f"front end {version} has no such design yet")
        page.settings(**{"Comfy.VueNodes.Enabled": True})
        page.open()
    for name in NAMES:
        page.load(name)
        page.tab.wait_for_timeout(700)  # nodes take the room that they need
        assert page.js(WRONG) == [], name
        page.shot(f"{'modern' if modern else 'classic'} {name}")


def test_found_words_have_room(page: Page) -> None:
    page.settings(**{"Comfy.VueNodes.Enabled": True})
    page.open()
    for name in ("MiniFlux erase and compare", "MiniFlux two concepts combined"):
        page.load(name)
        for find in page.tab.locator(".erase-find").all():
            find.click()
        page.until("""() => [...document.querySelectorAll('.erase-near')]
          .every(band => band.querySelector('.erase-found'))""")
        page.tab.wait_for_timeout(700)
        assert page.js(WRONG) == [], name


def test_advanced_inputs_appear_when_asked_for(page: Page) -> None:
    """In the classic design, too, which by itself shows them all."""
    page.load("MiniFlux erase and compare")
    shown = """() => tests.node('EraseAnythingSettings').widgets
      .filter(widget => !widget.hidden).map(widget => widget.name)"""
    assert page.js(shown) == ["batch", "eta", "l_lora", "l_adv", "preset"]
    page.js("() => tests.node('EraseAnythingSettings').toggleAdvanced()")
    assert "tau" in page.js(shown) and len(page.js(shown)) > 20
    tall = page.js("() => tests.node('EraseAnythingSettings').size[1]")
    assert tall > 600
