"""Who judges pictures in the host: its CLIP models, a classifier's folder, or a vision model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch import Tensor

from ..erase_core.endpoint import Endpoint
from ..erase_core.errors import EraseError
from ..erase_core.evaluate.exam import Judge
from ..erase_core.evaluate.judges.classifier import open_classifier
from ..erase_core.evaluate.judges.clip import ZeroShot
from ..erase_core.evaluate.judges.recogniser import RecogniserJudge
from ..erase_core.evaluate.judges.vlm import ENVIRONMENT, VisionModel
from ..erase_core.evaluate.judges.words import WordJudge
from . import hosts

AUTO, VISION = "recogniser or CLIP vision", "vision model"


def choices() -> list[str]:
    """The judges that can be chosen: beside the host's own, classifiers in models/classifiers."""
    folders = (path.parent.name for path in _classifiers().glob("*/config.json"))
    return [AUTO, VISION, *sorted(folders)]


def choose(chosen: str, model: Any, clip: Any, clip_vision: Any) -> Judge[Any]:
    """The judge of that name; EraseError when something that it needs is missing."""
    if chosen == VISION:
        return WordJudge(VisionModel(Endpoint.from_environment(ENVIRONMENT)))
    if chosen != AUTO:
        return WordJudge(open_classifier(_classifiers() / Path(chosen).name))
    if clip_vision is not None:
        return WordJudge(ZeroShot(HostClip(clip, clip_vision)))
    if not hosts.is_miniature(hosts.sizes(model)):
        raise EraseError("This model needs a judge; connect CLIP vision (CLIP-L's).")
    return RecogniserJudge()


def _classifiers() -> Path:
    return Path(folder_paths.models_dir) / "classifiers"


class HostClip:
    """A CLIP and its vision model, as :class:`ZeroShot` asks them; EraseError when they do not
    belong together, before anything is drawn."""

    def __init__(self, clip: Any, vision: Any) -> None:
        self._clip, self._vision = clip, vision
        self._width = self.texts(["a photo", "a drawing"]).shape[1]
        self.pictures(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))

    def texts(self, texts: Sequence[str]) -> Tensor:
        return clip_words(self._clip, texts)

    def pictures(self, pictures: Tensor) -> Tensor:
        return clip_pictures(self._vision, pictures.float() / 255, self._width)


def clip_words(clip: Any, texts: Sequence[str]) -> Tensor:
    """Texts as CLIP-L's joint space has them: (B, D), to be compared with pictures.

    EraseError when there is no CLIP-L, or its projection into that space is missing.
    """
    clip.load_model()
    encoder = clip.cond_stage_model
    if not hasattr(encoder, "clip_l"):
        raise EraseError(
            "This CLIP has no CLIP-L to judge with; connect one that has as clip_l, such as that "
            "of DualCLIPLoader, type flux."
        )
    encoder.reset_clip_options()
    encoder.set_clip_options(
        {"projected_pooled": True, "execution_device": clip.patcher.load_device}
    )
    rows = [encoder.clip_l.encode_token_weights(clip.tokenize(t)["l"])[1] for t in texts]
    encoder.reset_clip_options()
    found = torch.cat(rows).float().cpu()
    if not found.isfinite().all() or not found.any() or len(found.unique(dim=0)) < len(set(texts)):
        raise EraseError(
            "This CLIP-L file lacks its text projection (text_projection.weight), as the usual "
            "clip_l.safetensors does; give Erasure Report a CLIP whose CLIP-L is complete, such as "
            "the model.safetensors of openai/clip-vit-large-patch14."
        )
    return found


def clip_pictures(clip_vision: Any, images: Tensor, width: int) -> Tensor:
    """An IMAGE as a CLIP vision model's joint space has it: (B, width).

    EraseError when the space is of another width than CLIP-L's words have.
    """
    rows = [clip_vision.encode_image(part)["image_embeds"] for part in images.split(16)]
    found = torch.cat(rows).float().cpu()
    if found.shape[1] != width:
        raise EraseError(
            "This CLIP vision model does not belong to CLIP-L; choose clip-vit-large-patch14."
        )
    return found
