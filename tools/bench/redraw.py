"""What IRECE takes out of a picture that is drawn over, where no prompt says what it shows.

    PYTHONPATH=. python tools/bench/redraw.py [--things 10] [--count 4] [--denoise 0.4]

MiniFlux draws a thing on a coloured ground. That picture, noised to the level where so much of the
steps is left, is drawn on with a prompt that names the ground alone. Prints in how many pictures
the thing is seen afterwards, anything is, and the ground's colour still is: as it is, with an
eraser by ``uce``, and guarded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.guards.base import Guard, Guarded, find_guard
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.evaluate.report.markdown import markdown
from erase_core.methods.base import Task, find_method
from erase_core.miniatures import miniflux
from erase_core.miniatures.miniflux.cases import CHOICES
from erase_core.miniatures.miniflux.world import COLOURS, INDEX
from erase_core.models.base import Adapter, Model
from erase_core.models.sampling import euler

JUDGE = RecogniserJudge()
STEPS = 20


def redraw(
    model: Model, latents: Tensor, prompts: Sequence[str], share: float, eraser: Adapter | None
) -> Tensor:
    """Latents (N, C, h, w) of pictures, drawn on from a ``share`` of the steps."""
    levels = model.sigmas(STEPS)[round(STEPS * (1 - share)) :]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    cond, drawing = model.text.encode(list(prompts)), model
    if isinstance(model, Guarded):
        drawing = model.in_one_drawing()

    def walk(x: Tensor, sigma: Tensor) -> Tensor:
        return drawing.velocity(x, sigma, cond, model.family.guidance, eraser)

    with torch.no_grad():
        return euler(walk, torch.lerp(latents, noise, levels[0]), levels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--things", type=int, default=10)
    parser.add_argument("--count", type=int, default=4, help="pictures a thing")
    parser.add_argument("--denoise", type=float, default=0.4, help="share of the steps drawn again")
    args = parser.parse_args()
    plain, grounds = miniflux.load(torch.float32), list(COLOURS)[: args.count]
    ways = ("the picture", "drawn over", "with `uce`", "with IRECE")
    found = {way: [0, 0, 0] for way in ways}
    for name in CHOICES["thing"][1::2][: args.things]:
        concepts = ConceptSet((JUDGE.concept(name),))
        eraser = find_method("uce").erase(Task(plain, concepts)).eraser
        guard = find_guard("irece")
        settings = guard.settings(start=1 - args.denoise)
        guarded = Guard(guard, concepts, settings).wrap(plain)
        first = plain.draw([f"a {name} on a {g} background" for g in grounds], range(args.count))
        told = [f"a {ground} background" for ground in grounds]
        made = [first]
        for model, own in ((plain, None), (plain, eraser), (guarded, None)):
            made.append(redraw(model, first, told, args.denoise, own))
        for way, latents in zip(ways, made, strict=True):
            seen = JUDGE.look(plain.decode(latents))
            ground = seen.heads["colour"].argmax(1) == torch.arange(args.count)
            there = (seen.things[:, INDEX[name]] > 0, seen.things.amax(1) > 0, ground)
            found[way] = [old + int(new.sum()) for old, new in zip(found[way], there, strict=True)]
        print(name, found, flush=True)
    whole = args.things * args.count
    rows = [[way, *(f"{n} of {whole}" for n in counts)] for way, counts in found.items()]
    print(markdown(["", "the thing", "anything", "the ground"], rows))


if __name__ == "__main__":
    main()
