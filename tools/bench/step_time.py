"""Time our iteration against the released schedule's, on the same model, in one run.

    PYTHONPATH=. python tools/bench/step_time.py                         # MiniFlux on this CPU
    PYTHONPATH=. python tools/bench/step_time.py --device cuda --width 3072 --double 19 \\
        --single 38 --size 512 --batch 4 --activation-checkpointing      # true size, random weights

Ours trains at kept states: rollouts once, a batch of them anew every --refresh iterations. The
released schedule rolls 28 steps out for every erase step and for each of the K + 1 prompts of every
preserve step. Both run the same graphs on the same batch. The last line says how often ours fits
into the other; the bar is 8. On a CPU shared with others, --clock process with OMP_NUM_THREADS=1
counts the seconds that the processor gave to this process, for both alike.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from statistics import mean
from typing import Any

import flops
import torch
from subjects import Subject, bundled, random_model
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from erase_core.cli.progress import Bar
from erase_core.machine import describe, device_peak, peak_memory, synchronise, versions
from erase_core.methods.eraseanything import levels
from erase_core.methods.eraseanything.levels import Levels
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.base import Conditioning
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import velocity
from erase_core.models.sampling import euler, sigmas
from erase_core.training.progress import Progress
from erase_core.training.states import Batch

STEPS = 28  # of the released code's sampler
WHOLE = 1000  # iterations of a run in the paper
WARM = 2  # iterations that are not counted
BAR = 8.0
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


def main() -> None:
    args = _parser().parse_args()
    device = torch.device(args.device)
    timer = Timer(device, CLOCKS[args.clock])
    subject = _subject(args, device)
    if args.compile:
        levels.flux_forward = torch.compile(levels.flux_forward)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer = _train(subject, timer)
    peak = device_peak(device) or peak_memory()
    theirs = [timer.seconds(Released(trainer).iteration) for _ in range(1 + args.released)][1:]
    report = {
        "model": subject.name,
        "machine": describe(device),
        "versions": versions(),
        "settings": trainer.settings.to_dict(),
        "text_tokens": subject.tokens,
        "peak_bytes": peak,
        "clock": args.clock,
        "compiled": args.compile,
        **_compare(trainer, subject, timer, theirs, matmul_rate(timer, args.dtype)),
    }
    print(json.dumps(report, indent=2) if args.json else "\n".join(_lines(report)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu")
    add("--dtype", type=lambda name: getattr(torch, name), default=torch.bfloat16)
    add("--width", type=int, help="random weights, multiple of 128 (default: MiniFlux)")
    add("--double", type=int, default=2, help="double blocks of random weights")
    add("--single", type=int, default=4, help="single blocks of random weights")
    add("--text", type=int, default=256, help="text tokens of random weights")
    add("--size", type=int, help="pixels")
    add("--batch", type=int, help="states in a half-step")
    add("--k", type=int, help="irrelevant words a sentence")
    add("--l-adv", type=float, default=0.0, help="weight of ours at adversaries' prompts")
    add("--activation-checkpointing", action="store_true")
    add("--compile", action="store_true", help="our graphs, by torch.compile")
    add("--iterations", type=int, default=50, help="of ours (at least 50 for a figure to quote)")
    add("--released", type=int, default=2, help="iterations of the released schedule")
    add("--refresh", type=int, default=25, help="iterations between two refreshes of ours")
    add("--rollouts", type=int, default=8, help="rollouts of each kind that are timed")
    add("--clock", choices=CLOCKS, default="wall")
    add("--json", action="store_true")
    return parser


class Timer:
    """Takes times on a device, and notes the ends of a trainer's steps by phase."""

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        self.device, self.clock = device, clock
        self.ends: dict[str, list[float]] = {"text": [], "rollouts": [], "training": []}
        self._bar = Bar()

    def __call__(self, progress: Progress) -> None:
        synchronise(self.device)
        self.ends[progress.phase].append(self.clock())
        self._bar(progress)

    def laps(self) -> list[float]:
        """Seconds of each iteration but the first."""
        ends = self.ends["training"]
        return [b - a for a, b in zip(ends, ends[1:], strict=False)]

    def rollouts(self) -> float:
        """Seconds of filling the buffer."""
        return self.ends["rollouts"][-1] - self.ends["text"][-1]

    def seconds(self, work: Callable[[], Any]) -> float:
        """How long ``work`` takes."""
        synchronise(self.device)
        began = self.clock()
        work()
        synchronise(self.device)
        return self.clock() - began


def _subject(args: argparse.Namespace, device: torch.device) -> Subject:
    if args.width is None:
        subject = bundled(device)
    else:
        config = FluxConfig(
            hidden_size=args.width,
            num_heads=args.width // 128,
            depth=args.double,
            depth_single_blocks=args.single,
        )
        subject = random_model(config, args.text, args.size or 512, device, args.dtype)
    given = {"batch": args.batch, "k": args.k, "height": args.size, "width": args.size}
    settings = replace(
        subject.settings,
        steps=args.iterations + WARM,
        refresh_every=args.refresh,
        checkpoint_every=0,
        l_adv=args.l_adv,
        erase_rollouts=args.rollouts,
        keep_rollouts=args.rollouts,
        activation_checkpointing=args.activation_checkpointing,
        **{name: value for name, value in given.items() if value is not None},
    )
    return subject._replace(settings=settings)


def _train(subject: Subject, timer: Timer) -> Trainer:
    """Our run, to its end."""
    tree, config, text = subject.tree, subject.config, subject.text
    trainer = Trainer(tree, config, text, subject.concepts, subject.settings, on_step=timer)
    trainer.run()
    return trainer


class Released:
    """The released schedule on a trainer's model, states and optimisers."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.settings = trainer, trainer.settings
        self.prompts = trainer.encode()
        self.levels = Levels(
            trainer.tree,
            trainer.lora,
            self.prompts,
            trainer.settings,
            trainer.blocks,
            trainer.guidance,
        )

    def iteration(self) -> None:
        """An erase and a preserve step, each from rollouts of its own."""
        trainer, states = self.trainer, self.trainer.states
        assert states is not None and states.keep is not None
        drawn = states.erase.draw(trainer.generator, self.settings.batch)
        rows = self.prompts.erase(drawn.rows)
        trainer._descend(trainer.lower, self.levels.erase(self._taught(drawn, rows.cond)))
        for cond, _ in rows.contrast:  # the synonym and K irrelevant words
            self._roll_out(cond)
        keep = states.keep.draw(trainer.generator, self.settings.batch)
        above = chain(self.levels.preserve(keep), self.levels.contrast(drawn))
        trainer._descend(trainer.upper, above)

    def _taught(self, drawn: Batch, cond: Conditioning) -> Batch:
        """The batch at the end of a rollout, with the base model's two velocities there."""
        x, sigma = self._roll_out(cond), drawn.sigma.to(self.trainer.device)
        null = self.prompts.erase(drawn.rows).null
        assert null is not None
        target, nothing = (
            self._velocity(x, sigma, which.to(x.device)).cpu() for which in (cond, null)
        )
        return drawn._replace(latents=x.cpu(), target=target, null=nothing)

    def _roll_out(self, cond: Conditioning) -> Tensor:
        settings, device = self.settings, self.trainer.device
        cond, lora = cond.to(device), self.trainer.lora
        shape = (settings.batch, 16, settings.height // 8, settings.width // 8)
        start = torch.randn(shape, generator=self.trainer.generator).to(device)

        def walk(x: Tensor, sigma: Tensor) -> Tensor:
            return self._velocity(x, sigma.expand(len(x)), cond, lora)

        return euler(walk, start, sigmas(STEPS, settings.shift_mu))

    @torch.no_grad()
    def _velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, lora: Any = None) -> Tensor:
        return velocity(self.trainer.tree, x, sigma, cond, self.trainer.guidance, lora=lora)


def matmul_rate(timer: Timer, dtype: torch.dtype) -> float:
    """The best operations a second of a square product, the shape that suits a device best."""
    size = 1024 if timer.device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=timer.device).to(dtype) for _ in range(2))
    return 2.0 * size**3 / min(timer.seconds(lambda: a @ b) for _ in range(8))


def _counted(work: Callable[[], Any]) -> float:
    """Operations of ``work`` as torch counts them; it knows no fused attention on the CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _compare(
    trainer: Trainer, subject: Subject, timer: Timer, theirs: list[float], rate: float
) -> dict[str, Any]:
    settings, tokens = trainer.settings, subject.tokens
    every = settings.refresh_every
    # Lap i leads to iteration i + 2; a refresh comes before iteration n + 1 when n is a multiple.
    numbered = [(index + 1, lap) for index, lap in enumerate(timer.laps())][WARM - 1 :]
    plain = mean(lap for step, lap in numbered if not every or step % every)
    fresh = [lap - plain for step, lap in numbered if every and step % every == 0]
    refreshes = mean(fresh) * (WHOLE // every) if fresh else 0.0
    default = TrainSettings()
    whole = replace(
        settings, erase_rollouts=default.erase_rollouts, keep_rollouts=default.keep_rollouts
    )
    filled = flops.rollouts(subject.config, whole, tokens)
    rollouts = timer.rollouts() * filled / flops.rollouts(subject.config, settings, tokens)
    total = rollouts + WHOLE * plain + refreshes
    released = mean(theirs)
    operations = {
        "ours": flops.ours(subject.config, settings, tokens),
        "released": flops.released(subject.config, settings, tokens, STEPS),
        "rollouts": filled,
    }
    states = trainer.states
    assert states is not None
    counted = _counted(lambda: trainer._iterate(states, Released(trainer).levels))
    return {
        "iterations_timed": len(numbered),
        "seconds": {
            "iteration": plain,
            "refresh": mean(fresh) if fresh else None,
            "rollouts": rollouts,
            "released_iteration": released,
            "ours_1000": total,
            "released_1000": WHOLE * released,
        },
        "tflop": {name: value / 1e12 for name, value in operations.items()},
        "tflop_counted_by_torch": counted / 1e12,
        "formula_over_count": operations["ours"] / counted,
        "matmul_tflops": rate / 1e12,
        "share_of_matmul": operations["ours"] / plain / rate,
        "share_of_matmul_released": operations["released"] / released / rate,
        "ratio": WHOLE * released / total,
    }


def _lines(report: dict[str, Any]) -> list[str]:
    seconds, tflop, machine = report["seconds"], report["tflop"], report["machine"]
    settings = report["settings"]
    more = tflop["released"] / tflop["ours"]
    device = machine.get("name", machine["system"])
    return [
        f"model            {report['model']}, {settings['height']} px, {report['text_tokens']} "
        f"text tokens, batch {settings['batch']}, K = {settings['k']}"
        + (", adversaries" if settings["l_adv"] else "")
        + (", ours compiled" if report["compiled"] else ""),
        f"machine          {device}, {machine['threads']} threads, {report['clock']} clock, "
        f"torch {report['versions']['torch']}",
        f"iteration        ours {seconds['iteration']:.3f} s, released schedule "
        f"{seconds['released_iteration']:.2f} s",
        f"operations       ours {tflop['ours']:.4g} TFLOP (torch counts "
        f"{report['tflop_counted_by_torch']:.4g}), released {tflop['released']:.4g}, "
        f"{more:.1f} times as many",
        f"matmul rate      {report['matmul_tflops']:.3g} TFLOP/s; ours uses "
        f"{report['share_of_matmul']:.0%}, released {report['share_of_matmul_released']:.0%}",
        f"peak memory      {report['peak_bytes'] / 1e9:.2f} GB",
        f"1,000 iterations ours {seconds['ours_1000'] / 60:.1f} min (rollouts "
        f"{seconds['rollouts']:.1f} s, refreshes included; from {report['iterations_timed']}), "
        f"released {seconds['released_1000'] / 60:.1f} min",
        f"ratio            {report['ratio']:.1f} (bar {BAR:g})",
    ]


if __name__ == "__main__":
    main()
