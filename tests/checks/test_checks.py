"""What others' checkers say of the package as the registry gets it.

They are programs of an environment of their own; ``make checks`` sets it up, CHECKS names it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.host.client import Client
from tests.host.conftest import ROOT, base, environment, server

__all__ = ["base", "environment", "server"]
pytestmark = pytest.mark.checks

BIN = Path(os.environ.get("CHECKS", ROOT / "build" / "checks" / "bin"))
# Why each stays: CONTRIBUTING.md.
KEPT = {"host.js: shared-object-monkeypatch"}
GRAVE = ("high", "critical")


def said(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A checker's run in a folder."""
    command = [str(BIN / program), *arguments]
    quiet = os.environ | {"PYTHONUTF8": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What would be published: the files that git tracks, as they are here, less .comfyignore's."""
    source, packed = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("packed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=source, check=True)
    done = said("comfy", "--skip-prompt", "node", "pack", folder=source)
    assert (source / "node.zip").is_file(), done.stdout + done.stderr
    folder = packed / "eraseanything"
    ZipFile(source / "node.zip").extractall(folder)
    assert (folder / "nodes").is_dir() and not (folder / "tests").exists()
    return folder


def test_comfy_cli_would_publish_it(package: Path) -> None:
    done = said("comfy", "--skip-prompt", "node", "validate", folder=package)
    told = done.stdout + done.stderr
    assert done.returncode == 0 and "passed" in told, told


def test_comfy_test_finds_nothing_but_what_is_kept(package: Path) -> None:
    told = said("comfy-test", "lint", ".", folder=package).stdout
    assert "[javascript]" in told, told
    errors = re.findall(r"\[ERROR\] (\S+?):\d+ (\S+)", told)
    assert {f"{file}: {rule}" for file, rule in errors} == KEPT, told
    assert "not encodable" not in told, told


def test_nodesafe_finds_nothing_grave(package: Path) -> None:
    report = json.loads(said("nodesafe", "scan", ".", "--format", "json", folder=package).stdout)
    assert report["findings"]
    grave = [found for found in report["findings"] if found["severity"] in GRAVE]
    assert grave == [] and report["verdict"]["label"] != "malicious", report["verdict"]


def lacks_a_file(found: dict[str, str]) -> bool:
    """Whether a workflow only names a model's file that is not installed here."""
    return found["rule"] == "invalid-enum" and ".safetensors' is not" in found["message"]


def test_comfy_lint_takes_every_workflow(package: Path, server: Client) -> None:  # noqa: F811
    flows = sorted((package / "workflows" / "api").glob("*.json"))
    address = f"http://127.0.0.1:{server.port}"
    done = said("comfy-lint", "--json", "--server", address, *map(str, flows), folder=package)
    assert flows and done.stdout, done.stderr
    told = json.loads(done.stdout)["files"]
    found = [one for flow in told for one in flow["diagnostics"] if not lacks_a_file(one)]
    assert len(told) == len(flows) and found == [], found
