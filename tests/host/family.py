"""What holds for every family in the host's own process; see small.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from host.test_inside import inside


def measure(name: str, base: Path, environment: dict[str, str], out: Path) -> dict[str, Any]:
    """What the script of a family measures in the host's process; the first error of it."""
    found = inside(name, base, environment, out, f"{name}.py")
    told = [said for said in found.values() if isinstance(said, dict)]
    broken = [said["raised"] for said in told if "raised" in said]
    assert not broken, broken[0]
    return found


class InTheHost:
    """Tests of a family; ``measured`` is a fixture of its module."""

    name: ClassVar[str]
    file: ClassVar[str]  # stem
    steps: ClassVar[list[int]]  # of two pictures, as they are told: the first and all

    def test_our_forward_and_our_files_are_the_hosts(self, measured: dict[str, Any]) -> None:
        """A LoRA of every role, of which the host knows all keys. ComfyUI 0.3.64 tells no file."""
        velocity = measured["velocity"]
        assert velocity["change"] > 0.02 and velocity["edit_change"] > 0.02, velocity
        assert max(velocity[name] for name in ("plain", "lora", "edit", "carried")) < 1e-4, velocity
        assert velocity["not_loaded"] == []
        assert velocity["family"] == self.name and velocity["name"] in (self.file, self.name)

    def test_attention_through_the_hosts_layers_is_the_standalone_trees(
        self, measured: dict[str, Any]
    ) -> None:
        assert measured["attention"] < 1e-4

    def test_gradients_through_inference_tensors_are_the_standalone_trees(
        self, measured: dict[str, Any]
    ) -> None:
        assert measured["gradients"] < 1e-4

    def test_the_hosts_sampler_draws_what_ours_draws(self, measured: dict[str, Any]) -> None:
        pictures = measured["pictures"]
        assert pictures["contrast"] > 0.05 and pictures["unguided"] > 0.02, pictures
        assert pictures["mean"] < 1e-3, pictures
        assert pictures["steps"] == self.steps
