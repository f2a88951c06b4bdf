"""Train the transformer on latents and captions, its middle aligned with a recogniser's features.

    python -m tools.world.train_flux --out FOLDER --steps 4000 [--minutes 9] [--device cuda]

Goes on from ``flux_state.safetensors`` where one is there (or, with ``--fresh``, from the averaged
weights of ``flux.safetensors`` alone), and writes both every few minutes. The encoders are those of
the text stage and do not learn.
"""

from __future__ import annotations

import argparse
import random
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from erase_core.files import atomic
from erase_core.models.flux1 import forward
from erase_core.models.flux1.forward import (
    Conditioning,
    normalise,
    patchify,
    rope_table,
    unpatchify,
)
from erase_core.training.checkpoint import pack_optimiser, unpack_optimiser

from .captions import TRAINING, caption
from .data import read_scenes
from .model import CONFIG, LONG, make_flux
from .optimise import learning_rate, make_optimisers, mixed
from .scene import Scene, spoken
from .train_text import load as load_text

FEATURES = 128
EMPTY = 0.1  # share of empty prompts
POOLED_DROP = 0.6  # share of captions without their pooled vector
SHIFT = 0.8  # mean of the noise levels' logits: shapes are decided where there is much of it
ALIGN = 0.5  # weight of the alignment
ALONE = 0.5  # least share of a batch, in the first half, in which one entity stands alone
FEW = {14: 0.4, 18: 0.3, 24: 0.3}  # T5 tokens of a batch in most of the training
CALM = 0.9998  # the slowest the average follows; faster at the start


@dataclass(frozen=True)
class Plan:
    """One training: its steps in all, its peak rate, batch and the share of steps at 64 tokens."""

    steps: int
    lr: float = 1e-3
    batch: int = 32
    long: float = 0.03
    seed: int = 1
    device: str = "cpu"


class Batches:
    """Random latents, features and captions, the same for the same step."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.latents = np.load(folder / "latents.npy", mmap_mode="r")
        self.features = np.load(folder / "features.npy", mmap_mode="r")
        self.scenes = read_scenes(folder)
        self.alone = alone(self.scenes)
        self.text = load_text(folder)
        self.text.parts().to(plan.device)
        self.plan = plan

    def draw(self, step: int) -> tuple[Tensor, Tensor, Conditioning]:
        """Latents (B, 16, 16, 16), features (B, 64, 128) and the captions' conditioning."""
        rng = random.Random(self.plan.seed * 10_000_000 + step)
        rows = self.rows(step, rng)
        length = LONG
        if rng.random() >= self.plan.long:
            length = rng.choices(list(FEW), list(FEW.values()))[0]
        prompts = ["" if rng.random() < EMPTY else self.told(row, length, rng) for row in rows]
        ids = [part.to(self.plan.device) for part in self.text.ids(prompts, length)]
        with torch.no_grad():
            cond = Conditioning(
                self.text.t5(input_ids=ids[0]).last_hidden_state,
                self.text.clip(input_ids=ids[1]).pooler_output,
            )
        latents = torch.from_numpy(self.latents[rows]).float().to(self.plan.device)
        features = torch.from_numpy(self.features[rows]).float().to(self.plan.device)
        return latents, features, cond

    def rows(self, step: int, rng: random.Random) -> list[int]:
        """Which pictures; in the first half of the training many show one entity alone."""
        early = step < self.plan.steps / 2
        count = round(ALONE * self.plan.batch) if early else 0
        others = rng.sample(range(len(self.scenes)), self.plan.batch - count)
        return sorted(others + rng.sample(self.alone, count))

    def told(self, row: int, length: int, rng: random.Random) -> str:
        """A caption that fits, if one of six does."""
        for _ in range(6):
            text = caption(spoken(self.scenes[row], rng), TRAINING, rng)
            if len(self.text.t5_tokenizer(text).input_ids) <= length:
                break
        return text


def alone(scenes: list[Scene]) -> list[int]:
    """The scenes that show one entity once."""
    return [i for i, scene in enumerate(scenes) if len(scene.shown) == 1 and scene.number == 1]


class Pass(forward.Pass):
    """The product's pass, made for the backward pass of small pictures: norms are kept for it."""

    def normalise(self, name: str, x: Tensor) -> Tensor:
        return normalise(self.tree.get_submodule(name), x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Plain products: among 100 tokens faster than the fused ones, backwards above all."""
        shares = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).to(v.dtype)
        return (shares @ v).transpose(1, 2).flatten(2)


class Student(nn.Module):
    """The transformer and the projection of its middle to the recogniser's features."""

    def __init__(self) -> None:
        super().__init__()
        self.flux = make_flux()
        width = CONFIG.hidden_size
        self.project = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, FEATURES))

    def forward(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """Velocity like ``x`` (B, 16, h, w), and the projected image states after the double
        blocks (B, h w / 4, 128). As
        :func:`erase_core.models.flux1.forward.flux_forward`, at guidance 1."""
        run = Pass(self.flux, None, None, False)
        img, rows, columns = patchify(x)
        img, txt = run.linear("img_in", img), run.linear("txt_in", cond.context)
        vec = run.vector(sigma, 1.0, cond.pooled)
        rope = rope_table(txt.shape[1], rows, columns, x.device)
        img, txt, _ = run.double_blocks(img, txt, vec, rope)
        middle = self.project(img)
        img = run.final_layer(run.single_blocks(img, txt, vec, rope), vec)
        return unpatchify(img, rows, columns).float(), middle.float()


def losses(
    student: Student, latents: Tensor, features: Tensor, cond: Conditioning
) -> tuple[Tensor, Tensor]:
    """Flow matching at logit-normal noise levels, and one minus the cosine to the features."""
    keep = (torch.rand(len(latents), 1) >= POOLED_DROP).to(cond.pooled)
    noise = torch.randn(latents.shape).to(latents)
    sigma = torch.sigmoid(torch.randn(len(latents)) + SHIFT).to(latents)
    x = torch.lerp(latents, noise, sigma[:, None, None, None])
    v, middle = student(x, sigma, Conditioning(cond.context, cond.pooled * keep))
    aligned = 1 - F.cosine_similarity(middle, features, dim=-1).mean()
    return (v - (noise - latents)).square().mean(), aligned


class Run:
    """Student, its average, optimisers and step; saved, and taken up again."""

    def __init__(self, folder: Path, plan: Plan, fresh: bool) -> None:
        torch.manual_seed(plan.seed)
        self.folder, self.plan = folder, plan
        self.student = Student()
        self.step, self.born = 0, 0  # born: the step at which the optimisers began
        state, weights = folder / "flux_state.safetensors", folder / "flux.safetensors"
        if fresh and weights.exists():
            self.take_average(weights)
        self.student.to(plan.device)
        self.average = deepcopy(self.student).requires_grad_(False)
        self.optimisers = make_optimisers(self.student, plan.lr)
        if not fresh and state.exists():
            self.take_state(state)

    def take_average(self, path: Path) -> None:
        tensors = load_file(path)
        self.step = self.born = int(tensors.pop("step"))
        self.student.load_state_dict({k: v.float() for k, v in tensors.items()})

    def take_state(self, path: Path) -> None:
        tensors = load_file(path)
        for name, part in (("student", self.student), ("average", self.average)):
            start = len(name) + 1
            part.load_state_dict({k[start:]: v for k, v in tensors.items() if k.startswith(name)})
        for name, optimiser in self.optimisers.items():
            unpack_optimiser(name, optimiser, tensors)
        self.step, self.born = int(tensors["step"]), int(tensors["born"])

    def save(self) -> None:
        step = torch.tensor(self.step)
        average = {k: v.cpu().clone() for k, v in self.average.state_dict().items()}
        with atomic(self.folder / "flux.safetensors") as temporary:
            save_file({"step": step, **average}, temporary)
        tensors = {"step": step, "born": torch.tensor(self.born)}
        tensors |= {f"average.{k}": v for k, v in average.items()}
        tensors |= {
            f"student.{k}": v.detach().cpu().clone() for k, v in self.student.state_dict().items()
        }
        for name, optimiser in self.optimisers.items():
            tensors |= {k: v.cpu() for k, v in pack_optimiser(name, optimiser).items()}
        with atomic(self.folder / "flux_state.safetensors") as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)

    @torch.no_grad()
    def follow(self) -> None:
        """The average follows over the last tenth of all steps so far, roughly."""
        decay = min(CALM, 1 - 10 / (self.step + 20))
        for kept, new in zip(self.average.parameters(), self.student.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)

    def descend(self, batches: Batches) -> tuple[float, float]:
        """One step; its losses."""
        torch.manual_seed(self.plan.seed * 10_000_000 + self.step)
        with mixed(self.plan.device):
            flow, aligned = losses(self.student, *batches.draw(self.step))
            loss = flow + ALIGN * aligned
        self.student.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        rate = learning_rate(self.step, self.plan.steps, self.plan.lr)
        rate = min(rate, learning_rate(self.step - self.born, 10**9, self.plan.lr))
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        self.step += 1
        self.follow()
        return flow.item(), aligned.item()


def train(folder: Path, plan: Plan, minutes: float, every: float, fresh: bool) -> None:
    """Run the plan to its end or for some minutes, saving every few."""
    run, batches = Run(folder, plan, fresh), Batches(folder, plan)
    began = saved = time.time()
    first, told = run.step, []
    while run.step < plan.steps and time.time() - began < 60 * minutes:
        told.append(run.descend(batches))
        if run.step % 20 == 0:
            pace = (time.time() - began) / (run.step - first)
            flow, aligned = np.mean(told[-20:], axis=0)
            print(
                f"{time.strftime('%H:%M')} flux {run.step}/{plan.steps} flow {flow:.4f} "
                f"aligned {aligned:.4f} {pace:.2f} s",
                flush=True,
            )
        if time.time() - saved > 60 * every:
            run.save()
            saved = time.time()
    run.save()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--long", type=float, default=0.03, help="share of steps at 64 tokens")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--every", type=float, default=4, help="minutes between two savings")
    parser.add_argument("--fresh", action="store_true", help="new optimisers, averaged weights")
    args = parser.parse_args()
    plan = Plan(args.steps, args.lr, args.batch, args.long, device=args.device)
    torch.set_num_threads(1 if args.device == "cpu" else torch.get_num_threads())
    train(args.out, plan, args.minutes, args.every, args.fresh)


if __name__ == "__main__":
    main()
