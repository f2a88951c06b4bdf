"""IRECE (M-ErasureBench, 2025): places that pay attention to a concept are begun anew midway.

For pictures that come from other pictures, or from noise that was found for one, where no prompt
says what they show. At the first step of the window, of level s*, a pass at the same state asks for
the concept by its name. With ``A`` the share of attention that a place pays to the name's tokens,
mean over heads and over all blocks with a text stream,

    M = 1 where A >= limit max A, else 0,
    x* = (1 - s*) f + s* e,    f the mean of x_0 where M = 0,    e fresh noise,

is what such places are begun anew with. The sampler keeps its own state x. All steps from there on
are those of ``y = x + s n`` at level s,

    n = strength M (x* - x) / s*,    v' = v(x + s n) - n,

so that Euler's steps lead y where its own would, and x to the same end, where s = 0.

Ours differs from the paper in these points:

- The paper's mask comes from the cross-attention of a U-Net, at several steps. Here text and image
  share one attention, and one step suffices.
- It perturbs the latents with noise alone. At a middle level that leaves part of what was there;
  ours takes that away, too, and puts the mean of what surrounds it there.
- Nothing in it says whether the concept is there at all: some place always pays most attention. So
  it acts on every picture, and belongs where a person expects the concept.

What is begun anew is drawn by the prompt. Where that names the concept, another guard or an eraser
must go with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.base import Model, Probe
from ...settings import setting
from .base import Act, Call, Guard, GuardMethod, GuardSettings, at, plain


@dataclass(frozen=True)
class IreceSettings(GuardSettings):
    """When and where pictures are begun anew."""

    start: float = setting(0.4, "when it happens, a share of all steps", low=0, high=1, step=0.01)
    limit: float = setting(
        0.5, "least attention of a place, a share of the highest", low=0, high=1, step=0.05
    )
    seed: int = setting(0, "of the fresh noise", low=0, high=2**31)


def mask(attention: Tensor, limit: float, size: tuple[int, int]) -> Tensor:
    """``M`` (B, 1, h, w) of latents of a size, from shares of attention (B, rows, columns)."""
    top = attention.amax((1, 2), keepdim=True)
    places = (attention >= limit * top)[:, None]
    rows, columns = (-(-side // n) for side, n in zip(size, attention.shape[1:], strict=True))
    whole = places.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    return whole[..., : size[0], : size[1]].float()


def change(
    x: Tensor, clean: Tensor, sigma: Tensor, where: Tensor, settings: IreceSettings
) -> Tensor:
    """``n`` for states ``x`` (B, C, h, w) at level ``sigma`` () or (B,), the ``x_0`` that is
    predicted from them, and ``M``. Each picture of a batch gets the noise it gets alone."""
    level = sigma.view(-1, 1, 1, 1)
    outside = 1 - where
    kept = (clean * outside).sum((2, 3), keepdim=True)
    fill = kept / outside.sum((2, 3), keepdim=True).clamp_min(1)
    random = torch.Generator().manual_seed(settings.seed)
    noise = torch.randn(x.shape[1:], generator=random).to(x)
    anew = (1 - level) * fill + level * noise
    return settings.strength * where * (anew - x) / level


def act(model: Model, guard: Guard) -> Act:
    """Every picture begun anew once, where it pays attention to a concept."""
    settings: IreceSettings = guard.settings
    names = [concept.name for concept in guard.concepts.concepts]
    asked = [(model.text.encode([name]), model.text.token_mask(name, name)) for name in names]
    last, n = 0.0, torch.zeros(())

    def attention(call: Call) -> Tensor:
        blocks, found = tuple(range(model.config.depth)), []
        patch = model.family.latents.patch
        grid = [-(-side // patch) for side in call.x.shape[2:]]
        for prompt, tokens in asked:
            cond = at(call, prompt).cond
            words = tokens.to(call.x.device).expand(len(call.x), 1, -1)
            probe = Probe(blocks, words, stop=True)
            share = plain(model).attention(call.x, call.sigma, cond, call.guidance, probe)
            found.append(share[:, :, 0].mean((1, 2)).unflatten(1, grid))
        return torch.stack(found).amax(0)

    def acted(model: Model, call: Call) -> Tensor:
        nonlocal last, n
        level = float(call.sigma.max())
        if call.kept is None or level >= last or n.shape != call.x.shape:  # another picture
            where = mask(attention(call), settings.limit, (call.x.shape[2], call.x.shape[3]))
            sigma = call.sigma.view(-1, 1, 1, 1)
            clean = call.x - sigma * call.of(model)
            n = change(call.x, clean, call.sigma, where.to(call.x), settings)
        last = level
        sigma = call.sigma.view(-1, 1, 1, 1)
        return call._replace(x=call.x + sigma * n).of(model) - n

    return acted


GUARDS = (GuardMethod("irece", "IRECE", "after M-ErasureBench, 2025", IreceSettings, act),)
