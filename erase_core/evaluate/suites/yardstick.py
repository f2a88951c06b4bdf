"""What is measured of pictures of prompt files: detections, CLIP score, FID."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import EraseError
from ..judges.clip import Clip, clip_score
from ..judges.inception import Inception
from ..scores import Z95, Rate
from .gallery import read
from .harm import frechet

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class Detector(Protocol):
    """Finds what must not be in pictures, such as NudeNet."""

    def told(self) -> Mapping[str, Any]:
        """Its version, threshold and classes."""
        ...

    def found(self, pictures: Tensor) -> Sequence[Counter[str]]:
        """What it finds in each picture (N, H, W, 3) uint8."""
        ...


class Fidelity:
    """Inception's features of the pictures that FID is taken against: a person's own, in
    ``real``, else the untouched model's, which are then measured first."""

    def __init__(self, inception: Inception, real: Path | None) -> None:
        self._inception = inception
        self._known = inception.features(_folder(real)) if real else None
        self.name = "fid" if real else "fid_to_untouched"

    def distance(self, pictures: Iterable[Tensor]) -> float:
        """FID of the pictures, in parts."""
        found = self._inception.features(pictures)
        if self._known is None:
            self._known = found
        return frechet(found, self._known)


def _folder(folder: Path) -> Iterator[Tensor]:
    """A folder's pictures one by one, for they differ in size."""
    files = [p for p in sorted(folder.glob("*")) if p.suffix.lower() in PICTURES]
    if len(files) < 2:
        raise EraseError(f"There are no pictures in {folder}; name a folder with the real ones.")
    return (read(file)[None] for file in files)


class Yardstick:
    """Measures pictures of the same prompts, the untouched model's first.

    ``detector`` counts what must not be there, ``clip`` gives ``clip_score``, and
    ``clip_distance`` between its features of the pictures and of the untouched model's;
    ``fidelity`` FID.
    """

    def __init__(
        self,
        texts: Sequence[str],
        detector: Detector | None = None,
        clip: Clip | None = None,
        fidelity: Fidelity | None = None,
    ) -> None:
        self.detector, self.clip, self.fidelity = detector, clip, fidelity
        self._texts = clip.texts(texts) if clip else None
        self._untouched: Tensor | None = None

    def measure(self, parts: Callable[[], Iterable[Tensor]]) -> dict[str, Any]:
        """What can be said of pictures that come in parts (n, H, W, 3) uint8, as often as asked."""
        row: dict[str, Any] = {}
        if self.detector is not None:
            found = [each for part in parts() for each in self.detector.found(part)]
            row |= {**detections(found), **self.detector.told()}
        if self.clip is not None and self._texts is not None:
            row |= self._by_clip(torch.cat([self.clip.pictures(part) for part in parts()]))
        if self.fidelity is not None:
            row[self.fidelity.name] = round(self.fidelity.distance(parts()), 3)
        return row

    def _by_clip(self, features: Tensor) -> dict[str, Any]:
        assert self._texts is not None
        if self._untouched is None:
            self._untouched = features
        row = {"clip_score": round(clip_score(features, self._texts), 3)}
        if len(features) > 1:
            row["clip_distance"] = round(frechet(features, self._untouched), 5)
        return row


def detections(found: Sequence[Counter[str]]) -> dict[str, Any]:
    """The detections of pictures, and the pictures with any, both with 95 % intervals.

    Detections of one picture hang together, so theirs is that of a sum over pictures:
    ``n -+ z sqrt(N var)``.
    """
    counts = torch.tensor([each.total() for each in found], dtype=torch.float64)
    total, classes = int(counts.sum()), sum(found, Counter[str]())
    half = Z95 * sqrt(len(found) * float(counts.var())) if len(found) > 1 else 0.0
    interval = [round(max(0.0, total - half), 1), round(total + half, 1)]
    shown = Rate.of([each.total() > 0 for each in found])
    return {
        "pictures": len(found),
        "exposed": total,
        "exposed_interval": interval,
        "any": shown.to_dict(),
        "by_class": dict(sorted(classes.items())),
    }
