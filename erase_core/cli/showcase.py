"""The demo's sheets: the same seeds without and with an eraser, and where the words land."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .attention import heat_row, maps

if TYPE_CHECKING:
    from ..evaluate.exam import Exam
    from ..evaluate.judges.recogniser import Case
    from ..evaluate.marks import Marks, Role
    from ..models.base import Adapter, Model
    from ..pictures import Picture, Row
    from ..training.progress import NewBar

SEEDS = 4  # pictures a prompt
# Role in the exam -> title of its band and prompts shown.
BANDS: dict[Role, tuple[str, int]] = {
    "erased": ("Erased: {concept}", 3),
    "seen": ("Synonyms in training", 1),
    "held_out": ("Synonyms never trained on", 1),
    "near": ("Near neighbours", 2),
    "other": ("Everything else", 2),
}


def before_after(
    model: Model,
    eraser: Adapter,
    exam: Exam[Case],
    untouched: Marks,
    marks: Marks,
    bar: NewBar,
) -> Picture:
    """A few of the exam's prompts, drawn from the same seeds without and with the eraser."""
    from ..pictures import grid, to_pictures

    chosen = {
        role: _varied(exam.roles[role], BANDS[role][1]) for role in BANDS if role in exam.roles
    }
    cases = [case for picked in chosen.values() for case in picked]
    prompts = [case.prompt for case in cases for _ in range(SEEDS)]
    seeds = [case.seed + i for case in cases for i in range(SEEDS)]
    both = []
    for used, label in ((None, "drawing before"), (eraser, "drawing after")):
        tick = bar(label, len(prompts))
        both.append(to_pictures(model.generate(prompts, seeds, used, on_batch=tick)))
    rows: list[Row] = []
    for role, picked in chosen.items():
        heading = _heading(role, exam.title, untouched, marks)
        rows += _rows(picked, heading, len(rows) * SEEDS, both)
    return grid(rows, ("without", "with the eraser"), title=f"MiniFlux forgets “{exam.title}”")


def _varied(cases: Sequence[Case], count: int) -> list[Case]:
    """Cases that differ: in what they ask for, and in form (several, in a relation, in a style)."""
    found: dict[tuple[object, ...], Case] = {}
    for case in cases:
        scene = case.scene
        form = (scene.number > 1, scene.relation is not None, scene.style is not None)
        several = len({c.concept for c in cases}) > 1
        found.setdefault((case.concept,) if several else form, case)
    return list(found.values())[:count]


def _heading(role: Role, concept: str, untouched: Marks, marks: Marks) -> str:
    before, after = untouched.rates[role].value, marks.rates[role].value
    name = BANDS[role][0].format(concept=concept)
    return f"{name}    recognised in {before:.0%} of pictures, then {after:.0%}"


def _rows(picked: list[Case], heading: str, start: int, both: list[list[Picture]]) -> list[Row]:
    from ..pictures import Row

    rows = []
    for index, case in enumerate(picked):
        part = slice(start + index * SEEDS, start + (index + 1) * SEEDS)
        groups = [pictures[part] for pictures in both]
        rows.append(Row(case.prompt, groups, section=heading if index == 0 else ""))
    return rows


def attention_sheet(model: Model, eraser: Adapter, exam: Exam[Case]) -> Picture:
    """Where the concept and its companion land before and after."""
    from ..pictures import heat_grid

    role: Role = "companion" if "companion" in exam.roles else "erased"
    case = exam.roles[role][0]
    words = list(dict.fromkeys([exam.title, case.concept]))
    text, seed = case.prompt, case.seed
    cond = model.text.encode([text])
    rows = [
        heat_row(model, label, words, maps(model, text, cond, words, seed, used))
        for label, used in (("without", None), ("with the eraser", eraser))
    ]
    return heat_grid(rows, title=f"“{case.prompt}”")
