"""How well the text stage's reader understands prompts, before any picture is drawn.

    python -m tools.world.evaluate_text --out FOLDER

Prints the share of prompts whose entity comes first among all 88, by how it is named; of things
read from the other tokens alone ("traces"); and of sides whose thing is read rightly of 88.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from safetensors.torch import load_file

from erase_core.models.tokens import token_mask

from .captions import HELD_OUT, Voice, caption
from .evaluate import cases
from .model import LONG, Encoders
from .scene import Scene
from .train_text import SIDES, Reader, answers, load
from .world import ENTITIES, INDEX, PLAIN

ROLES = ("thing", "person", "held_out", "held_description", "typo", "outside")


def named(encoders: Encoders, reader: Reader, role: str, per: int, seed: int) -> float:
    """Share of a role's prompts that are read as what they ask for."""
    asked = cases(role, per, random.Random(seed))
    seen = reader(encoders.encode([case.prompt for case in asked]).context)["entities"]
    want = torch.tensor([INDEX[case.concept] for case in asked])
    return (seen.argmax(1) == want).float().mean().item()


def traces(encoders: Encoders, reader: Reader) -> float:
    """Share of things that are read from a prompt without looking at their own tokens."""
    prompts = [f"an image with a {ENTITIES[i].name} and the background is blue" for i in PLAIN]
    own = [
        token_mask(encoders.t5_tokenizer, prompt, ENTITIES[i].name, LONG).bool()
        for i, prompt in zip(PLAIN, prompts, strict=True)
    ]
    seen = reader(encoders.encode(prompts).context, torch.stack(own))["entities"]
    return (seen.argmax(1) == torch.tensor(PLAIN)).float().mean().item()


def sides(encoders: Encoders, reader: Reader, per: int, seed: int) -> dict[str, float]:
    """Share of captions in which the thing at each side is read rightly."""
    rng = random.Random(seed)
    said = [Scene(tuple(rng.sample(PLAIN, 2)), relation=side) for side in SIDES for _ in range(per)]
    prompts = [caption(scene, HELD_OUT, rng) for scene in said]
    seen, want = reader(encoders.encode(prompts).context), answers(said)
    return {
        side: (seen[side].argmax(1) == want[side])[want[side] >= 0].float().mean().item()
        for side in SIDES
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoders, reader = load(args.out), Reader().eval()
    tensors = load_file(args.out / "reader.safetensors")
    told = {"step": float(tensors.pop("step"))}
    reader.load_state_dict(tensors)
    told |= {role: named(encoders, reader, role, args.per, 11) for role in ROLES}
    trained = Voice(words="synonym")
    rng = random.Random(12)
    prompts = [caption(Scene((i,)), trained, rng) for i in PLAIN for _ in range(args.per)]
    seen = reader(encoders.encode(prompts).context)["entities"].argmax(1)
    want = torch.tensor(PLAIN).repeat_interleave(args.per)
    told["synonym"] = (seen == want).float().mean().item()
    told |= {"traces": traces(encoders, reader), **sides(encoders, reader, 20, 13)}
    print({name: round(value, 3) for name, value in told.items()})


if __name__ == "__main__":
    main()
