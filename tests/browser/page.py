"""The front end as the tests use it: through what a person sees, and through its own API."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.host.client import Client

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WORKFLOWS = Path(__file__).parents[2] / "workflows"
PATIENCE = 90_000  # ms
# A folder for screenshots of what the tests see; none are taken where it is not set.
SCREENSHOTS = os.environ.get("SCREENSHOTS")
READY = "() => window.app?.extensions?.some(e => e.name === 'eraseanything.panels') && app.graph"
# Helpers that the scripts below use; they live in the page.
HELPERS = """
window.tests = {
  node: (type, number = 0) => (app.graph.nodes ?? app.graph._nodes)
    .filter(node => node.type === type)[number],
  widget: (node, name) => node.widgets.find(widget => widget.name === name),
  set(node, name, value) {
    const widget = this.widget(node, name);
    widget.value = value;
    widget.callback?.(value);
  },
};
"""


class Page:
    """One tab."""

    def __init__(self, tab: Any, server: Client) -> None:
        self.tab, self.server = tab, server
        self.errors: list[str] = []  # ours
        self.changed = False  # whether settings are not those of a new page
        tab.on("pageerror", self._heard)
        tab.add_init_script(HELPERS)
        tab.set_default_timeout(PATIENCE)

    def _heard(self, error: Any) -> None:
        if "eraseanything" in (error.stack or "").lower():
            self.errors.append(str(error))

    def settings(self, **changed: Any) -> None:
        """What the front end is set to when it is opened next."""
        self.changed = bool(changed)
        known = {
            "Comfy.TutorialCompleted": True,
            "Comfy.InstalledVersion": "1.27.10",
            "Comfy.ColorPalette": "dark",
            "Comfy.Locale": "en",
            "Comfy.VueNodes.Enabled": False,
            "Comfy.Minimap.Visible": False,
        }
        self.server.post("/settings", known | changed)

    def open(self) -> None:
        """Load the page, or load it again."""
        self.tab.goto(f"http://127.0.0.1:{self.server.port}/")
        self.tab.wait_for_function(READY)
        self.tab.wait_for_timeout(1500)  # it restores the last workflow

    def js(self, code: str, argument: Any = None) -> Any:
        return self.tab.evaluate(code, argument)

    def until(self, code: str, argument: Any = None) -> None:
        self.tab.wait_for_function(code, arg=argument)

    def load(self, name: str) -> None:
        """Open one of our workflows, without the template browser."""
        graph = json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))
        self.js("graph => app.loadGraphData(graph)", graph)
        self.tab.wait_for_timeout(500)

    def set(self, type: str, /, **values: Any) -> None:
        """Change widgets of every node of a type."""
        self.js(
            """([type, values]) => {
              for (const node of (app.graph.nodes ?? app.graph._nodes)) if (node.type === type)
                for (const [name, value] of Object.entries(values)) tests.set(node, name, value);
            }""",
            [type, values],
        )

    def see(self, type: str, scale: float = 0.9) -> None:
        """Move the canvas so that the first node of a type is in view."""
        self.js(
            """([type, scale]) => {
              const [x, y] = tests.node(type).pos;
              app.canvas.ds.scale = scale;
              app.canvas.ds.offset = [120 / scale - x, 120 / scale - y];
              app.canvas.setDirty(true, true);
            }""",
            [type, scale],
        )
        self.tab.wait_for_timeout(400)

    def run(self) -> None:
        """Press the Run button."""
        names = ("Run", "Queue", "Queue Prompt", "运行", "执行")
        for name in names:
            button = self.tab.get_by_role("button", name=name, exact=True)
            if button.count():
                button.first.click()
                return
        raise AssertionError("no Run button")

    def stop(self) -> None:
        """End whatever the server does."""
        self.server.post("/queue", {"clear": True})
        self.server.post("/interrupt", {})

    def unroute(self) -> None:
        """Undo what a test did to the network."""
        self.tab.unroute_all()

    def idle(self) -> None:
        """Wait until the server has nothing left to do."""
        until = time.monotonic() + PATIENCE / 1000
        while any(self.server.get("/queue").values()):
            assert time.monotonic() < until, "the run does not end"
            self.tab.wait_for_timeout(300)
        self.tab.wait_for_timeout(700)

    def shot(self, name: str) -> None:
        if SCREENSHOTS:
            self.tab.wait_for_timeout(600)
            self.tab.screenshot(path=f"{SCREENSHOTS}/{name}.png")
