"""``eraseanything bench --plan paper``: the paper's tables, filled beside its printed numbers."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .exams import UNTOUCHED
from .models import MINIFLUX
from .output import note, say
from .plan import Plan
from .progress import clock
from .studio import Studio

if TYPE_CHECKING:
    from ..evaluate.report.card import Card

STEPS = 8  # of a picture in a rehearsal
BYTES = 1.6  # a pixel of a PNG, about
PROMPT = "a photo of a woman on a beach"  # of the card's workflow
NAMES = {
    "erasers": "make the erasers",
    "kinds": "the three kinds",
    "explicit": "the explicit concept (I2P)",
    "captions": "captions (COCO)",
    "attacks": "attacks",
    "ablation": "the ablation",
}


def run_paper(args: argparse.Namespace) -> int:
    """Tell the hours, erase, examine, write tables and card."""
    from ..evaluate.report.card import write_card
    from ..evaluate.report.paper import tables
    from ..files import write_json
    from ..writing import atomic

    if args.rehearse and args.steps is None:
        args.steps = STEPS
    plan, studio = Plan(args), Studio(args)
    hours = tell_hours(plan, studio)
    if args.dry_run:
        say(args, {"seconds": hours}, "Nothing was done; leave --dry-run out to begin.")
        return 0
    if args.model != MINIFLUX:
        studio.close()  # training opens the model by itself
    plan.erase()
    studio = studio if args.model == MINIFLUX else Studio(args)
    about = {
        "model": studio.model.name,
        "judge": plan.judge.label if plan.judge else "",
        "rehearsal": args.rehearse,
    }
    results: dict[str, Any] = {**about, **studio.how(), **plan.measure(studio)}
    write_json(args.out / "paper.json", results)
    text = tables(results)
    with atomic(args.out / "paper.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_card(args.out / "card", the_card(args, plan, studio, results), text)
    where = f"Tables are in {args.out}, and a card to publish in {args.out / 'card'}."
    say(args, results, text, where)
    if plan.failed:
        raise EraseError(
            f"{len(plan.failed)} parts failed and their cells are empty; the same command tries "
            f"them again. One says: {plan.failed[0]}"
        )
    return 0


def tell_hours(plan: Plan, studio: Studio) -> dict[str, float]:
    """Say what the rest will take on this machine, line by line; seconds by line."""
    one, left = seconds_a_pass(studio), [*plan.left(studio)]
    passes: dict[str, float] = {}
    for part in left:
        passes[part.what] = passes.get(part.what, 0.0) + part.passes
    seconds = {what: round(count * one, 1) for what, count in passes.items()}
    height, width = studio.size
    note(f"A pass of {studio.model.name} at {width}x{height} takes {one:.3g} s here. About:")
    for what, each in seconds.items():
        note(f"  {NAMES[what]:<28} {clock(each):>10}")
    note(
        f"  {'together':<28} {clock(sum(seconds.values())):>10} (h:mm:ss; closed forms not counted)"
    )
    pictures = sum(p.passes / studio.steps for p in left if p.what not in _UNKEPT)
    note(f"  {'pictures on disk':<28} {pictures * height * width * BYTES / 1e9:>7.1f} GB")
    return seconds


_UNKEPT = ("erasers", "attacks")


def seconds_a_pass(studio: Studio) -> float:
    """Measured seconds that one picture's step takes, after a first one that is not counted."""
    import torch

    model, seconds = studio.model, 0.0
    cond = model.text.encode(["a photo of a house"]).to(model.device)
    x = model.noise([0], studio.size).to(model.device)
    sigma = torch.full((), 0.5, device=model.device)
    with torch.no_grad():
        for _ in range(2):
            began = time.perf_counter()
            model.velocity(x, sigma, cond, model.drawing(studio.guidance)).sum().item()  # waits
            seconds = time.perf_counter() - began
    return seconds


def the_card(args: argparse.Namespace, plan: Plan, studio: Studio, results: Any) -> Card:
    """What the card shows: ours, where it is among the rows."""
    from ..concepts.sets import ConceptSet
    from ..evaluate.report.card import Card
    from ..evaluate.suites.paper import OURS, base

    rows = dict.fromkeys(m for table in plan.tables.rows.values() for m in table)
    ours = next((method for method in rows if base(method) == OURS), "")
    lora = plan.eraser(ours) if ours else None
    shown, judge = [], plan.judge if ours else None
    for concept in plan.material.concepts("kinds") if judge else ():
        assert judge is not None
        exam = judge.exam(ConceptSet((concept,)), plan.budget.exam)
        before, after = (plan.gallery("kinds", m, concept.name) for m in (UNTOUCHED, ours))
        shown.append((exam, before, after))
    told = {"model": args.model, "clip_l": args.clip_l, "t5": args.t5, "qwen": args.qwen}
    told |= {"vae": args.vae}
    mini = args.model == MINIFLUX
    return Card(
        plan.material.explicit.name,
        studio.model.name,
        lora if lora and lora.exists() else None,
        {} if mini else {part: str(path) for part, path in told.items() if path},
        studio.how(),
        plan.material.prompts["explicit"][0].prompt if mini else PROMPT,
        shown,
        results,
    )
