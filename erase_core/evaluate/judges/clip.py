"""CLIP: which word fits a picture best, how well it fits its prompt, and its features.

The embeddings may also come from elsewhere, such as a host's CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import EraseError

LABEL = "a photo of {word}"
BATCH = 16  # pictures that CLIP looks at at once


class Embeds(Protocol):
    """Pictures (N, H, W, 3) uint8 and texts in one space, (N, D)."""

    def pictures(self, pictures: Tensor) -> Tensor: ...

    def texts(self, texts: Sequence[str]) -> Tensor: ...


class ZeroShot:
    """CLIP as a classifier without training: the name whose label is nearest to a picture wins.

    Radford et al., ICML 2021, with one label a name: "a photo of ...".
    """

    def __init__(self, clip: Embeds, label: str = "CLIP") -> None:
        self.clip, self.label = clip, f"{label} zero-shot"

    def knows(self, word: str) -> bool:
        return True

    def shown(self, pictures: Tensor, words: Sequence[str], names: Sequence[str]) -> list[bool]:
        labels = self.clip.texts([LABEL.format(word=name) for name in names])
        best = nearest(self.clip.pictures(pictures), labels)
        return [names[index] == word for index, word in zip(best, words, strict=True)]


def nearest(pictures: Tensor, labels: Tensor) -> list[int]:
    """The label (M, D) with the highest cosine for each picture (N, D)."""
    units = [F.normalize(x.float(), dim=-1) for x in (pictures, labels)]
    return [int(index) for index in (units[0] @ units[1].T).argmax(-1)]


class Clip:
    """A CLIP model from a local folder: how well pictures fit their prompts, and their features."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        try:
            self.model: Any = CLIPModel.from_pretrained(folder, local_files_only=True).train(False)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.processor: Any = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the parsers of damaged files raise nearly everything
            raise EraseError(
                f"There is no CLIP model in {folder}; name a folder with config.json, weights, "
                "tokenizer and preprocessor_config.json."
            ) from error

    @torch.no_grad()
    def pictures(self, pictures: Tensor) -> Tensor:
        """Unit features (N, D) of pictures (N, H, W, 3) uint8."""
        parts = []
        for part in pictures.split(BATCH):
            pixels = self.processor(list(part.numpy()), return_tensors="pt").pixel_values
            parts.append(_embedding(self.model.get_image_features(pixel_values=pixels)))
        return F.normalize(torch.cat(parts).float(), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features (N, D) of texts, cut at the model's length."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        found = self.model.get_text_features(tokens.input_ids, tokens.attention_mask)
        return F.normalize(_embedding(found).float(), dim=-1)


def _embedding(found: Any) -> Tensor:
    """Features as a tensor, whichever way this version of transformers returns them."""
    return found if isinstance(found, Tensor) else found.pooler_output


def clip_score(pictures: Tensor, texts: Tensor) -> float:
    """``100 mean max(cos, 0)`` of unit features (N, D) (Hessel et al., EMNLP 2021, times 100)."""
    return 100 * float((pictures * texts).sum(-1).clamp(min=0).mean())
