"""On what ``bench --plan paper`` examines erasers: the person's files, or MiniFlux's own world."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .judges import open_fidelity
from .models import MINIFLUX
from .output import note

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluate.exam import Question
    from ..evaluate.suites.paper import Budget, Material
    from ..evaluate.suites.yardstick import Detector, Yardstick

FILES = {"explicit": "i2p", "captions": "coco", "attacks": "ring"}  # table -> option


def add_material(group: Any) -> None:
    """``--i2p``, ``--coco`` and ``--ring``."""
    group.add_argument("--i2p", type=Path, metavar="FILE", help="I2P's prompts, of 4,703")
    group.add_argument("--coco", type=Path, metavar="FILE", help="COCO's captions, of 10,000")
    group.add_argument(
        "--ring", type=Path, metavar="FILE", help="Ring-A-Bell's prompts of nudity, of 285"
    )


def gather(args: argparse.Namespace, budget: Budget, judged: bool) -> Material:
    """What the tables are filled with; a note says which are left out, and why."""
    return _miniature(args, budget) if args.model == MINIFLUX else _own(args, budget, judged)


def measure_with(args: argparse.Namespace, texts: Sequence[str], table: str) -> Yardstick:
    """What measures the pictures of a table of prompts."""
    from ..evaluate.judges.clip import Clip
    from ..evaluate.suites.yardstick import Yardstick

    if table == "explicit":
        return Yardstick(texts, detector(args))
    fidelity: Any = open_fidelity(args)
    if fidelity is None and args.model == MINIFLUX:
        from ..evaluate.judges.recogniser import RecogniserJudge
        from ..evaluate.suites.yardstick import Fidelity

        fidelity = Fidelity(RecogniserJudge().features)
    return Yardstick(texts, None, Clip(args.clip) if args.clip else None, fidelity)


def detector(args: argparse.Namespace) -> Detector:
    """NudeNet; MiniFlux's recogniser for MiniFlux."""
    from ..evaluate.judges.nudenet import NudeNet

    return Looking(_mini_explicit()) if args.model == MINIFLUX else NudeNet()


def _own(args: argparse.Namespace, budget: Budget, judged: bool) -> Material:
    from ..concepts.find import find_concept
    from ..evaluate.suites.paper import EXPLICIT, KINDS, PEOPLE, Material
    from .exams import PER_BAND

    def found(names: Sequence[str], kind: Any = None) -> list[Any]:
        return [find_concept(name, kind, None, PER_BAND, 0)[0] for name in names]

    if not judged:
        note("No --judge or --vlm: the tables of the three kinds and of the ablation are left out.")
    seen = args.i2p or args.ring
    return Material(
        {k: found(n[: budget.concepts], k) if judged else [] for k, n in KINDS.items()},
        found(PEOPLE[: budget.people]) if judged else [],
        found([EXPLICIT])[0],
        detector(args) if seen else None,
        _prompts(args, budget),
    )


def _prompts(args: argparse.Namespace, budget: Budget) -> Mapping[str, Sequence[Question]]:
    from ..evaluate.suites.paper import some
    from ..evaluate.suites.prompts import read_prompts

    counts = {
        "explicit": budget.explicit, "captions": budget.captions, "attacks": budget.attacked
    }  # fmt: skip
    found: dict[str, Sequence[Question]] = {}
    for table, option in FILES.items():
        file = getattr(args, option)
        if file is None:
            note(f"No --{option}: the table of {table} is left out.")
            continue
        found[table] = some(read_prompts(file), counts[table])
    if "captions" in found and args.clip is None and args.inception is None:
        raise EraseError("--coco needs --clip for the score, or --inception for FID, or both.")
    return found


def _miniature(args: argparse.Namespace, budget: Budget) -> Material:
    """MiniFlux's world in the place of the field's files: a thing is what must not be seen."""
    from ..evaluate.judges.recogniser import RecogniserJudge
    from ..evaluate.suites.paper import Material
    from ..evaluate.suites.suite import REPORTED, SEVERAL

    judge, hidden = RecogniserJudge(), _mini_explicit()
    names = {kind: known[: budget.concepts] for kind, known in REPORTED.items()}
    return Material(
        {kind: [judge.concept(name) for name in chosen] for kind, chosen in names.items()},
        [judge.concept(name) for name in SEVERAL[-budget.people :]],
        judge.concept(hidden),
        Looking(hidden),
        {
            "explicit": judge.cases([hidden], min(budget.explicit, 256), 0),
            "captions": judge.cases(judge.others(hidden), min(budget.captions, 512), 1),
            "attacks": judge.cases([hidden], min(budget.attacked, 16), 2),
        },
    )


def _mini_explicit() -> str:
    from ..evaluate.suites.suite import REPORTED

    return REPORTED["entity"][0]


class Looking:
    """MiniFlux's recogniser as a detector of one thing."""

    def __init__(self, name: str) -> None:
        from ..evaluate.judges.recogniser import RecogniserJudge

        self._judge, self._name = RecogniserJudge(), name

    def told(self) -> dict[str, Any]:
        """As of any detector."""
        told = {"detector": "MiniFlux's recogniser", "resolution": 128, "threshold": 0.5}
        return told | {"classes": [self._name]}

    def found(self, pictures: Tensor) -> list[Counter[str]]:
        """The thing, once in every picture that shows it."""
        asked = self._judge.cases([self._name], len(pictures), 0)
        return [Counter([self._name] * hit) for hit in self._judge.shown(pictures, asked)]
