"""Train MiniFlux: on captioned renders, then on pairs above all, then on everything as it is used,
then its guidance input, first distilled from itself, then trained with all the rest."""

from __future__ import annotations

import math
import random
import time
from copy import deepcopy
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from data import read_scenes
from model import MiniFlux
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from erase_core.miniatures.miniflux.captions import Scene, training_caption
from erase_core.miniatures.miniflux.world import RELATIONS
from erase_core.models.base import Conditioning
from erase_core.models.flux1.forward import velocity
from erase_core.models.flux1.text import tokenize
from erase_core.training.checkpoint import pack_optimiser, unpack_optimiser
from erase_core.writing import atomic

LONG = 64  # T5 tokens of a prompt wherever MiniFlux is used
SHORT = 20  # T5 and CLIP tokens in most of the training; no caption is longer
EMPTY = 0.1  # share of empty prompts
POOLED_DROP = 0.6  # share of captions without their pooled vector
GUIDANCE = (1.0, 5.0)  # inputs that are distilled
SOFTER = 0.5  # of classifier-free guidance beyond 1: input 3.5 draws as 2.25 would, which is best
SAVE_EVERY = 250


@dataclass(frozen=True)
class Stage:
    """One training: "base", "pairs", "layout", "sides", "all", "distil" or "guide".

    ``short`` is the share of steps with few text tokens, ``start`` the stage whose averaged weights
    it goes on from, ``pairs`` how often scenes with two different things are drawn, against 1,
    ``sides`` how many times more often those that say which of them is on what side, ``shift`` the
    mean of the noise levels' logits for a share ``shifted`` of every batch, 0 for the rest: above 0
    there is more noise, where it is decided what stands where.
    """

    name: str
    steps: int
    lr: float
    short: float
    start: str = ""
    pairs: float = 1
    sides: float = 1
    shift: float = 0
    shifted: float = 1
    batch: int = 48
    seed: int = 1
    device: str = "cpu"

    def weight(self, scene: Scene) -> float:
        """How often a scene is drawn; bare grounds are for the recogniser alone."""
        if len(scene.things) < 2:
            return float(len(scene.things))
        return self.pairs * (self.sides if scene.relation in RELATIONS[:4] else 1)


class Batches:
    """Random latents and captions, the same for the same step."""

    def __init__(self, folder: Path, stage: Stage) -> None:
        self.latents = load_file(folder / "world.safetensors")["latents"]
        self.scenes: list[Scene] = read_scenes(folder / "scenes.json")
        self.cumulative = list(accumulate(stage.weight(scene) for scene in self.scenes))
        self.clip = PreTrainedTokenizerFast.from_pretrained(folder / "clip_l_tokenizer")
        self.t5 = PreTrainedTokenizerFast.from_pretrained(folder / "t5xxl_tokenizer")
        self.stage = stage

    def tokens(self, prompts: list[str], step: int) -> tuple[Tensor, Tensor]:
        """T5 and CLIP ids at the step's length."""
        length = SHORT if step < self.stage.steps * self.stage.short else LONG
        ids = (tokenize(self.t5, prompts, length), tokenize(self.clip, prompts, SHORT))
        return ids[0].to(self.stage.device), ids[1].to(self.stage.device)

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, 16, 16, 16) with the tokens of their captions."""
        rng = random.Random(self.stage.seed * 10_000_000 + step)
        every = range(len(self.scenes))
        rows = rng.choices(every, cum_weights=self.cumulative, k=self.stage.batch)
        prompts = [
            "" if rng.random() < EMPTY else training_caption(self.scenes[row], rng) for row in rows
        ]
        return self.latents[rows].float().to(self.stage.device), *self.tokens(prompts, step)


def noised(x0: Tensor, stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
    """States at logit-normal noise levels, their levels, and the velocity eps - x_0."""
    noise = torch.randn(x0.shape).to(x0)
    shift = stage.shift * (torch.arange(len(x0)) < stage.shifted * len(x0))
    sigma = torch.sigmoid(torch.randn(len(x0)) + shift).to(x0)
    return torch.lerp(x0, noise, sigma[:, None, None, None]), sigma, noise - x0


def flow_loss(
    model: MiniFlux, stage: Stage, x0: Tensor, t5_ids: Tensor, clip_ids: Tensor
) -> Tensor:
    """Flow matching; the pooled vector is often dropped, so that tokens carry the meaning."""
    cond = model.encode(t5_ids, clip_ids)
    keep = (torch.rand(len(x0), 1) >= POOLED_DROP).to(cond.pooled)
    x, sigma, target = noised(x0, stage)
    v = velocity(model.flux, x, sigma, Conditioning(cond.context, cond.pooled * keep), 1.0)
    return (v - target).square().mean()


def distil_loss(
    model: MiniFlux,
    teacher: MiniFlux,
    empty: tuple[Tensor, Tensor],
    stage: Stage,
    x0: Tensor,
    t5_ids: Tensor,
    clip_ids: Tensor,
) -> Tensor:
    """The student's one pass at input g learns the teacher's ``v_0 + w (v_c - v_0)``, where
    ``w = 1 + SOFTER (g - 1)``; the encoders are the same and do not learn."""
    with torch.no_grad():
        cond = teacher.encode(t5_ids, clip_ids)
        nothing = teacher.encode(*empty).select([0] * len(x0))
        x, sigma, _ = noised(x0, stage)
        g = torch.empty(len(x0)).uniform_(*GUIDANCE).to(x0)
        v_c = velocity(teacher.flux, x, sigma, cond, 1.0)
        v_0 = velocity(teacher.flux, x, sigma, nothing, 1.0)
        weight = 1 + SOFTER * (g - 1)
        target = v_0 + weight[:, None, None, None] * (v_c - v_0)
    return (velocity(model.flux, x, sigma, cond, g) - target).square().mean()


def guide_loss(
    model: MiniFlux,
    teacher: MiniFlux,
    empty: tuple[Tensor, Tensor],
    stage: Stage,
    x0: Tensor,
    t5_ids: Tensor,
    clip_ids: Tensor,
) -> Tensor:
    """Flow matching at input 1 and, in every other picture, at input g, where the target gains what
    the model's own average would add by guidance: ``eps - x_0 + (w - 1) (v_c - v_0)``."""
    cond = model.encode(t5_ids, clip_ids)
    x, sigma, target = noised(x0, stage)
    g = torch.ones(len(x0)).to(x0)
    g[::2] = torch.empty(len(g[::2])).uniform_(*GUIDANCE).to(x0)
    with torch.no_grad():
        told = teacher.encode(t5_ids[::2], clip_ids[::2])
        nothing = teacher.encode(*empty).select([0] * len(x0[::2]))
        v_c = velocity(teacher.flux, x[::2], sigma[::2], told, 1.0)
        v_0 = velocity(teacher.flux, x[::2], sigma[::2], nothing, 1.0)
        target[::2] += SOFTER * (g[::2, None, None, None] - 1) * (v_c - v_0)
    dropped = (torch.rand(len(x0), 1).to(x0) < POOLED_DROP) & (g[:, None] == 1)
    cond = Conditioning(cond.context, cond.pooled * ~dropped)
    return (velocity(model.flux, x, sigma, cond, g) - target).square().mean()


def make_optimisers(model: MiniFlux, lr: float) -> dict[str, torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else, at one learning rate."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = "block" in name or "layers" in name
            plain = inner and parameter.ndim == 2 and "mod" not in name
            (matrices if plain else others).append(parameter)
    return {
        "adamw": torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=0.01),
        "muon": torch.optim.Muon(
            matrices, lr=lr, adjust_lr_fn="match_rms_adamw", weight_decay=0.01
        ),
    }


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.02 + 0.49 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))


class Run:
    """The state of one stage: model, averaged model, optimisers, step; saved and taken up again."""

    def __init__(self, folder: Path, stage: Stage, batches: Batches) -> None:
        torch.manual_seed(stage.seed)
        self.path = folder / f"{stage.name}.safetensors"
        self.model = MiniFlux(batches.clip, batches.t5).to(stage.device)
        self.teacher: MiniFlux | None = None
        if stage.start:
            self.model.load_state_dict(averaged(folder / f"{stage.start}.safetensors"))
        else:
            self.model.t5.load_state_dict(load_file(folder / "text.safetensors"))
        if stage.name == "distil":
            self.model.t5.requires_grad_(False)
            self.model.clip.requires_grad_(False)
            self.teacher = deepcopy(self.model).requires_grad_(False)
        self.ema = deepcopy(self.model).requires_grad_(False)
        self.optimisers = make_optimisers(self.model, stage.lr)
        self.step = 0
        if self.path.exists():
            self.load()

    def load(self) -> None:
        tensors = load_file(self.path)
        for name, part in (("model", self.model), ("ema", self.ema)):
            part.load_state_dict(_under(name, tensors))
        for name, optimiser in self.optimisers.items():
            unpack_optimiser(name, optimiser, tensors)
        self.step = int(tensors["step"])

    def save(self) -> None:
        tensors = {"step": torch.tensor(self.step)}
        for name, part in (("model", self.model), ("ema", self.ema)):
            tensors |= {f"{name}.{k}": v.clone() for k, v in part.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            tensors |= pack_optimiser(name, optimiser)
        with atomic(self.path) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)

    @torch.no_grad()
    def average(self) -> None:
        decay = min(0.998, (self.step + 1) / (self.step + 10))
        for kept, new in zip(self.ema.parameters(), self.model.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)


def averaged(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a finished stage."""
    return _under("ema", load_file(path))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = len(prefix) + 1
    return {k[start:]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def descend(run: Run, batches: Batches, stage: Stage) -> float:
    """One step of a stage; returns its loss."""
    torch.manual_seed(stage.seed * 10_000_000 + run.step)
    batch = batches.draw(run.step)
    with torch.autocast(torch.device(stage.device).type, torch.bfloat16):
        if stage.name == "guide":
            loss = guide_loss(run.model, run.ema, batches.tokens([""], run.step), stage, *batch)
        elif run.teacher:
            empty = batches.tokens([""], run.step)
            loss = distil_loss(run.model, run.teacher, empty, stage, *batch)
        else:
            loss = flow_loss(run.model, stage, *batch)
    run.model.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimiser in run.optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(run.step, stage.steps, stage.lr)
        optimiser.step()
    run.average()
    return loss.item()


def train(folder: Path, stage: Stage) -> None:
    """Run a stage to its end, from where it was left."""
    batches = Batches(folder, stage)
    run = Run(folder, stage, batches)
    began, first, losses = time.time(), run.step, []
    while run.step < stage.steps:
        losses.append(descend(run, batches, stage))
        run.step += 1
        if run.step % 50 == 0:
            pace = (time.time() - began) / (run.step - first)
            mean = sum(losses[-50:]) / len(losses[-50:])
            print(f"{stage.name} {run.step}/{stage.steps} loss {mean:.4f} {pace:.2f} s", flush=True)
        if run.step % SAVE_EVERY == 0 or run.step == stage.steps:
            run.save()
