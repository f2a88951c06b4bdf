"""A real browser on a live host's front end.

Chromium is looked for at CHROMIUM, else on the PATH. COMFYUI_FRONTEND names the ``static`` folder
of another front end package than the host's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.page import FLAGS, Page
from tests.host.client import Client
from tests.host.conftest import base, environment, running, toys

__all__ = ["base", "environment", "toys"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.host)
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(base: Path, environment: dict[str, str]) -> Iterator[Client]:  # noqa: F811
    """A live server of our own: the pages change its settings."""
    front_end = os.environ.get("COMFYUI_FRONTEND")
    more = ("--front-end-root", front_end) if front_end else ()
    with running(base, environment, *more) as client:
        yield client


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium; set CHROMIUM to its path")
    play = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with play.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tab(chromium: Any, server: Client) -> Iterator[Page]:
    """The front end in a tab, opened once: that costs seconds."""
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    page = Page(context.new_page(), server)
    page.settings()
    page.open()
    yield page
    context.close()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """The tab: dark, in English, with classic nodes; idle again afterwards."""
    yield tab
    tab.stop()
    tab.unroute()
    if tab.changed:
        tab.settings()
        tab.open()
    assert not tab.errors
