"""FLUX.2's autoencoder: Flux's, of 32 channels, of which 2 x 2 are a latent of unit size."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from ...errors import EraseError
from ...tensors import read_weights
from ..flux1.autoencoder import Autoencoder, bfl_names

EPS = 1e-4  # of the latents' variance
_MOVED = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}


class Flux2Autoencoder(Autoencoder):
    """Between pictures in [0, 1] and the latents that the transformer sees, in float32."""

    @classmethod
    def load(cls, path: Path | str) -> Flux2Autoencoder:
        """Read a file, BFL's or diffusers', or the ``vae`` folder of a pipeline; EraseError unless
        it is FLUX.2's autoencoder."""
        tensors = read_weights(Path(path))
        for old, new in _MOVED.items():
            tensors = {
                name.replace(old, new) if name.startswith(old) else name: tensor
                for name, tensor in tensors.items()
            }
        tensors = {name: t for name, t in tensors.items() if not name.endswith("batches_tracked")}
        try:
            if any(".mid_block." in name for name in tensors):
                tensors = bfl_names(tensors)
            cls({name: t.to("meta") for name, t in tensors.items()}).try_out(128, 3)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise EraseError(
                f"{path} is not FLUX.2's autoencoder; choose flux2-vae.safetensors."
            ) from error
        return cls(tensors)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 128, H/16, W/16)."""
        mean = self._conv("quant_conv", self._encoded(pictures)).chunk(2, dim=1)[0]
        latents = F.pixel_unshuffle(mean, 2)
        return (latents - self._stat("mean", latents)) / self._spread(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 128, h, w) -> (B, 3, 16h, 16w) clamped to [0, 1]."""
        latents = latents.float()
        wide = latents * self._spread(latents) + self._stat("mean", latents)
        return self._decoded(self._conv("post_quant_conv", F.pixel_shuffle(wide, 2)))

    def _spread(self, like: Tensor) -> Tensor:
        return (self._stat("var", like) + EPS).sqrt()

    def _stat(self, what: str, like: Tensor) -> Tensor:
        """The latents' ``mean`` or ``var``, (1, 128, 1, 1)."""
        return self._tensors[f"bn.running_{what}"].to(like.device)[None, :, None, None]
