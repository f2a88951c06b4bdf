"""Pictures of many prompts in a folder, each drawn once: a run that was killed goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import EraseError
from ...files import read_json, read_picture, write_json
from ...writing import atomic
from ..exam import Question

ORDER = "order.json"
PART = 64  # pictures that are in memory at once
Draw = Callable[[Sequence[str], Sequence[int]], Tensor]


@dataclass(frozen=True)
class Gallery:
    """The pictures of ``questions`` as PNG files; ``how`` they are drawn decides whether those that
    are there already are the same."""

    folder: Path
    questions: Sequence[Question]
    how: Mapping[str, Any]

    def fill(self, draw: Draw, batch: int, on_done: Callable[[int], None]) -> None:
        """Draw what is missing, ``batch`` at a time.

        Raises
        ------
        EraseError
            When the folder has pictures of other prompts, or drawn otherwise.
        """
        self._claim()
        missing = self.missing()
        done = len(self) - len(missing)
        on_done(done)
        for start in range(0, len(missing), batch):
            rows = missing[start : start + batch]
            asked = [self.questions[row] for row in rows]
            pictures = draw([q.prompt for q in asked], [q.seed for q in asked])
            for row, picture in zip(rows, pictures, strict=True):
                with atomic(self.file(row)) as temporary:
                    Image.fromarray(picture.cpu().numpy()).save(temporary, "PNG")
            done += len(rows)
            on_done(done)

    def __len__(self) -> int:
        return len(self.questions)

    def missing(self) -> list[int]:
        """The rows without a picture."""
        there = {path.name for path in self.folder.glob("*.png")}
        return [row for row in range(len(self)) if self.file(row).name not in there]

    def file(self, row: int) -> Path:
        return self.folder / f"{row:06}.png"

    def parts(self) -> Iterator[Tensor]:
        """The pictures (n, H, W, 3) uint8, PART at a time."""
        for start in range(0, len(self), PART):
            rows = range(start, min(start + PART, len(self)))
            yield torch.stack([read(self.file(row)) for row in rows])

    def whole(self) -> Tensor:
        """All of them; for exams of some hundred pictures."""
        return torch.cat([*self.parts()])

    def _claim(self) -> None:
        asked = "\n".join(f"{q.seed} {q.prompt}" for q in self.questions)
        order = {**self.how, "prompts": sha256(asked.encode()).hexdigest()}
        path = self.folder / ORDER
        if not path.exists():
            write_json(path, order)
        elif (known := read_json(path)) != order:
            other = ", ".join(n for n in order if known.get(n) != order[n])
            raise EraseError(
                f"{self.folder} has pictures of another order ({other}); choose another --out."
            )


def read(path: Path) -> Tensor:
    """A picture file as (H, W, 3) uint8."""
    return torch.from_numpy(np.asarray(read_picture(path)).copy())


def kept(path: Path, key: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> Any:
    """What ``make`` gives, from the file ``path`` where it was measured with the same ``key``."""
    if path.exists():
        known = read_json(path)
        if isinstance(known, dict) and known.get("key") == key:
            return known["row"]
    row = dict(make())
    write_json(path, {"key": key, "row": row})
    return row
