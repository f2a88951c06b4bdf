"""How the cost of FLUX.1-dev's training grows, counted by formula: Markdown tables and a plot.

PYTHONPATH=. python tools/bench/growth.py docs/images/growth.png
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import flops

from erase_core.evaluate.report.plots import figure
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.models.flux1.config import FluxConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLUX, TEXT, STEPS, WHOLE = FluxConfig(), 256, 28, 1000
ONE = replace(TrainSettings(), batch=1)
HEADINGS = ("TFLOP forward", "ours", "released", "times", "rollouts once", "1,000 ours, PFLOP")

Case = tuple[str, FluxConfig, TrainSettings]


class Cost(NamedTuple):
    """TFLOP: of a forward pass, of an iteration with one state in a half-step, of ours with its
    share of the rollouts when there are WHOLE iterations, and of these rollouts once."""

    forward: float
    ours: float
    shared: float
    released: float
    rollouts: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plot", type=Path, nargs="?", metavar="PNG", help="draw it, too")
    path = parser.parse_args().plot
    for title, cases in TABLES.items():
        print("\n".join(table(title, cases)) + "\n")
    if path:
        with figure(path, 2, 2) as panels:
            for axes, title in zip(panels, PLOTTED, strict=True):
                draw(axes, title, TABLES[title])


def count(config: FluxConfig, settings: TrainSettings) -> Cost:
    """What a case costs."""
    image = settings.height * settings.width // 256
    ours = flops.ours(config, settings, TEXT)
    filled = flops.rollouts(config, settings, TEXT)
    released = flops.released(config, settings, TEXT, STEPS)
    numbers = flops.passes(config, image, TEXT).forward, ours, ours + filled / WHOLE
    return Cost(*(n / 1e12 for n in (*numbers, released, filled)))


def table(title: str, cases: Iterable[Case]) -> list[str]:
    """One line a case."""
    lines = [f"| {title} | {' | '.join(HEADINGS)} |", "|---" * (len(HEADINGS) + 1) + "|"]
    for label, config, settings in cases:
        cost = count(config, settings)
        times = cost.released / cost.ours
        numbers = [cost.forward, cost.ours, cost.released, times, cost.rollouts]
        numbers.append(WHOLE * cost.shared / 1000)
        lines.append(f"| {label} | " + " | ".join(f"{n:,.1f}" for n in numbers) + " |")
    return lines


def draw(axes: Axes, title: str, cases: Iterable[Case]) -> None:
    """One panel: an iteration of either schedule above the floor."""
    labels = [label for label, _, _ in cases]
    costs = [count(config, settings) for _, config, settings in cases]
    lines = {
        "released schedule": ([cost.released for cost in costs], "s-"),
        "ours, rollouts shared by 1,000": ([cost.shared for cost in costs], "o-"),
        "ours": ([cost.ours for cost in costs], "o--"),
        "floor: a forward pass": ([cost.forward for cost in costs], "k:"),
    }
    for name, (values, style) in lines.items():
        axes.plot(labels, values, style, label=name)
    axes.set_yscale("log")
    axes.set_xlabel(title)
    axes.grid(axis="y", alpha=0.3)
    if title == PLOTTED[0]:
        axes.get_figure(root=True).legend(loc="outside upper center", ncols=4, fontsize=8)
    if title in PLOTTED[::2]:
        axes.set_ylabel("TFLOP an iteration")


TABLES: dict[str, list[Case]] = {
    "Picture": [(f"{px} px", FLUX, replace(ONE, height=px, width=px)) for px in (512, 768, 1024)],
    "K": [(str(k), FLUX, replace(ONE, k=k)) for k in (1, 3, 6)],
    "Concepts": [(str(n), FLUX, ONE) for n in (1, 4, 16)],  # each iteration trains one of them
    "Double blocks": [(str(d), replace(FLUX, depth=d), ONE) for d in (5, 10, 19)],
    "Activations": [
        ("kept", FLUX, ONE),
        ("recomputed", FLUX, replace(ONE, activation_checkpointing=True)),
    ],
}
PLOTTED = ("Picture", "K", "Concepts", "Double blocks")


if __name__ == "__main__":
    main()
