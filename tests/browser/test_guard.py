"""Erase Guard dropped into one of the host's own templates, with toy models in their places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.page import Page
from tests.host.client import Client

TEMPLATE = "image_z_image_turbo"
# Takes the template's subgraph apart, as "Unpack Subgraph" does, and leaves what it loads to toys.
SWAP = """async name => {
  const graph = await (await fetch(`/templates/${name}.json`)).json();
  await app.loadGraphData(graph);
  const whole = app.graph.nodes.find(node => node.subgraph);
  if (whole) app.graph.unpackSubgraph(whole);
  const toy = LiteGraph.createNode('ToyModel');
  app.graph.add(toy);
  tests.set(toy, 'family', 'z_image');
  toy.pos = [-600, 0];
  const swapped = [['UNETLoader', 0], ['CLIPLoader', 1]];
  for (const [type, slot] of swapped) {
    const loader = tests.node(type);
    const ends = [...loader.outputs[0].links].map(id => app.graph.links.get(id));
    for (const { target_id, target_slot } of ends)
      toy.connect(slot, app.graph.getNodeById(target_id), target_slot);
    app.graph.remove(loader);
  }
  tests.set(tests.node('VAELoader'), 'vae_name', 'miniflux_vae.safetensors');
  tests.set(tests.node('CLIPTextEncode'), 'text', 'a tiger in the snow');
  const latent = tests.node('EmptySD3LatentImage');
  tests.set(latent, 'width', 64);
  tests.set(latent, 'height', 64);
  tests.set(tests.node('KSampler'), 'steps', 4);
}"""
# What a person does: two nodes, and the guard's MODEL into the sampler.
ADD = """() => {
  const add = (type, pos) => {
    const node = LiteGraph.createNode(type);
    node.pos = pos;
    app.graph.add(node);
    return node;
  };
  const sampler = tests.node('KSampler');
  const socket = (node, name) => node.inputs.findIndex(input => input.name === name);
  const link = app.graph.links.get(sampler.inputs[socket(sampler, 'model')].link);
  const model = app.graph.getNodeById(link.origin_id);
  const concept = add('EraseAnythingConceptSet', [-600, 200]);
  tests.set(concept, 'concept', 'tiger');
  tests.set(concept, 'source', 'by hand');
  const guard = add('EraseAnythingGuard', [-1100, 0]);
  model.connect(link.origin_slot, guard, socket(guard, 'model'));
  tests.node('ToyModel').connect(1, guard, socket(guard, 'clip'));
  concept.connect(0, guard, socket(guard, 'concepts'));
  guard.connect(0, sampler, socket(sampler, 'model'));
}"""


@pytest.fixture(scope="module")
def toy_page(chromium: Any, toys: Client) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    page = Page(context.new_page(), toys)
    page.settings()
    page.open()
    yield page
    page.stop()
    context.close()
    assert not page.errors


def test_a_guard_in_the_hosts_own_template_says_how_it_acts(toy_page: Page) -> None:
    page = toy_page
    page.js(SWAP, TEMPLATE)
    page.js(ADD)
    page.see("EraseAnythingGuard", 0.8)
    assert page.tab.locator(".erase-guard .erase-note").inner_text().startswith("While a picture")
    page.run()
    page.tab.locator(".erase-guard rect").nth(3).wait_for(state="attached")
    page.idle()
    page.shot("guard in the Z-Image template")
    note = page.tab.locator(".erase-guard .erase-note").inner_text()
    assert note.startswith("Acts on tiger, most at step ")
    heights = page.tab.locator(".erase-guard rect").evaluate_all(
        "bars => bars.map(bar => Number(bar.getAttribute('height')))"
    )
    assert len(heights) == 4 and max(heights) > 1
    assert list((page.server.base / "output").glob("z-image-turbo*.png"))
    page.js("() => tests.set(tests.node('CLIPTextEncode'), 'text', 'a car and a rose')")
    page.run()
    page.until("() => document.querySelector('.erase-guard .erase-note').innerText.includes('no')")
    page.idle()
    note = page.tab.locator(".erase-guard .erase-note").inner_text()
    assert note == "Finds no tiger in these prompts; the pictures stay as they are."
