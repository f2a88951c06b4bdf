"""Models to take times of: MiniFlux, or a Flux of any size with random weights and prompts."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from erase_core.concepts.find import find_concept
from erase_core.concepts.sets import ConceptSet
from erase_core.concepts.spans import word_spans
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.miniatures import miniflux
from erase_core.miniatures.miniflux.concepts import concept
from erase_core.models.base import Conditioning
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.tree import Flux
from erase_core.training.prompts import TextEncoder


class Subject(NamedTuple):
    """All that a trainer wants, and the number of text tokens."""

    name: str
    tree: nn.Module
    config: FluxConfig
    text: TextEncoder
    concepts: ConceptSet
    settings: TrainSettings
    tokens: int


class RandomText:
    """One random vector a word: text encoders cost nothing once training runs."""

    def __init__(self, config: FluxConfig, length: int) -> None:
        self.config, self.length = config, length

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """As TextEncoders.encode."""
        return Conditioning(
            torch.stack([self._context(prompt) for prompt in prompts]),
            torch.stack([_vector(prompt, self.config.vec_in_dim) for prompt in prompts]),
        )

    def _context(self, prompt: str) -> Tensor:
        words = prompt.split(" ")[: self.length]
        words += [""] * (self.length - len(words))
        return torch.stack([_vector(word, self.config.context_in_dim) for word in words])

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """As TextEncoders.token_mask."""
        mask, end, spans = torch.zeros(self.length), 0, word_spans(prompt, word)
        for index, token in enumerate(prompt.split(" ")):
            start, end = end, end + len(token) + 1
            mask[index] = float(any(start < b and a < end - 1 for a, b in spans))
        return mask


def _vector(word: str, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(word.encode()))
    return torch.randn(size, generator=generator)


def bundled(device: torch.device) -> Subject:
    """MiniFlux and the demo's settings, without adversaries."""
    bundle = miniflux.load()
    bundle.tree.to(device)
    concepts = ConceptSet((concept("tiger"),))
    settings = miniflux.demo_settings()
    return Subject(
        "miniflux",
        bundle.tree,
        bundle.config,
        bundle.text,
        concepts,
        settings,
        bundle.text.t5_length,
    )


def random_model(
    config: FluxConfig, text: int, size: int, device: torch.device, dtype: torch.dtype
) -> Subject:
    """A Flux of ``config`` with weights of small gain, for ``size`` px and ``text`` tokens."""
    torch.manual_seed(0)
    with torch.device("meta"):
        tree = Flux(config).to(dtype)
    tree.to_empty(device=device).requires_grad_(False)
    for parameter in tree.parameters():
        gain = 0.5 * parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.02
        nn.init.normal_(parameter, std=gain) if parameter.ndim == 2 else nn.init.ones_(parameter)
    concepts = ConceptSet((find_concept("tiger")[0],))
    settings = TrainSettings(height=size, width=size)
    name = f"{config.hidden_size} wide, {config.depth} + {config.depth_single_blocks} blocks"
    return Subject(name, tree, config, RandomText(config, text), concepts, settings, text)
