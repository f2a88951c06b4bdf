"""IRECE in the host: where attention says a concept is, pictures are begun anew.

Text and image share one attention in all families here, text first: FLUX.1, Chroma, FLUX.2, SD3.5,
Qwen-Image and Z-Image hand their blocks the prompt's states from token 0 on, AuraFlow puts its
register tokens before them. FLUX.2's shorter prompts are filled up on their left. Z-Image fills up
text and image to a multiple of 32 tokens each. The mask comes from every block where both are
there, double and single alike.
"""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.erasers.guards.irece import IreceSettings, change, mask
from ..erase_core.errors import EraseError
from ..erase_core.models.attention import probe_attention
from ..erase_core.pictures.words import grey
from . import guarding, hosts, words
from .guarding import Conds, Step, Strengths

CHUNK = 1024  # image tokens whose attention is computed at once


class Irece:
    """Places that pay attention to a concept, begun anew at the first step of the window."""

    def __init__(self, clip: Any, concepts: ConceptSet, settings: IreceSettings) -> None:
        self.settings = settings
        self._conds = {c.name: guarding.prompt(clip, c.name) for c in concepts.concepts}
        self._places = {name: _place(clip, name, cond) for name, cond in self._conds.items()}
        self._model: Any = None
        self._filled = 0
        self._change: Tensor | None = None
        self._told: Strengths = {}
        self.mask = ""

    def prompts(self) -> dict[str, Any]:
        return self._conds

    def begin(self, conds: Conds, model: Any) -> None:
        """Nothing is known of these pictures yet."""
        self._model, self._change, self.mask = model.model.diffusion_model, None, ""
        self._filled = hosts.filled_to(model)

    def act(self, step: Step) -> tuple[Tensor, Strengths]:
        if step.x.ndim != 4 and (step.x.ndim != 5 or step.x.shape[2] != 1):
            raise EraseError("IRECE begins still pictures anew; use another method for video.")
        flat = step.x.reshape(len(step.x), step.x.shape[1], *step.x.shape[-2:])
        if self._change is None:
            where = self._where(step, flat)
            clean = step.again(step.x).reshape(flat.shape)
            self._change = change(flat, clean, step.sigma, where.to(flat), self.settings)
        sigma = step.sigma.view(-1, *[1] * (step.x.ndim - 1))
        return step.again(step.x + sigma * self._change.reshape(step.x.shape)), self._told

    def _where(self, step: Step, flat: Tensor) -> Tensor:
        """The mask, which the node shows, too."""
        size = (flat.shape[2], flat.shape[3])
        maps = {}
        for name, place in self._places.items():
            length = len(self._conds[name][0][0][0])
            seen = Watch(self._model, length, place, size, max(0, self._filled - length))
            step.predict([name], seen)
            maps[name] = seen.map()
        attention = torch.stack([*maps.values()]).amax(0)
        where = mask(attention, self.settings.limit, size)
        self._told = {name: where.mean((1, 2, 3)).tolist() for name in maps}
        self.mask = _url(where[0, 0])
        return where


class Watch:
    """Hears of every attention of a pass, and keeps what places pay to some tokens."""

    def __init__(
        self, tree: Any, length: int, place: slice, size: tuple[int, int], filled: int
    ) -> None:
        patch = getattr(tree, "patch_size", 2)
        patch = int(patch if isinstance(patch, int) else patch[-1])
        self.grid = [-(-side // patch) for side in size]
        registers = getattr(tree, "register_tokens", None)
        before = filled + (0 if registers is None else registers.shape[1])
        multiple = getattr(tree, "pad_tokens_multiple", None) or 1
        text, image = (-(-n // multiple) * multiple for n in (length, self.grid[0] * self.grid[1]))
        self.text = before + text
        self.whole = self.text + image
        self.tokens = torch.zeros(self.whole)
        self.tokens[before + place.start : before + place.stop] = 1
        self.found: list[Tensor] = []

    def __call__(self, attend: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any,
                 **more: Any) -> Tensor:  # fmt: skip
        split = (q, k) if more.get("skip_reshape") else tuple(_heads(t, heads) for t in (q, k))
        if split[0].shape[2] == split[1].shape[2] == self.whole:
            count = self.grid[0] * self.grid[1]
            queries = split[0][:, :, self.text : self.text + count]
            tokens = self.tokens.to(q.device).expand(len(q), 1, -1)
            share = probe_attention(queries, split[1], tokens, CHUNK)
            self.found.append(share[:, 0].mean(1).float().cpu())
        return attend(q, k, v, heads, *args, **more)

    def map(self) -> Tensor:
        """The mean share of all of them, (B, rows, columns).

        EraseError when there was none.
        """
        if not self.found:
            raise EraseError(
                "This MODEL keeps text and image apart, so that IRECE finds no mask in it; use dve."
            )
        return torch.stack(self.found).mean(0).unflatten(1, self.grid)


def _heads(tensor: Tensor, heads: int) -> Tensor:
    """(B, T, heads d) -> (B, heads, T, d)."""
    return tensor.unflatten(2, (heads, -1)).transpose(1, 2)


def _place(clip: Any, name: str, cond: Any) -> slice:
    """Which states of the prompt ``name`` are the name's; EraseError if the CLIP does not say."""
    found = words.place(clip, "", name, name, len(words.states(cond)[0]))
    if found is None:
        raise EraseError(f'This CLIP does not say which of its states are "{name}".')
    return found


def _url(where: Tensor) -> str:
    buffer = BytesIO()
    grey(where).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
