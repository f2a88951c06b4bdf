"""Combine Erasers: several LoRAs as one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..erase_core.erasers.combine import METHODS, Part, combine, combined_metadata
from ..erase_core.errors import EraseError
from . import eraser, hosts, inputs

SLOTS = ("_1", "_2", "_3", "_4")


class Combine(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingCombine",
            display_name="Combine Erasers",
            category=inputs.CATEGORY,
            description="Makes one eraser of several, for several concepts at once. cat adds their "
            "changes exactly.",
            inputs=[
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip="cat: the exact sum, its rank the sum of the ranks. linear, ties and "
                    "dare: blends of equal ranks. svd: the sum, squeezed into the highest rank.",
                ),
                *(part for slot in SLOTS for part in _slot(slot)),
                io.Float.Input(
                    "density",
                    default=0.5,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Share of the values that ties and dare keep.",
                ),
                inputs.seed(2**32 - 1, "Seed of what dare drops.", optional=True),
            ],
            outputs=[
                eraser.SOCKET.Output(display_name="lora", tooltip="The combined eraser."),
            ],
            **inputs.aliases("merge lora", "combine lora", "ties", "dare"),
        )

    @classmethod
    def execute(
        cls, method: str, density: float = 0.5, seed: int = 0, **slots: Any
    ) -> io.NodeOutput:
        parts = []
        for slot in SLOTS:
            found = eraser.choose(slots.get(f"lora{slot}"), slots.get(f"lora_file{slot}", "none"))
            if found is not None:
                parts.append(Part(found, slots.get(f"weight{slot}", 1.0), found.metadata))
        if not parts:
            raise EraseError("There is nothing to combine; connect or choose at least one eraser.")
        with hosts.training():
            tensors = combine(parts, method, density, seed)
        metadata = combined_metadata(parts, method, tensors)
        return io.NodeOutput(eraser.Eraser(tensors, metadata))


def _slot(slot: str) -> list[Any]:
    weight = io.Float.Input(
        f"weight{slot}",
        default=1.0,
        min=-10.0,
        max=10.0,
        step=0.05,
        optional=True,
        tooltip="How much of this eraser.",
    )
    return [*eraser.inputs(slot), weight]
