"""Inception's features of pictures, through which the field takes FID.

The network is torch-fidelity's, an optional extra; torchmetrics takes the same one from it. Its
weights are the person's own, as safetensors: the published file is a pickle, which nobody here
opens. docs/exams.md has the line that converts it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ...errors import EraseError
from ...tensors import read_weights

BATCH = 32  # pictures looked at at once
FEATURES = "2048"  # of the last pooling, FID's


class Inception:
    """Features (N, 2048) of pictures; EraseError when torch-fidelity or the weights are missing."""

    def __init__(self, weights: Path) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise EraseError(
                "FID needs torch-fidelity; run: pip install torch-fidelity."
            ) from error
        tensors = {name: tensor.float() for name, tensor in read_weights(weights).items()}
        with TemporaryDirectory() as folder:  # it takes only torch's own kind of file
            file = Path(folder) / "inception.pth"
            torch.save(tensors, file)
            try:
                self._network: Any = FeatureExtractorInceptionV3("fid", [FEATURES], str(file))
            except (RuntimeError, TypeError) as error:
                raise EraseError(
                    f"{weights} are no weights of torch-fidelity's Inception; convert "
                    "weights-inception-2015-12-05-6726825d.pth, as docs/exams.md says."
                ) from error

    @torch.no_grad()
    def features(self, pictures: Iterable[Tensor]) -> Tensor:
        """Of parts (n, H, W, 3) uint8, each of pictures of one size."""
        found = []
        for part in pictures:
            for some in part.permute(0, 3, 1, 2).contiguous().split(BATCH):
                found.append(self._network(some)[0].double())
        return torch.cat(found)
