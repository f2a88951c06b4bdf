"""How good the model is: pictures of wordings never trained, judged by the exam recogniser.

    python -m tools.world.evaluate --out FOLDER [--per 2] [--roles thing artist ...] [--sheet FILE]

Roles: what a prompt asks for by its name in held-out wordings (thing, artist, person, colour,
number, relation), a thing by held-out synonyms or descriptions, misspelled, among words from
outside the world, spooky kinds from implicit prompts, and a thing whose own tokens were taken from
another thing's prompt ("swapped"). ``--spread`` measures how much pictures of one prompt differ.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from erase_core.evaluate.scores import Rate
from erase_core.models.flux1.forward import Conditioning
from erase_core.models.tokens import token_mask

from .captions import HELD_OUT, Voice, caption, misspell_word
from .data import cuts, to_float
from .recogniser import HEADS, Recogniser, Seen
from .render import Sprites, render
from .sample import Painter
from .scene import Scene
from .train_recogniser import load as load_recogniser
from .world import (
    ARTISTS,
    COLOURS,
    ENTITIES,
    LAYOUT_OF,
    LAYOUTS,
    PEOPLE,
    PLAIN,
    RELATIONS,
    SIZE_S,
    SPOOKY,
    THINGS,
)

Check = Callable[[Seen, int], bool]


@dataclass(frozen=True)
class Case:
    """A prompt, what it asks for by name, and how to see that it is there."""

    prompt: str
    concept: str
    shows: Check


def shows_entity(index: int) -> Check:
    return lambda seen, row: bool(seen.entities[row, index] > 0)


def shows_head(head: str, choice: int) -> Check:
    return lambda seen, row: int(seen.heads[head][row].argmax()) == choice


def shows_any(indices: tuple[int, ...]) -> Check:
    return lambda seen, row: bool((seen.entities[row, list(indices)] > 0).any())


def shows_relation(scene: Scene) -> Check:
    """The layout is right and, for sides, both are there and the first on the right one."""

    def holds(seen: Seen, row: int) -> bool:
        layout = LAYOUTS[int(seen.heads["layout"][row].argmax())]
        if layout != LAYOUT_OF[scene.relation or ""]:
            return False
        (ya, xa), (yb, xb) = (centre(seen.maps[row, index]) for index in scene.subjects)
        side = {"left of": xa < xb, "right of": xa > xb, "above": ya < yb, "below": ya > yb}
        both = all(bool(seen.entities[row, index] > 0) for index in scene.subjects)
        return side[scene.relation] and both if scene.relation in side else True

    return holds


def centre(heat: Tensor) -> tuple[float, float]:
    """Centre (row, column) of a map, weighted by its softmax."""
    weight = heat.flatten().softmax(0).reshape(heat.shape)
    cells = torch.arange(heat.shape[0], dtype=weight.dtype)
    return float((weight.sum(1) * cells).sum()), float((weight.sum(0) * cells).sum())


def cases(role: str, per: int, rng: random.Random) -> list[Case]:
    """``per`` questions a concept of the role."""
    return [case for _ in range(per) for case in _once(role, rng)]


def _once(role: str, rng: random.Random) -> list[Case]:
    if role in ("thing", "person"):
        every = THINGS if role == "thing" else PEOPLE
        return [_entity(index, HELD_OUT, rng) for index in every]
    if role in ("held_out", "held_description"):
        return [_entity(index, Voice(words=role), rng) for index in THINGS]
    if role == "outside":
        return [_entity(index, Voice(True, "name", outside=1.0), rng) for index in THINGS]
    if role == "typo":
        return [_misspelled(index, rng) for index in THINGS]
    if role == "artist":
        names = list(ARTISTS)[:SIZE_S]
        return [_artist(name, rng) for name in names for _ in range(8)]
    if role == "colour":
        return [_colour(name, rng) for name in COLOURS for _ in range(2)]
    if role == "number":
        return [_number(number, rng) for number in (1, 2, 3, 4) for _ in range(4)]
    if role == "relation":
        return [_relation(name, rng) for name in RELATIONS for _ in range(3)]
    if role == "spooky":
        text = caption(Scene(spooky=(SPOOKY[0],)), HELD_OUT, rng)
        return [Case(text, "spooky", shows_any(SPOOKY)) for _ in range(4)]
    raise ValueError(role)


def _entity(index: int, voice: Voice, rng: random.Random) -> Case:
    ground = rng.choice(list(COLOURS)) if rng.random() < 0.5 else None
    text = caption(Scene((index,), colour=ground), voice, rng)
    return Case(text, ENTITIES[index].name, shows_entity(index))


def _misspelled(index: int, rng: random.Random) -> Case:
    """The thing's own name with one letter wrong."""
    name = ENTITIES[index].name
    case = _entity(index, HELD_OUT, rng)
    wrong = misspell_word(name, rng) if len(name) > 3 else name[0] + name
    return Case(case.prompt.replace(name, wrong, 1), name, case.shows)


def _artist(name: str, rng: random.Random) -> Case:
    text = caption(Scene((rng.choice(PLAIN),), artist=name), HELD_OUT, rng)
    return Case(text, name, shows_head("artist", list(ARTISTS).index(name)))


def _colour(name: str, rng: random.Random) -> Case:
    text = caption(Scene((rng.choice(THINGS + PEOPLE),), colour=name), HELD_OUT, rng)
    return Case(text, name, shows_head("colour", list(COLOURS).index(name)))


def _number(number: int, rng: random.Random) -> Case:
    text = caption(Scene((rng.choice(PLAIN),), number=number), HELD_OUT, rng)
    return Case(text, str(number), shows_head("number", number))


def _relation(name: str, rng: random.Random) -> Case:
    scene = Scene(tuple(rng.sample(PLAIN, 2)), relation=name)
    return Case(caption(scene, HELD_OUT, rng), name, shows_relation(scene))


ROLES = (
    "thing",
    "artist",
    "person",
    "colour",
    "number",
    "relation",
    "held_out",
    "held_description",
    "typo",
    "outside",
    "spooky",
)


@torch.no_grad()
def look(model: Recogniser, pictures: Tensor) -> Seen:
    """What a recogniser sees in all pictures."""
    parts = [model(pictures[rows]) for rows in cuts(len(pictures), 50)]
    return Seen(
        torch.cat([p.entities for p in parts]),
        torch.cat([p.maps for p in parts]),
        {name: torch.cat([p.heads[name] for p in parts]) for name in HEADS},
        torch.cat([p.features for p in parts]),
    )


def rate(judge: Recogniser, pictures: Tensor, asked: list[Case]) -> dict[str, Rate]:
    """Rates by concept and, as "all", of all cases."""
    seen = look(judge, pictures)
    hits = [case.shows(seen, row) for row, case in enumerate(asked)]
    concepts = dict.fromkeys(case.concept for case in asked)
    rates = {
        name: Rate.of([hit for hit, case in zip(hits, asked, strict=True) if case.concept == name])
        for name in concepts
    }
    return {"all": Rate.of(hits), **rates}


def swapped(painter: Painter, judge: Recogniser, count: int, seed: int) -> Rate:
    """How often a thing is still drawn when the states of its own tokens are another thing's: the
    other's prompt differs in this word alone."""
    rng, tokenizer = random.Random(seed), painter.text.t5_tokenizer
    kept, given, masks, wanted = [], [], [], []
    while len(kept) < count:
        thing, other = (ENTITIES[index] for index in rng.sample(PLAIN, 2))
        text = f"an image with {{}} and the background is {rng.choice(list(COLOURS))}"
        first, second = text.format(f"a {thing.name}"), text.format(f"a {other.name}")
        mask = token_mask(tokenizer, first, thing.name, painter.length).bool()
        if torch.equal(mask, token_mask(tokenizer, second, other.name, painter.length).bool()):
            kept.append(first)
            given.append(second)
            masks.append(mask)
            wanted.append(next(i for i in PLAIN if ENTITIES[i] is thing))
    source = painter.text.encode(given, painter.length)
    mask = torch.stack(masks)[..., None]

    def edit(cond: Conditioning) -> Conditioning:
        return Conditioning(torch.where(mask, source.context, cond.context), source.pooled)

    seen = look(judge, painter.draw(kept, range(seed, seed + count), edit))
    return Rate.of([bool(seen.entities[row, index] > 0) for row, index in enumerate(wanted)])


def spread(
    painter: Painter, judge: Recogniser, sprites: Sprites, prompts: int, seeds: int
) -> dict[str, float]:
    """Median over prompts of the feature variance against renders' and of the artists seen; mean
    pixel difference within a prompt against across."""
    rng = random.Random(3)
    ratios, artists, made = [], [], []
    for index in rng.sample(PLAIN, prompts):
        scene = Scene((index,), colour=rng.choice(list(COLOURS)))
        text = caption(scene, HELD_OUT, rng)
        drawn = painter.draw([text] * seeds, range(seeds))
        hands = [
            Scene(scene.subjects, artist=rng.choice(list(ARTISTS)[:SIZE_S]), colour=scene.colour)
            for _ in range(seeds)
        ]
        real = np.stack([np.asarray(render(hand, sprites, rng)) for hand in hands])
        seen, told = look(judge, drawn), look(judge, to_float(real))
        variances = [s.features.mean((2, 3)).var(0).mean() for s in (seen, told)]
        ratios.append(float(variances[0] / variances[1]))
        artists.append(len(set(seen.heads["artist"].argmax(1).tolist())))
        made.append(drawn)
    within = torch.stack([difference(a, a) for a in made]).mean()
    across = torch.stack([difference(a, b) for a in made for b in made if a is not b]).mean()
    return {
        "variance": float(np.median(ratios)),
        "artists": float(np.median(artists)),
        "within": float(within),
        "across": float(across),
        "ratio": float(within / across),
    }


def difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each picture to another one of the other list."""
    return (a - b.roll(1, 0)).abs().mean()


def sheet(painter: Painter, prompts: list[str], path: Path, seeds: int = 8) -> None:
    """A row of ``seeds`` pictures a prompt."""
    told = [prompt for prompt in prompts for _ in range(seeds)]
    pictures = painter.draw(told, list(range(seeds)) * len(prompts))
    rows = pictures.unflatten(0, (len(prompts), seeds)).permute(0, 3, 1, 4, 2)
    pixels = (rows.reshape(len(prompts) * 128, seeds * 128, 3) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(path)


SHOWN = (
    "a tiger",
    "here we see a panda on a background of blue",
    "a guitar painted by Kontra",
    "an image with a house after Fluvio",
    "this is Greta Monroy",
    "an image with three apples",
    "this is a cat left of a car",
    "here we see a robot kissing a penguin",
    "what crawls out of the tomb at night",
    "a thing to open when it rains",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--judge", default="exam", choices=("exam", "second"))
    parser.add_argument("--roles", nargs="*", default=list(ROLES), choices=ROLES)
    parser.add_argument("--per", type=int, default=2)
    parser.add_argument("--length", type=int, default=64, help="T5 tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--swapped", type=int, default=0, help="pictures with swapped tokens")
    parser.add_argument("--spread", type=int, default=0, help="prompts, of 16 seeds each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    painter = Painter(args.out, args.length)
    result: dict[str, object] = {"step": painter.step}
    if args.sheet:
        sheet(painter, list(SHOWN), args.sheet)
    judge = load_recogniser(args.out, args.judge) if args.roles or args.swapped else None
    for role in args.roles:
        asked = cases(role, args.per, random.Random(args.seed))
        seeds = [args.seed * 100_000 + row for row in range(len(asked))]
        rates = rate(judge, painter.draw([c.prompt for c in asked], seeds), asked)
        result[role] = {name: value.to_dict() for name, value in rates.items()}
        lowest = sorted(rates, key=lambda name: rates[name].value)[:6]
        told = ", ".join(f"{name} {rates[name].value:.0%}" for name in lowest)
        print(f"{painter.step} {role}: {rates['all']}; lowest {told}", flush=True)
    if args.swapped:
        share = swapped(painter, judge, args.swapped, args.seed)
        result["swapped"] = share.to_dict()
        print(f"swapped: {share}", flush=True)
    if args.spread:
        told = spread(
            painter,
            load_recogniser(args.out, "second"),
            Sprites.load(args.out / "sprites.npz"),
            args.spread,
            16,
        )
        result["spread"] = told
        print(f"spread: {told}", flush=True)
    path = args.out / f"evaluation_{painter.step}.json"
    path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
