"""Options that say who judges pictures, and with what they are measured."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .models import MINIFLUX

if TYPE_CHECKING:
    from ..evaluate.exam import Judge
    from ..evaluate.suites.yardstick import Fidelity


def add_judges(group: Any) -> None:
    """``--judge``, ``--vlm``, ``--clip``, ``--inception`` and ``--real``."""
    group.add_argument(
        "--judge",
        type=Path,
        metavar="DIR",
        help="folder of a CLIP model or an image classifier (ViT, ResNet) that says what a picture "
        "shows (default: MiniFlux's recogniser for MiniFlux)",
    )
    group.add_argument(
        "--vlm",
        metavar="URL",
        help="instead, an OpenAI-compatible endpoint of a vision model, asked yes or no; its "
        "key is in ERASEANYTHING_VLM_KEY",
    )
    group.add_argument("--vlm-model", metavar="NAME", help="the model's name there")
    group.add_argument("--clip", type=Path, metavar="DIR", help="CLIP model for the score")
    group.add_argument(
        "--inception",
        type=Path,
        metavar="FILE",
        help="Inception's weights for FID, which needs torch-fidelity (docs/exams.md)",
    )
    group.add_argument(
        "--real",
        type=Path,
        metavar="DIR",
        help="pictures that FID is taken against (default: the untouched model's)",
    )


def open_judge(args: argparse.Namespace) -> Judge[Any]:
    """Who judges; EraseError when nobody is named."""
    from ..evaluate.judges.recogniser import RecogniserJudge
    from ..evaluate.judges.words import WordJudge

    if args.judge and args.vlm:
        raise EraseError("One judge is enough; name --judge or --vlm.")
    if args.vlm:
        from ..endpoint import Endpoint
        from ..evaluate.judges.vlm import KEY, OPTIONS, VisionModel

        if not args.vlm_model:
            raise EraseError("Name the endpoint's model with --vlm-model.")
        key = os.environ.get(KEY, "").strip()
        return WordJudge(VisionModel(Endpoint(args.vlm, key, args.vlm_model, OPTIONS)))
    if args.judge:
        from ..evaluate.judges.classifier import open_classifier

        return WordJudge(open_classifier(args.judge))
    if args.model != MINIFLUX:
        raise EraseError(
            "Somebody must say what pictures show; name a CLIP model or an image classifier with "
            "--judge, or a vision model with --vlm."
        )
    return RecogniserJudge()


def open_fidelity(args: argparse.Namespace) -> Fidelity | None:
    """FID, where ``--inception`` names its network."""
    if args.inception is None:
        if args.real:
            raise EraseError("FID against real pictures needs Inception; name it with --inception.")
        return None
    from ..evaluate.judges.inception import Inception
    from ..evaluate.suites.yardstick import Fidelity

    return Fidelity(Inception(args.inception).features, args.real)
