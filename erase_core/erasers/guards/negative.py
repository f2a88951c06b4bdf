"""What people use instead of guards, as rows to stand beside them: a negative prompt, and NAG.

Both act on every prompt, with the concepts' names for what is not wanted.

*Negative prompt*: with the prediction ``v_n`` for the names, at the guidance of the prompt,

    v' = v + strength scale (v - v_n),

which is classifier-free guidance of scale ``1 + scale`` (Ho and Salimans 2022, arXiv 2207.12598).

*NAG* (Chen et al. 2025, arXiv 2505.21179), as ComfyUI's own node has it. The names run along in
the batch. In every block the image's attention output z of the prompt, and z_n of the names, become

    g = scale z - (scale - 1) z_n,    r = |g|_1 / |z|_1 of each token,
    z' = alpha g min(r, tau) / r + (1 - alpha) z

for both. It needs blocks as Flux has them. Here ``strength`` multiplies alpha.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from re import compile as regex
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import EraseError
from ...models.base import Adapter, Conditioning, Model
from ...settings import setting
from .base import Act, Call, Guard, GuardMethod, GuardSettings, at

AFTER = regex(r"double_blocks\.\d+\.img_attn\.proj|single_blocks\.\d+\.linear2")


@dataclass(frozen=True)
class NegativeSettings(GuardSettings):
    """How far predictions go from the names'."""

    scale: float = setting(2.0, "how far from the names' prediction", low=0, high=100, step=0.5)


@dataclass(frozen=True)
class NagSettings(GuardSettings):
    """The inputs of ComfyUI's node, and its defaults."""

    scale: float = setting(5.0, "how far from the names' attention", low=0, high=50, step=0.1)
    alpha: float = setting(0.5, "share of it", low=0, high=1, step=0.01)
    tau: float = setting(1.5, "largest growth of a token", low=1, high=10, step=0.01)


def _names(guard: Guard) -> str:
    return ", ".join(concept.name for concept in guard.concepts.concepts)


def act_against(model: Model, guard: Guard) -> Act:
    """Predictions pushed away from the names'."""
    settings: NegativeSettings = guard.settings
    negative = model.text.encode([_names(guard)])

    def acted(model: Model, call: Call) -> Tensor:
        v = call.of(model)
        away = at(call, negative, call.eraser).of(model)
        return v + settings.strength * settings.scale * (v - away)

    return acted


def normalised(z: Tensor, away: Tensor, settings: NagSettings) -> Tensor:
    """``z'`` of attention outputs (..., D)."""
    guided = settings.scale * z - (settings.scale - 1) * away
    ratio = _size(guided) / _size(z)
    guided = guided * ratio.clamp(max=settings.tau) / ratio
    return torch.lerp(z, guided, settings.strength * settings.alpha)


def _size(x: Tensor) -> Tensor:
    return x.abs().sum(-1, keepdim=True).clamp_min(1e-6)


class Nag:
    """An adapter for a batch whose second half are the names, after another adapter or none.

    ``images`` is the number of image tokens, the last ones.
    """

    def __init__(
        self, model: Model, settings: NagSettings, images: int, before: Adapter | None
    ) -> None:
        self.tree: Any = model.tree
        self.width = model.config.hidden_size
        self.settings, self.images, self.before = settings, images, before

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """``y`` with image tokens' attention changed, where ``x`` begins with attention."""
        y = y if self.before is None else self.before(name, x, y)
        if not AFTER.fullmatch(name):
            return y
        attention = x[:, -self.images :, : self.width]
        z, away = attention.chunk(2)
        change = normalised(z, away, self.settings).repeat(2, 1, 1) - attention
        weight = self.tree.get_submodule(name).weight[:, : self.width]
        text = y.shape[1] - self.images
        return y + F.pad(F.linear(change, weight.to(change)), (0, 0, text, 0))


def act_on_attention(model: Model, guard: Guard) -> Act:
    """The image's attention pushed away from that of the names.

    EraseError for a model without such blocks.
    """
    if not any(AFTER.fullmatch(name) for name, _ in model.tree.named_modules()):
        raise EraseError(f"NAG needs blocks as Flux has them; {model.name} has others.")
    settings: NagSettings = guard.settings
    negative = model.text.encode([_names(guard)])
    patch = model.family.latents.patch

    def acted(model: Model, call: Call) -> Tensor:
        count = len(call.x)
        rows, columns = (-(-side // patch) for side in call.x.shape[2:])
        away = at(call, negative).cond
        both = call._replace(
            x=call.x.repeat(2, 1, 1, 1),
            sigma=call.sigma.expand(count).repeat(2),
            cond=replace(Conditioning.cat([call.cond, away]), negative=call.cond.negative),
            eraser=Nag(model, settings, rows * columns, call.eraser),
        )
        return both.of(model)[:count]

    return acted


GUARDS = (
    GuardMethod(
        "negative", "Negative prompt", "Ho and Salimans 2022, arXiv 2207.12598", NegativeSettings,
        act_against,
    ),
    GuardMethod("nag", "NAG", "Chen et al. 2025, arXiv 2505.21179", NagSettings, act_on_attention),
)  # fmt: skip
