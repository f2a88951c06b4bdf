"""How the cost of FLUX.1-dev's training grows, counted by formula: Markdown tables.

PYTHONPATH=. python tools/bench/growth.py
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import flops

from erase_core.flux.config import FluxConfig
from erase_core.training import TrainSettings

FLUX, TEXT, STEPS, WHOLE = FluxConfig(), 256, 28, 1000
ONE = replace(TrainSettings(), batch=1)
HEADINGS = ("TFLOP forward", "ours", "released", "times", "rollouts once", "1,000 ours, PFLOP")

Case = tuple[str, FluxConfig, TrainSettings]


def main() -> None:
    for title, cases in TABLES.items():
        print("\n".join(table(title, cases)) + "\n")


def table(title: str, cases: Iterable[Case]) -> list[str]:
    """Operations for one state in a half-step, in TFLOP; rollouts for the whole buffer."""
    lines = [f"| {title} | {' | '.join(HEADINGS)} |", "|---" * (len(HEADINGS) + 1) + "|"]
    for label, config, settings in cases:
        image = settings.height * settings.width // 256
        forward = flops.passes(config, image, TEXT).forward
        ours = flops.ours(config, settings, TEXT)
        released = flops.released(config, settings, TEXT, STEPS)
        filled = flops.rollouts(config, settings, TEXT)
        whole = filled + WHOLE * settings.batch * ours
        numbers = [forward, ours, released, released / ours * 1e12, filled, whole / 1000]
        lines.append(f"| {label} | " + " | ".join(f"{n / 1e12:,.1f}" for n in numbers) + " |")
    return lines


TABLES: dict[str, list[Case]] = {
    "Picture": [(f"{px} px", FLUX, replace(ONE, height=px, width=px)) for px in (512, 768, 1024)],
    "K": [(str(k), FLUX, replace(ONE, k=k)) for k in (1, 3, 6)],
    "Double blocks": [(str(d), replace(FLUX, depth=d), ONE) for d in (5, 10, 19)],
    "Activations": [
        ("kept", FLUX, ONE),
        ("recomputed", FLUX, replace(ONE, activation_checkpointing=True)),
    ],
}


if __name__ == "__main__":
    main()
