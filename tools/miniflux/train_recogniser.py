"""Train the recogniser on renders, whole combinations of thing, colour, relation held out."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from data import read_scenes, render_world, to_float
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase_core.miniatures.miniflux import load_recogniser
from erase_core.miniatures.miniflux.captions import Scene
from erase_core.miniatures.miniflux.recogniser import HEADS, Recogniser
from erase_core.miniatures.miniflux.world import COLOURS, LAYOUT_OF, LAYOUTS, STYLES, THINGS


def held_out(scene: Scene) -> bool:
    """Whether training must not see the scene: one in eight combinations of thing, colour and
    relation, by a fixed rule."""
    if not scene.things or not scene.ground:
        return False
    colour = list(COLOURS).index(scene.ground)
    relation = list(LAYOUT_OF).index(scene.relation) if scene.relation else 0
    return (7 * scene.things[0] + 3 * colour + 5 * relation) % 8 == 3


def labels(scenes: list[Scene]) -> dict[str, Tensor]:
    """Targets of all heads: ``things`` (N, things) float, the others (N,) classes."""
    things = torch.zeros(len(scenes), len(THINGS))
    for row, scene in enumerate(scenes):
        things[row, list(scene.things)] = 1
    colours, styles = list(COLOURS), list(STYLES)
    return {
        "things": things,
        "colour": torch.tensor([colours.index(s.ground) if s.ground else -1 for s in scenes]),
        "style": torch.tensor([styles.index(s.style) if s.style else len(styles) for s in scenes]),
        "number": torch.tensor([number_class(s) for s in scenes]),
        "layout": torch.tensor([layout_class(s) for s in scenes]),
    }


def number_class(scene: Scene) -> int:
    """Copies of the one thing; 0 for nothing, -1 where two things leave it open."""
    return -1 if len(scene.things) > 1 else scene.number * len(scene.things)


def layout_class(scene: Scene) -> int:
    """-1 where a scene leaves the layout open ("a cat and a car")."""
    if len(scene.things) < 2:
        return 0
    return LAYOUTS.index(LAYOUT_OF[scene.relation]) if scene.relation else -1


def augment(x: Tensor, soft: float, rng: torch.Generator) -> Tensor:
    """Shift by up to 6 pixels, blur a share, add noise: generated pictures are never as clean."""
    dx, dy = torch.randint(-6, 7, (2,), generator=rng).tolist()
    x = F.pad(x, (6, 6, 6, 6), mode="replicate")[:, :, 6 + dy : 134 + dy, 6 + dx : 134 + dx]
    count = int(len(x) * soft)
    blurred = F.interpolate(F.avg_pool2d(x[:count], 2), scale_factor=2, mode="bilinear")
    noise = torch.randn(x.shape, generator=rng) * 0.04 * torch.rand(len(x), 1, 1, 1, generator=rng)
    return (torch.cat([blurred, x[count:]]) + noise).clamp(0, 1)


def loss_of(model: Recogniser, x: Tensor, want: dict[str, Tensor]) -> Tensor:
    seen = model(x)
    loss = 20 * F.binary_cross_entropy_with_logits(seen.things, want["things"])
    for name in HEADS:
        loss = loss + F.cross_entropy(seen.heads[name], want[name], ignore_index=-1)
    return loss


@torch.no_grad()
def evaluate(model: Recogniser, pictures: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """Exact accuracy: all things right and no other, and each head."""
    want = labels(scenes)
    hits: dict[str, list[Tensor]] = {name: [] for name in ("things", *HEADS)}
    for i in range(0, len(scenes), 200):
        seen = model(pictures[i : i + 200])
        part = slice(i, i + 200)
        hits["things"].append(((seen.things > 0).float() == want["things"][part]).all(1))
        for name in HEADS:
            known = want[name][part] >= 0
            hits[name].append((seen.heads[name].argmax(1) == want[name][part])[known])
    return {name: torch.cat(h).float().mean().item() for name, h in hits.items()}


@dataclass(frozen=True)
class Round:
    """A cycle of the learning rate up to ``lr``: how often it draws scenes with a style or with a
    thing behind another (``hard``) and mosaics (``mosaic``), against 1, and the share it blurs."""

    steps: int
    lr: float = 3e-3
    hard: int = 1
    mosaic: int = 1
    soft: float = 0.5

    def weight(self, scene: Scene) -> int:
        if scene.style == "mosaic":
            return self.mosaic
        return self.hard if scene.style or scene.relation == "inside" else 1


# Tiles in a blurred picture look like a blurred picture: the last round learns them.
ROUNDS = (
    Round(1500),
    Round(1000, hard=4, mosaic=4),
    Round(400, lr=1e-3, hard=4, mosaic=24, soft=0.2),
)


def train(folder: Path, seed: int, rounds: tuple[Round, ...] = ROUNDS) -> None:
    """Train on the pictures whose combinations are not held out, and write the model."""
    torch.manual_seed(seed)
    scenes = read_scenes(folder / "scenes.json")
    known = [i for i, scene in enumerate(scenes) if not held_out(scene)]
    model = Recogniser().to(memory_format=torch.channels_last)
    for number, part in enumerate(rounds):
        path = folder / f"recogniser_{number}.safetensors"
        if path.exists():
            model.load_state_dict({k: v.float() for k, v in load_file(path).items()})
            continue
        train_round(model, folder, scenes, known, part, seed + number)
        state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, path)
    path.replace(folder / "recogniser.safetensors")


def train_round(
    model: Recogniser,
    folder: Path,
    scenes: list[Scene],
    known: list[int],
    part: Round,
    seed: int,
    batch: int = 64,
) -> None:
    """One round on the pictures of the rows ``known``."""
    pictures = load_file(folder / "world.safetensors")["pictures"]
    want = labels(scenes)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, part.lr, total_steps=part.steps, pct_start=0.1
    )
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    weights = [part.weight(scenes[row]) for row in known]
    for step in range(part.steps):
        rows = rng.choices(known, weights, k=batch)
        x = augment(to_float(pictures[rows].numpy()), part.soft, generator)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, x, {name: target[rows] for name, target in want.items()})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"recogniser {step + 1}/{part.steps} loss {loss.item():.3f}", flush=True)


def test(folder: Path, seed: int, count: int = 6000) -> dict[str, float]:
    """Accuracy on fresh renders of the held-out combinations."""
    fresh = render_world(count, seed + 1)
    rows = [i for i, scene in enumerate(fresh.scenes) if held_out(scene)]
    model = load_recogniser(folder)
    result = evaluate(model, to_float(fresh.pictures[rows]), [fresh.scenes[i] for i in rows])
    print(f"recogniser on {len(rows)} renders of held-out combinations:", result, flush=True)
    return result
