"""Does everything work with some files, on this machine? What ``accept`` looks at and measures.

Every result is JSON-ready, for a report.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import EraseError
from ..machine import device_peak, peak_memory
from ..methods.eraseanything.settings import TrainSettings
from ..models.base import Adapter, Model
from ..models.files import Files, family_of, filled
from ..models.load import key_problems
from ..models.load import sizes as sizes_of
from ..pictures import Picture, Row, grid, to_pictures
from ..tensors import read_weights
from ..training.estimate import Run
from ..training.progress import Progress
from ..training.prompts import PromptPlan
from ..training.result import Result

SHOWN = 20  # keys of each problem
TIMED = 20  # iterations, the last ones of the run
SHARE = 6  # a whole run has this many times the rollouts
SEEDS = 2  # pictures a prompt
# Noise level and guidance whose thousandfold, which diffusers takes in bfloat16, is exact there.
SIGMA, GUIDANCE = 0.5, 4.0
CLOSE = 0.05  # relative difference of velocities that rounding to bfloat16 explains


class Survey(NamedTuple):
    """What is in a file, ``found``, and a line for a person."""

    found: dict[str, Any]
    line: str


def survey(path: Path) -> Survey:
    """Sizes, dtypes and every key of a transformer that is missing, unknown or of another shape.

    Raises
    ------
    EraseError
        When the file cannot be read at all, or is of no family that is known.
    """
    family = family_of(path)
    state, scales = family.read(path, None)
    config = sizes_of(family, path, state)
    problems = {what: keys for what, keys in key_problems(family, config, state).items() if keys}
    found = {
        **contents(state),
        "family": family.name,
        "scaled_fp8_modules": len(scales),
        "config": asdict(config),  # type: ignore[call-overload]
        "problems": {
            what: {"tensors": len(keys), "first": [_shown(key, state) for key in keys[:SHOWN]]}
            for what, keys in problems.items()
        },
    }
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in found["dtypes"].items())
    wrong = "; ".join(f"{what} {len(keys)}" for what, keys in problems.items())
    return Survey(
        found,
        f"{len(state)} tensors ({dtypes}), {config.hidden_size} wide, {config.depth} + "
        f"{config.depth_single_blocks} blocks, {'with' if config.guidance_embed else 'without'} "
        f"guidance: {wrong or 'every key and shape as expected'}",
    )


def survey_parts(files: Files) -> dict[str, dict[str, Any]]:
    """How many tensors there are in each of the other files that the family reads."""
    whole = filled(files)
    named = {part: getattr(whole, part) for part in family_of(files.model).parts}
    return {
        part: {"name": path.name, **contents(read_weights(path))}
        for part, path in named.items()
        if path is not None
    }


def contents(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """How many tensors there are, their bytes, and of each dtype how many."""
    return {
        "tensors": len(tensors),
        "bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "dtypes": dict(Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values())),
    }


def _shown(key: str, state: Mapping[str, Tensor]) -> str:
    return f"{key} {list(state[key].shape)}" if key in state else key


def compare(model: Model, seed: int) -> dict[str, Any]:
    """Our velocity beside that of the family's witness, for a small noise and a real prompt."""
    witness = model.family.witness
    if witness is None:
        return {"compared": False, "why": f"{model.family.label} has nothing to compare with"}
    cond = model.text.encode(["a photo of a house"])  # the weights are in main memory yet
    x, sigma = model.noise([seed], (64, 96)), torch.full((1,), SIGMA)
    try:
        theirs = witness(model.tree, model.config, x, sigma, cond, GUIDANCE)
    except EraseError as error:
        return {"compared": False, "why": str(error)}
    with torch.no_grad():
        ours = model.velocity(x, sigma, cond, model.guidance(GUIDANCE))
    difference = float((ours - theirs).norm() / theirs.norm())
    return {
        "compared": True,
        "relative_difference": difference,
        "agrees": difference < CLOSE,
        "norm": float(ours.norm()),
    }


def shortened(whole: TrainSettings, steps: int) -> dict[str, Any]:
    """How a short run differs from a whole one."""
    return {
        "steps": steps,
        "erase_rollouts": -(-whole.erase_rollouts // SHARE),
        "keep_rollouts": -(-whole.keep_rollouts // SHARE),
        "checkpoint_every": 0,
    }


@dataclass
class Laps:
    """Notes when each iteration ended, and passes progress on."""

    on_step: Callable[[Progress], None]
    ends: list[float] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        if progress.phase == "training":
            self.ends.append(time.perf_counter())
        self.on_step(progress)

    def last(self) -> list[float]:
        """Seconds of the last TIMED iterations, the first of all left out."""
        return [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)][-TIMED:]


def measured(result: Result, laps: Sequence[float], device: torch.device) -> dict[str, Any]:
    """Seconds and bytes of a run."""
    return {
        "seconds": {phase: round(value, 3) for phase, value in result.seconds.items()},
        "iterations_timed": len(laps),
        "seconds_per_iteration": median(laps) if laps else None,
        "slowest_iteration": max(laps, default=None),
        "device_peak_bytes": device_peak(device),
        "process_peak_bytes": peak_memory(),
    }


def extrapolated(result: Result, whole: TrainSettings, laps: Sequence[float]) -> dict[str, Any]:
    """Seconds of a run with the settings ``whole``, from what the short one took; empty after too
    few iterations."""
    if not laps:
        return {}
    rollouts = sum(result.settings[name] for name in ("erase_rollouts", "keep_rollouts"))
    share = (whole.erase_rollouts + whole.keep_rollouts) / rollouts
    seconds = {
        "text": result.seconds.get("text", 0.0) * share,
        "rollouts": result.seconds.get("rollouts", 0.0) * share,
        "training": sum(laps) / len(laps) * whole.steps,
    }
    return {"steps": whole.steps, "seconds": seconds, "total_seconds": sum(seconds.values())}


def before_after(
    run: Run,
    eraser: Adapter | None,
    seed: int,
    size: tuple[int, int] | None,
    steps: int | None,
    phase: Callable[[str, int], Callable[[int], None]],
) -> Picture:
    """A few prompts of a run from the same seeds, without and with its eraser.

    ``size`` is (height, width) in pixels, ``steps`` those of a picture, None for the model's;
    ``phase`` starts a progress line.
    """
    encoded = run.encode()
    prompts = _prompts(encoded.plan)
    texts = [text for _, text in prompts for _ in range(SEEDS)]
    seeds = [seed + index for _ in prompts for index in range(SEEDS)]
    drawn: list[Sequence[Picture]] = []
    for used, label in ((None, "drawing before"), (eraser, "drawing after")):
        on_batch = phase(label, len(texts))
        options: dict[str, Any] = {"size": size, "steps": steps, "batch": SEEDS}
        cond = encoded.encoded(texts)
        drawn.append(
            to_pictures(run.model.generate(cond, seeds, used, on_batch=on_batch, **options))
        )
    rows = []
    for index, (role, text) in enumerate(prompts):
        part = slice(index * SEEDS, (index + 1) * SEEDS)
        rows.append(Row(text, [pictures[part] for pictures in drawn], note=role))
    headings = ("without", f"with {len(run.history)} iterations")
    return grid(rows, headings, title=f"accept: {run.model.name}")


def _prompts(plan: PromptPlan) -> list[tuple[str, str]]:
    """What is drawn: (role, prompt)."""
    first, *others = plan.erase
    found = [("to be erased", first.sentence.text)]
    found += [("to be erased", other.sentence.text) for other in others[:1]]
    found += [("to be kept", word.text) for word in first.irrelevant[:1]]
    found += [("to be kept", text) for text in plan.keep if text][:3]
    return list({text: (role, text) for role, text in found}.values())[:4]
