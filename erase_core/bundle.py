"""Everything that draws a picture, in one hand: transformer, text encoders, autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .errors import EraseError
from .flux.config import FluxConfig
from .flux.forward import Conditioning, Lora, tree_device, velocity
from .flux.sampling import DEV_SHIFT, euler, finite, noise, sigmas
from .text.encoders import TextEncoders

DECODED = 2**18  # pixels at once: sixteen pictures of MiniFlux, one of 512 px (a GB or so)


class VAE(Protocol):
    """Pictures in [0, 1] from the latents that the transformer sees, and back."""

    def decode(self, latents: Tensor) -> Tensor: ...

    def encode(self, pictures: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Bundle:
    """A Flux with its encoders.

    ``size`` is the (height, width) in pixels it draws best; ``sha256`` names the transformer's
    file; ``shift_mu`` is the schedule's shift, None for schnell.
    """

    tree: nn.Module
    config: FluxConfig
    text: TextEncoders
    vae: VAE
    name: str
    sha256: str
    size: tuple[int, int]
    shift_mu: float | None = DEV_SHIFT

    @torch.no_grad()
    def latents(
        self,
        prompts: Sequence[str] | Conditioning,
        seeds: Sequence[int],
        *,
        size: tuple[int, int] | None = None,
        steps: int = 28,
        guidance: float = 3.5,
        lora: Lora | None = None,
        batch: int = 32,
        on_batch: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Sample one picture a prompt from the noise of its seed: latents (N, 16, H/8, W/8).

        Prompts may be encoded already. ``on_batch`` hears how many are done. EraseError when a
        picture is no number.
        """
        height, width = size or self.size
        device = tree_device(self.tree)
        levels = sigmas(steps, self.shift_mu).to(device)
        done = []
        for start in range(0, len(prompts), batch):
            part = slice(start, start + batch)
            if isinstance(prompts, Conditioning):
                cond = prompts.select(range(len(prompts))[part]).to(device)
            else:
                cond = self.text.encode(list(prompts[part])).to(device)
            x = torch.cat([noise(seed, 1, height, width) for seed in seeds[part]]).to(device)

            def predict(x: Tensor, sigma: Tensor, cond=cond) -> Tensor:  # type: ignore[no-untyped-def]
                return velocity(self.tree, x, sigma.expand(len(x)), cond, guidance, lora=lora)

            done.append(finite(euler(predict, x, levels)).cpu())
            if on_batch is not None:
                on_batch(start + len(x))
        return torch.cat(done)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, 16, h, w) -> pictures (N, 8h, 8w, 3) uint8, in main memory, where the
        autoencoder is."""
        batch = max(1, DECODED // (64 * latents.shape[2] * latents.shape[3]))
        parts = [self.vae.decode(part) for part in latents.cpu().split(batch)]
        pixels = torch.cat(parts).float().permute(0, 2, 3, 1)
        if not pixels.isfinite().all():
            raise EraseError("The autoencoder draws NaN; its file is damaged, choose another VAE.")
        return (pixels * 255).round().to(torch.uint8).contiguous()

    def generate(
        self,
        prompts: Sequence[str] | Conditioning,
        seeds: Sequence[int],
        *,
        size: tuple[int, int] | None = None,
        steps: int = 28,
        guidance: float = 3.5,
        lora: Lora | None = None,
        batch: int = 32,
        on_batch: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Pictures (N, H, W, 3) uint8; parameters as in :meth:`latents`."""
        return self.decode(
            self.latents(
                prompts,
                seeds,
                size=size,
                steps=steps,
                guidance=guidance,
                lora=lora,
                batch=batch,
                on_batch=on_batch,
            )
        )
