"""Classifiers from a local folder: a network with classes (ViT, ResNet), or CLIP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...concepts.inflect import singular
from ...errors import EraseError
from ...files import read_json
from .clip import Clip, ZeroShot
from .words import Classifier

BATCH = 16  # pictures looked at at once


def open_classifier(folder: Path) -> Classifier:
    """The classifier in a folder of transformers' layout; EraseError when there is none."""
    config = folder / "config.json"
    told = read_json(config) if config.is_file() else None
    if isinstance(told, dict) and told.get("model_type") == "clip":
        return ZeroShot(Clip(folder), folder.name)
    return ImageClassifier(folder)


class ImageClassifier:
    """A network that knows classes by name; the class with the highest score counts."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        read = {"local_files_only": True}
        try:
            self.model: Any = AutoModelForImageClassification.from_pretrained(folder, **read)
            self.model.train(False)
            self.processor: Any = AutoImageProcessor.from_pretrained(folder, **read)
        except Exception as error:  # the parsers of damaged files raise nearly everything
            raise EraseError(
                f"There is no image classifier in {folder}; name a folder with config.json, "
                "weights and preprocessor_config.json."
            ) from error
        self.label = f"{folder.name} (top 1)"

    @cached_property
    def classes(self) -> dict[str, set[int]]:
        """The classes of every name: a label such as "tiger, Panthera tigris" holds several."""
        found: dict[str, set[int]] = {}
        for index, label in self.model.config.id2label.items():
            for name in re.split(r"[,;/]", str(label)):
                found.setdefault(_key(name), set()).add(int(index))
        return found

    def knows(self, word: str) -> bool:
        return _key(word) in self.classes

    @torch.no_grad()
    def shown(self, pictures: Tensor, words: Sequence[str], names: Sequence[str]) -> list[bool]:
        best = []
        for part in pictures.split(BATCH):
            pixels = self.processor(list(part.numpy()), return_tensors="pt").pixel_values
            best += self.model(pixel_values=pixels).logits.argmax(-1).tolist()
        return [index in self.classes[_key(word)] for index, word in zip(best, words, strict=True)]


def _key(name: str) -> str:
    """A name without its form: "Tigers" is "tiger"."""
    return singular(" ".join(name.replace("_", " ").casefold().split()))
