"""A tiny random Flux, a model and a trainer of it, for the tests of every room.

The text encoder is a stand-in with one random vector per word.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erase_core.concepts.sets import Bands, Concept, ConceptSet
from erase_core.concepts.spans import word_spans
from erase_core.errors import EraseError
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.base import Conditioning, Model
from erase_core.models.chroma import FAMILY as CHROMA_FAMILY
from erase_core.models.chroma.config import ChromaConfig
from erase_core.models.chroma.tree import Chroma
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.tree import Flux
from erase_core.models.flux2 import FAMILY as FLUX2_FAMILY
from erase_core.models.flux2.config import Flux2Config
from erase_core.models.flux2.tree import Flux2
from erase_core.models.qwen_image import FAMILY as QWEN_IMAGE_FAMILY
from erase_core.models.qwen_image.config import QwenImageConfig
from erase_core.models.qwen_image.tree import QwenImage
from erase_core.models.sd3 import FAMILY as SD3_FAMILY
from erase_core.models.sd3.config import SD3Config
from erase_core.models.sd3.tree import SD3
from erase_core.models.zimage import FAMILY as ZIMAGE_FAMILY
from erase_core.models.zimage.config import ZImageConfig
from erase_core.models.zimage.text import filled_up
from erase_core.models.zimage.tree import ZImage
from erase_core.training.progress import Progress
from erase_core.training.result import BrokenError, Result

CHROMA = ChromaConfig(
    context_in_dim=16,
    hidden_size=128,
    num_heads=1,
    depth=2,
    depth_single_blocks=1,
    approximator_width=16,
    approximator_layers=2,
)
CONFIG = FluxConfig(
    vec_in_dim=8,
    context_in_dim=16,
    hidden_size=128,
    num_heads=1,
    depth=2,
    depth_single_blocks=1,
)
FLUX2 = Flux2Config(context_in_dim=16, hidden_size=128, num_heads=1, depth=2, depth_single_blocks=1)
QWEN_IMAGE = QwenImageConfig(context_in_dim=16, hidden_size=128, num_heads=1, depth=2)
SD3_SIZES = SD3Config(
    context_in_dim=16, vec_in_dim=8, hidden_size=128, depth=2, dual=(0,), positions=8
)
ZIMAGE = ZImageConfig(
    context_in_dim=16, hidden_size=128, num_heads=1, depth=2, refiners=1, mlp_width=341
)
LENGTH = 14
TIGER = Concept(
    "tiger",
    synonyms=("big cat",),
    irrelevant=Bands(none=("rose", "car"), far=("fish",), mid=("dog",), near=("lion", "leopard")),
    sentences=("a photo of a tiger", "a tiger in the snow", "two tigers and a house"),
)
CONCEPTS = ConceptSet((TIGER,))
SETTINGS = TrainSettings(
    steps=6,
    batch=2,
    rank=2,
    rollout_steps=3,
    erase_rollouts=4,
    keep_rollouts=3,
    height=32,
    width=48,
    checkpoint_every=3,
)


class WordText:
    """Encodes a prompt as one seeded random vector per word, until it is released."""

    length = LENGTH
    flop = 1e6

    def __init__(self) -> None:
        self.calls = 0
        self.released = False

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        assert not self.released
        self.calls += 1
        rows = [[self._vector(w, 16) for w in self._words(p)] for p in prompts]
        pooled = [
            torch.stack([self._vector(w, 8) for w in self._words(p)]).mean(0) for p in prompts
        ]
        return Conditioning(torch.stack([torch.stack(row) for row in rows]), torch.stack(pooled))

    def release(self) -> None:
        self.released = True

    def token_mask(self, prompt: str, word: str) -> Tensor:
        spans = word_spans(prompt, word)
        if not spans:
            raise EraseError(f"no {word} in {prompt}")
        mask, end = torch.zeros(LENGTH), 0
        for index, token in enumerate(prompt.split(" ")):
            start, end = end, end + len(token) + 1
            mask[index] = float(any(start < b and a < end - 1 for a, b in spans))
        return mask

    def _words(self, prompt: str) -> list[str]:
        words = prompt.split(" ")
        return words + ["<pad>"] * (LENGTH - len(words))

    def _vector(self, word: str, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(word.encode()))
        return torch.randn(size, generator=generator)


class MaskedText(WordText):
    """As Chroma's and, nearly, Qwen-Image's: no pooled vector, a token of padding is read, and a
    negative prompt."""

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        found = self._masked(prompts)
        return replace(found, negative=self._masked([""]))

    def _masked(self, prompts: Sequence[str]) -> Conditioning:
        counts = torch.tensor([len(prompt.split(" ")) for prompt in prompts])
        mask = torch.arange(LENGTH) <= counts[:, None]
        return Conditioning(super().encode(prompts).context * mask[..., None], mask=mask)


class NegativeText(WordText):
    """As FLUX.2's: no pooled vector, all tokens are read, and a negative prompt."""

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        found, away = super().encode(prompts), super().encode([""])
        return Conditioning(found.context, negative=Conditioning(away.context))


class TwoPartText(WordText):
    """As Stable Diffusion 3's: a pooled vector, a negative prompt, and every word twice."""

    parts = (LENGTH, LENGTH)
    length = 2 * LENGTH

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        return replace(self._twice(prompts), negative=self._twice([""]))

    def _twice(self, prompts: Sequence[str]) -> Conditioning:
        found = super().encode(prompts)
        return replace(found, context=torch.cat([found.context, 2 * found.context], dim=1))

    def token_mask(self, prompt: str, word: str) -> Tensor:
        return super().token_mask(prompt, word).repeat(2)


class FilledText(MaskedText):
    """As Z-Image's: rows of 32 tokens, and masks of words that may be longer."""

    length = 64

    def _masked(self, prompts: Sequence[str]) -> Conditioning:
        found = super()._masked(prompts)
        assert found.mask is not None
        return filled_up(found.context, found.mask)

    def token_mask(self, prompt: str, word: str) -> Tensor:
        mask = torch.zeros(self.length)
        mask[:LENGTH] = super().token_mask(prompt, word)
        return mask


def make_tree(seed: int = 0, dtype: torch.dtype = torch.float32) -> Flux:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Flux(CONFIG).to(dtype)


def make_model(tree: nn.Module | None = None, **options: Any) -> Model:
    """A model of the tiny tree, or of another, without an autoencoder; ``options`` are Model's."""
    told: dict[str, Any] = {
        "family": FAMILY,
        "tree": tree or make_tree(),
        "config": CONFIG,
        "text": WordText(),
        "vae": None,
        "name": "tiny",
        "sha256": "",
        "size": (32, 48),
        "shift_mu": CONFIG.shift,
    }
    return Model(**told | options)


def make_chroma(seed: int = 0, **options: Any) -> Model:
    """A model of a tiny Chroma, or of another ``tree``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tree = options.pop("tree", None) or Chroma(CHROMA)
    told = {"family": CHROMA_FAMILY, "config": CHROMA, "text": MaskedText()}
    return make_model(tree, **told | {"shift_mu": CHROMA.shift} | options)


def make_flux2(seed: int = 0, **options: Any) -> Model:
    """A model of a tiny FLUX.2, or of another ``tree``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tree = options.pop("tree", None) or Flux2(FLUX2)
    told = {"family": FLUX2_FAMILY, "config": FLUX2, "text": NegativeText()}
    return make_model(tree, **told | {"shift_mu": FLUX2.shift} | options)


def make_qwen_image(seed: int = 0, **options: Any) -> Model:
    """A model of a tiny Qwen-Image, or of another ``tree``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tree = options.pop("tree", None) or QwenImage(QWEN_IMAGE)
    told = {"family": QWEN_IMAGE_FAMILY, "config": QWEN_IMAGE, "text": MaskedText()}
    return make_model(tree, **told | {"shift_mu": QWEN_IMAGE.shift} | options)


def make_sd3(seed: int = 0, **options: Any) -> Model:
    """A model of a tiny Stable Diffusion 3.5, or of another ``tree``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tree = options.pop("tree", None) or SD3(SD3_SIZES)
    told = {"family": SD3_FAMILY, "config": SD3_SIZES, "text": TwoPartText()}
    return make_model(tree, **told | {"shift_mu": SD3_SIZES.shift} | options)


def make_zimage(seed: int = 0, **options: Any) -> Model:
    """A model of a tiny Z-Image, or of another ``tree``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tree = options.pop("tree", None) or ZImage(ZIMAGE)
    told = {"family": ZIMAGE_FAMILY, "config": ZIMAGE, "text": FilledText()}
    return make_model(tree, **told | {"shift_mu": ZIMAGE.shift} | options)


def make_trainer(settings: TrainSettings = SETTINGS, **options: Any) -> Trainer:
    model = options.pop("model", None) or make_model(options.pop("tree", None))
    concepts = options.pop("concepts", CONCEPTS)
    return Trainer(model, concepts, settings, **options)


def run(settings: TrainSettings = SETTINGS, **options: Any) -> Result:
    return make_trainer(settings, **options).run()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@contextmanager
def broken_by(cause: type[Exception], match: str | None = None) -> Iterator[None]:
    """Expects a run that an error of this kind breaks off, with the work done so far."""
    with pytest.raises(BrokenError, match=match) as broken:
        yield
    assert isinstance(broken.value.cause, cause)
    assert broken.value.result.eraser is not None


def stop_at(step: int, error: type[BaseException]) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.phase == "training" and progress.step == step:
            raise error

    return on_step
