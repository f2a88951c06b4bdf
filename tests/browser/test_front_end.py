"""Templates, twins, themes, languages and the modern node design."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from tests.browser.page import WORKFLOWS, Page
from tests.host.client import Client

MODERN = 40  # minor version of a front end that shows element widgets on modern nodes
CHINESE = re.compile(r"[\u4e00-\u9fff]")
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))


def test_the_template_browser_opens_a_workflow(page: Page) -> None:
    page.js("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = page.tab.get_by_role("dialog").first
    dialog.get_by_text("eraseanything", exact=True).first.click()
    card = dialog.get_by_text("MiniFlux erase and compare", exact=True).first
    card.wait_for()
    lines = dialog.inner_text().splitlines()
    told = [*dict.fromkeys(line for line in lines if line in NAMES)]  # titles, descriptions
    mini = [name for name in NAMES if name.startswith("MiniFlux")]
    assert told[0] == "MiniFlux erase and compare"
    assert {*told[: len(mini)]} == {*mini}  # first what needs no download
    page.until(
        """() => [...document.querySelectorAll('[role=dialog] img')]
          .filter(image => image.naturalWidth >= 256).length >= 4"""
    )
    page.shot("templates")
    card.click()
    page.until("() => tests.node('EraseAnythingTrain')")
    page.shot("workflow")


def test_twins_are_what_the_front_end_sends(page: Page) -> None:
    known = page.js("async () => (await fetch('/object_info')).json()")
    for name in NAMES:
        page.load(name)
        sent = page.js("async () => (await app.graphToPrompt()).output")
        twin = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text("utf-8"))
        for item in [*sent.values(), *twin.values()]:
            item.pop("_meta", None)
        for item in twin.values():  # an older host lacks an input or two of core's nodes
            inputs = known[item["class_type"]]["input"]
            names = {name for group in inputs.values() for name in group}
            item["inputs"] = {n: v for n, v in item["inputs"].items() if n in names}
        assert sent == twin, name
        cramped = page.js(
            """() => (app.graph.nodes ?? app.graph._nodes)
              .filter(node => node.computeSize()[1] > node.size[1] + 6).map(node => node.type)"""
        )
        assert not cramped, name
        page.shot(name.replace(" ", "_"))


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_both_themes_can_be_read(page: Page, palette: str) -> None:
    if palette == "light":
        page.settings(**{"Comfy.ColorPalette": palette})
        page.open()
    page.load("MiniFlux erase and compare")
    page.see("EraseAnythingConceptSet")
    text = page.js("() => getComputedStyle(document.querySelector('.erase-name')).color")
    light = sum(int(part) for part in text[4:-1].split(",")[:3]) > 3 * 128
    assert light == (palette == "dark")
    page.shot(f"theme_{palette}")


def test_chinese_all_over(page: Page) -> None:
    page.settings(**{"Comfy.Locale": "zh"})
    page.open()
    page.load("MiniFlux erase and compare")
    page.see("EraseAnythingConceptSet")
    assert "保留：近邻词" in page.tab.locator(".erase-near .erase-name").inner_text()
    title = page.js("() => LiteGraph.createNode('EraseAnythingTrain').title")
    assert title == "擦除概念（训练）"
    labels = page.js("() => LiteGraph.createNode('EraseAnythingTrain').widgets.map(w => w.label)")
    assert "预览间隔" in labels
    run = page.js(
        """() => {
          const { value, options } = tests.widget(tests.node('EraseAnythingTrain'), 'run');
          return [value, ...options.values.map(options.getOptionLabel)];
        }"""
    )
    assert run == ["as needed", "按需", "重新开始", "继续"]
    groups, notes = page.js(
        """() => [
          app.graph.groups.map((group) => group.title),
          [tests.node('MarkdownNote')].map((node) => node.title + node.widgets[0].value),
        ]"""
    )
    assert groups[0] == "1 · 模型" and all(CHINESE.search(title) for title in groups)
    assert notes[0].startswith("使用说明**点击运行**。") and "Press" not in notes[0]
    page.until(
        """() => fetch('/settings').then((reply) => reply.json())
          .then((all) => all['EraseAnything.Language'] === 'zh')"""
    )
    page.shot("chinese")


def test_the_modern_design_shows_the_panels(page: Page) -> None:
    version = page.js("() => window.__COMFYUI_FRONTEND_VERSION__ ?? '0.0'")
    if int(version.split(".")[1]) < MODERN:
        pytest.skip(f"front end {version} has no such design yet, or no widgets of ours in it")
    page.settings(**{"Comfy.VueNodes.Enabled": True})
    page.open()
    page.load("MiniFlux erase and compare")
    page.see("EraseAnythingConceptSet", 0.7)
    for panel in (".erase-concepts", ".erase-train"):
        assert page.tab.locator(panel).bounding_box()["height"] > 100
    assert not page.tab.get_by_text("irrelevant_near", exact=True).count()
    page.shot("modern")


def test_help_pages_are_served(server: Client) -> None:
    for name in (path.stem for path in (WORKFLOWS.parent / "web" / "docs").glob("*.md")):
        for path in (f"{name}.md", f"{name}/zh.md"):
            address = f"http://127.0.0.1:{server.port}/extensions/eraseanything/docs/{path}"
            with urllib.request.urlopen(address) as reply:
                assert reply.read(2) == b"# "
