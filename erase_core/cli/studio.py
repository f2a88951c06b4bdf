"""A model that draws lists of prompts into folders, without and with erasers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .models import MINIFLUX, open_model, require_vae, settle_to_draw
from .progress import Bar

if TYPE_CHECKING:
    from ..erasers.base import Eraser
    from ..evaluate.exam import Question
    from ..evaluate.suites.gallery import Gallery

SIDE = 512  # pixels, of every model but the miniature, so that tables compare


class Studio:
    """Draws as ``args`` say: ``size``, ``steps`` and ``guidance``, each None for what is usual."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.model = open_model(args, placed=False)
        require_vae(self.model)
        fixed = self.model.size if args.model == MINIFLUX else (SIDE, SIDE)
        self.size: tuple[int, int] = args.size or fixed
        self.batch = settle_to_draw(args, self.model, self.size)
        self.steps = args.steps or self.model.family.steps
        self.guidance = self.model.family.guidance if args.guidance is None else args.guidance
        self._bar = Bar()
        self._eraser: tuple[Path | None, Eraser | None] = (None, None)

    def how(self) -> dict[str, Any]:
        """What decides a picture beside prompt, seed and eraser."""
        height, width = self.size
        return {
            "model": self.model.name,
            "size": f"{width}x{height}",
            "steps": self.steps,
            "guidance": self.guidance,
        }

    def draw(
        self, folder: Path, questions: Sequence[Question], file: Path | None, label: str
    ) -> Gallery:
        """The pictures of the questions with the eraser in ``file``; what is there stays."""
        from ..evaluate.suites.gallery import Gallery
        from ..files import sha256

        how = self.how() | {"eraser": sha256(file) if file else ""}
        gallery = Gallery(folder, questions, how)
        eraser = self.eraser(file)

        def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Any:
            options: dict[str, Any] = {"size": self.size, "batch": self.batch}
            options |= {"steps": self.steps, "guidance": self.guidance}
            return self.model.generate(prompts, seeds, eraser, **options)

        gallery.fill(draw, self.batch, self._bar.phase(label, len(questions)))
        return gallery

    def close(self) -> None:
        """Let the model go, so that another can be opened in its place."""
        del self.model
        self._eraser = (None, None)

    def eraser(self, file: Path | None) -> Eraser | None:
        """The eraser in a file on the model's device; the last one is kept."""
        from ..erasers.load import load

        if self._eraser[0] != file:
            self._eraser = (file, load(file, self.model) if file else None)
        return self._eraser[1]


def file_name(name: str) -> str:
    """A method or concept as the name of a file."""
    return "".join(c if c.isalnum() or c in " -_=.,+" else "-" for c in name)
