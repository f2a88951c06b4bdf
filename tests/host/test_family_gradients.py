"""Which of the host's own forwards give right gradients, and which leave the work to ours."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from host.conftest import HOST, PYTHON, ROOT


@pytest.fixture(scope="module")
def found(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What gradients.py finds in the host's process, family by family."""
    out = tmp_path_factory.mktemp("gradients") / "out.json"
    script = ROOT / "tests" / "host" / "gradients.py"
    done = subprocess.run(
        [str(PYTHON), *map(str, (script, HOST, ROOT, out))],
        cwd=HOST,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


def of(found: dict[str, Any], family: str) -> dict[str, Any]:
    if found[family] is None:
        pytest.skip(f"this host has no {family}")
    return found[family]


@pytest.mark.parametrize("family", ["qwen_image", "z_image", "sd3"])
def test_the_hosts_own_forward_differentiates_rightly(found: dict[str, Any], family: str) -> None:
    assert of(found, family)["outcome"] == "right", found[family]


@pytest.mark.parametrize("family", ["flux1", "flux2", "chroma"])
def test_the_hosts_flux_like_trees_cannot_be_trained_through(
    found: dict[str, Any], family: str
) -> None:
    """Their residuals are added in place. Should this fail one day, ours is no longer needed."""
    said = of(found, family)
    assert said["outcome"] == "raises" and "inplace operation" in said["why"], said


def test_our_forward_over_the_hosts_flux_tree_is_right(found: dict[str, Any]) -> None:
    ours = found["flux1_by_ours"]
    assert ours["outcome"] == "right" and ours["difference"] < 1e-5, ours
