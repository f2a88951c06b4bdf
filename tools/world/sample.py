"""Pictures of the model in training, guided by a second pass on the empty prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from erase_core.miniatures.miniflux import FOLDER
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import DEV_SHIFT
from erase_core.models.flux1.forward import Conditioning, velocity
from erase_core.models.flux1.taesd import load_tiny
from erase_core.models.flux1.tree import Flux
from erase_core.models.sampling import euler, sigmas

from .model import LONG, Encoders, make_flux
from .render import SIZE
from .train_text import load as load_text

GUIDANCE, STEPS = 5.0, 24


def load_flux(folder: Path) -> tuple[Flux, int]:
    """The averaged transformer, and its step."""
    tensors = load_file(folder / "flux.safetensors")
    flux = make_flux()
    own = {k.removeprefix("flux."): v for k, v in tensors.items() if k.startswith("flux.")}
    flux.load_state_dict(own)
    return flux.eval().requires_grad_(False), int(tensors["step"])


class Painter:
    """Draws prompts from seeds; ``length`` T5 tokens a prompt."""

    def __init__(self, folder: Path, length: int = LONG) -> None:
        self.flux, self.step = load_flux(folder)
        self.text: Encoders = load_text(folder)
        own = folder / "vae.safetensors"
        path = own if own.exists() else FOLDER / "vae.safetensors"
        self.vae = load_tiny(path, torch.float32)
        self.length = length
        self.nothing = self.text.encode([""], length)

    @torch.no_grad()
    def latents(
        self,
        cond: Conditioning,
        seeds: Sequence[int],
        steps: int = STEPS,
        guidance: float = GUIDANCE,
    ) -> Tensor:
        """(B, 16, 16, 16) for B encoded prompts."""
        x = FAMILY.latents.noise(seeds, SIZE, SIZE)
        both = Conditioning.cat([cond, self.nothing.select([0] * len(cond))])

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            told, blank = velocity(self.flux, torch.cat([x, x]), sigma, both, 1.0).chunk(2)
            return blank + guidance * (told - blank)

        return euler(guided, x, sigmas(steps, DEV_SHIFT))

    @torch.no_grad()
    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        edit: Callable[[Conditioning], Conditioning] | None = None,
        batch: int = 32,
        steps: int = STEPS,
    ) -> Tensor:
        """Pictures (B, 3, 128, 128) in [0, 1]; ``edit`` may change the encoded prompts."""
        cond = self.text.encode(list(prompts), self.length)
        cond = edit(cond) if edit else cond
        parts = []
        for start in range(0, len(seeds), batch):
            rows = list(range(start, min(start + batch, len(seeds))))
            z = self.latents(cond.select(rows), [seeds[row] for row in rows], steps)
            parts.append(self.vae.decode(z))
        return torch.cat(parts)
