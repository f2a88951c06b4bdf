"""The host's CLIP models as judges: words and pictures in one space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..erase_core.errors import EraseError


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
