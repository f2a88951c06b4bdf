"""What every model is to the rest of the house.

A :class:`Model` is a transformer with encoders and autoencoder; whoever trains, erases or examines
knows no more than this. The insides of its architecture are its
:class:`~erase_core.models.family.Family`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import EraseError
from .sampling import euler, finite, sigmas

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from .family import Family

BATCH = 32  # pictures drawn at once
DECODED = 2**18  # pixels at once: sixteen pictures of 128 px, one of 512 px (a GB or so)
PATCHED = "patched"  # weights that no file tells all of
CHUNK = 1024  # image queries whose attention is computed at once


class Adapter(Protocol):
    """Changes the outputs of named Linear modules: what an eraser does in a forward pass."""

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Return ``y`` plus the change at module ``name`` for input ``x`` (``y`` if none)."""
        ...


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts.

    Attributes
    ----------
    context
        (B, L, D), a state a text token. Where there is a mask, L may be less than the ``length`` of
        the encoders' longest prompt.
    pooled
        (B, P), None where a family has no vector of the whole prompt.
    mask
        (B, L) bool, the tokens that the transformer reads; None for all.
    negative
        One row: what pictures are drawn away from, in families that draw so.
    """

    context: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    negative: Conditioning | None = None

    def __len__(self) -> int:
        return self.context.shape[0]

    def select(self, rows: Sequence[int] | Tensor) -> Conditioning:
        """The given rows, in that order, repeats allowed."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.context.device)
        return self.map(lambda tensor: tensor[index])

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """All tensors moved or cast as ``Tensor.to`` does; the mask is only moved."""
        moved = self.map(lambda tensor: tensor.to(*args, **kwargs))
        mask = None if moved.mask is None else moved.mask.bool()
        negative = None if self.negative is None else self.negative.to(*args, **kwargs)
        return replace(moved, mask=mask, negative=negative)

    def map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """``change`` of every tensor of the prompts; the negative one stays."""
        pooled = None if self.pooled is None else change(self.pooled)
        mask = None if self.mask is None else change(self.mask)
        return replace(self, context=change(self.context), pooled=pooled, mask=mask)

    def rows(self) -> list[Tensor]:
        """The states (n, D) of each prompt, without those that nobody reads."""
        if self.mask is None:
            return list(self.context)
        return [row[read] for row, read in zip(self.context, self.mask, strict=True)]

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """All rows of ``parts`` one after another; their negative prompt is the first's. Where
        parts with masks have fewer tokens than others, tokens that nobody reads are added."""
        length = max(part.context.shape[1] for part in parts)
        missing = [length - part.context.shape[1] for part in parts]
        pooled = [part.pooled for part in parts if part.pooled is not None]
        masks = [
            F.pad(part.mask, (0, more))
            for part, more in zip(parts, missing, strict=True)
            if part.mask is not None
        ]
        contexts = [part.context for part in parts]
        if masks:
            contexts = [F.pad(c, (0, 0, 0, m)) for c, m in zip(contexts, missing, strict=True)]
        return Conditioning(
            torch.cat(contexts),
            torch.cat(pooled) if pooled else None,
            torch.cat(masks) if masks else None,
            parts[0].negative,
        )


@dataclass(frozen=True)
class Probe:
    """Asks for the attention of image queries to given text tokens.

    ``blocks`` are indices of blocks with a text stream; ``tokens`` (B, W, L or more) holds a row of
    token weights a word. ``stop`` ends the pass after the last probed block. ``chunk`` queries at a
    time, so that the whole attention matrix never exists.
    """

    blocks: tuple[int, ...]
    tokens: Tensor
    stop: bool = False
    chunk: int = CHUNK


@dataclass(frozen=True)
class Output:
    """``velocity`` like the latents (None after an early stop) and, when probed, ``attention``
    (B, len(blocks), W, heads, Q), image tokens Q row by row."""

    velocity: Tensor | None
    attention: Tensor | None


class Slot(NamedTuple):
    """Where a Linear of a LoRA file sits in the tree: output ``rows`` of Linear ``module``.

    ``whole`` is how many rows it has in the file, where these are only the first of them, else 0.
    """

    module: str
    rows: slice
    in_features: int
    out_features: int
    whole: int = 0

    def first(self, count: int) -> Slot:
        """Its first rows alone."""
        start = self.rows.start
        rows = slice(start, start + count)
        return self._replace(rows=rows, out_features=count, whole=self.out_features)


class TextEncoder(Protocol):
    """Encodes prompts and finds words in them."""

    @property
    def length(self) -> int:
        """Tokens of every prompt, the padding among them."""
        ...

    @property
    def flop(self) -> float:
        """Floating point operations that encoding a prompt takes, those of Linears."""
        ...

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encoded prompts, one row each, float32 in main memory."""
        ...

    def release(self) -> None:
        """Give the encoders' memory back; words are found still, nothing is encoded any more."""
        ...

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """(length,) float: 1 at the tokens of ``word``; EraseError when it is absent or cut off."""
        ...


@runtime_checkable
class OpenText(TextEncoder, Protocol):
    """A text encoder that can be looked into, by whoever seeks prompts that no words spell.

    Its tokens are those of ``context``. Not all encoders can be: a host's cannot.
    """

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """What makes tokens of prompts."""
        ...

    @property
    def table(self) -> Tensor:
        """The embeddings of all tokens, (V, D)."""
        ...

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, L) of prompts, padded and cut; the end token is kept."""
        ...

    def states(self, embeddings: Tensor) -> Conditioning:
        """Prompts as embeddings (B, L, D), with gradients and without a pooled vector."""
        ...

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts in one batch where the encoders compute, with gradients where they want them."""
        ...


class VAE(Protocol):
    """Pictures in [0, 1] from the latents that the transformer sees, and back."""

    def decode(self, latents: Tensor) -> Tensor: ...

    def encode(self, pictures: Tensor) -> Tensor: ...


class Sizes(Protocol):
    """What the sizes of any family's transformer tell.

    ``depth`` counts the blocks with a text stream, which can be probed; ``depth_single_blocks`` the
    others; ``guidance_embed`` says whether guidance is an input of the model.
    """

    @property
    def hidden_size(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def depth_single_blocks(self) -> int: ...
    @property
    def guidance_embed(self) -> bool: ...


@dataclass(frozen=True)
class Model:
    """A transformer of a family with its encoders and autoencoder.

    ``tree`` is read and never changed. ``name`` and ``sha256`` are those of its ``file``;
    the latter is empty until :func:`.files.base_hash` is asked. ``size`` is the (height, width) in
    pixels it draws best, ``trained`` that of training states where they are smaller. ``shift_mu``
    is the shift of its schedule, None for none; ``presets``, where its file brings them, replace
    the family's. ``weights``: how a host keeps them, where the file does not decide it.
    """

    family: Family
    tree: nn.Module
    config: Sizes
    text: TextEncoder
    vae: VAE | None
    name: str
    sha256: str
    size: tuple[int, int]
    shift_mu: float | None
    trained: tuple[int, int] | None = None
    presets: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    weights: str = ""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return tree_device(self.tree)

    def guidance(self, value: float | None) -> float | None:
        """``value`` for one pass, where guidance is an input of the model; else None."""
        return value if self.config.guidance_embed else None

    def drawing(self, value: float | None) -> float | None:
        """``value`` for a picture, where guidance is an input of the model or the scale of a
        negative prompt; else None."""
        return value if self.family.negative else self.guidance(value)

    def slots(self, roles: Iterable[str]) -> dict[str, Slot]:
        """The Linears of some roles, by their names in a LoRA file; EraseError for unknown ones."""
        return self.family.slots(self.config, roles)

    def modules(self, roles: Iterable[str]) -> list[str]:
        """The modules of the tree that hold the Linears of some roles, each once."""
        return list(dict.fromkeys(slot.module for slot in self.slots(roles).values()))

    def sigmas(self, steps: int) -> Tensor:
        """The noise levels of its schedule from 1 down to 0, (steps + 1,) float32."""
        return sigmas(steps, self.shift_mu)

    def noise(self, seeds: Sequence[int], size: tuple[int, int] | None = None) -> Tensor:
        """Start latents (N, C, h, w) on the CPU, one for each seed, of pictures of (height, width)
        pixels; EraseError for sizes that its latents do not divide."""
        return self.family.latents.noise(seeds, *(size or self.size))

    def predict(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float | None = None,
        eraser: Adapter | None = None,
        *,
        probe: Probe | None = None,
        checkpoint: bool = False,
    ) -> Output:
        """One pass at latents ``x`` (B, C, h, w) and noise levels ``sigma`` () or (B,).

        In families with a negative prompt ``guidance`` is the scale of a second pass, which is
        left out at 1 and None: ``v_n + guidance (v - v_n)``. It is not probed.
        """
        sigma = sigma.expand(len(x))
        by_input = None if self.family.negative else guidance
        options: dict[str, Any] = {"eraser": eraser, "checkpoint": checkpoint}
        out = self.family.forward(self.tree, x, sigma, cond, by_input, probe=probe, **options)
        if not self.family.negative or guidance in (None, 1) or out.velocity is None:
            return out
        assert cond.negative is not None, "this family's encoders give a negative prompt"
        negative = cond.negative.select([0] * len(x)).to(x.device)
        away = self.family.forward(self.tree, x, sigma, negative, None, **options).velocity
        assert away is not None
        return replace(out, velocity=away + guidance * (out.velocity - away))

    def velocity(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float | None = None,
        eraser: Adapter | None = None,
    ) -> Tensor:
        """``v = eps - x_0`` as the model predicts it, like ``x`` and in float32 or wider."""
        predicted = self.predict(x, sigma, cond, guidance, eraser).velocity
        assert predicted is not None
        return predicted

    def attention(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float | None,
        probe: Probe,
        eraser: Adapter | None = None,
    ) -> Tensor:
        """The share of attention that image queries pay to words: (B, blocks, W, heads, Q)."""
        found = self.predict(x, sigma, cond, guidance, eraser, probe=probe).attention
        assert found is not None
        return found

    @torch.no_grad()
    def sample(
        self,
        cond: Conditioning,
        noise: Tensor,
        eraser: Adapter | None = None,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        batch: int = BATCH,
        on_step: Callable[[int], None] = lambda done: None,
    ) -> Tensor:
        """Latents (N, C, h, w) on the model's device that it makes of ``noise``, one prompt each.

        ``steps`` and ``guidance`` None are the family's. ``on_step`` hears how many of the steps of
        all batches are done, as pictures times steps; what it raises ends the sampling. EraseError
        when a picture is no number.
        """
        steps = self.family.steps if steps is None else steps
        guidance = self.family.guidance if guidance is None else guidance
        levels = self.sigmas(steps).to(self.device)
        parts = []
        for rows in torch.arange(len(noise)).split(batch):
            part = cond.select(rows.to(cond.context.device)).to(self.device)

            def walk(x: Tensor, sigma: Tensor, part: Conditioning = part) -> Tensor:
                return self.velocity(x, sigma, part, guidance, eraser)

            def tell(index: int, *_: Tensor, rows: Tensor = rows) -> None:
                on_step(int(rows[0]) * steps + (index + 1) * len(rows))

            parts.append(finite(euler(walk, noise[rows].to(self.device), levels, tell)))
        return torch.cat(parts)

    def draw(
        self,
        prompts: Sequence[str] | Conditioning,
        seeds: Sequence[int],
        eraser: Adapter | None = None,
        *,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        batch: int = BATCH,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> Tensor:
        """One latent a prompt from the noise of its seed: (N, C, h, w) on the CPU.

        Prompts may be encoded already. ``steps`` and ``guidance`` are as in :meth:`sample`;
        ``on_batch`` hears how many are done.
        """
        parts = []
        for start in range(0, len(prompts), batch):
            part = slice(start, start + batch)
            if isinstance(prompts, Conditioning):
                cond = prompts.select(range(len(prompts))[part])
            else:
                with under(self.text, eraser):
                    cond = self.text.encode(list(prompts[part]))
            noise = self.noise(seeds[part], size)
            drawn = self.sample(cond, noise, eraser, steps=steps, guidance=guidance)
            parts.append(drawn.cpu())
            on_batch(start + len(noise))
        return torch.cat(parts)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) -> pictures (N, H, W, 3) uint8, in main memory, where the
        autoencoder is; EraseError without one."""
        if self.vae is None:
            raise EraseError("A picture needs an autoencoder; name one with --vae.")
        pixels = self.family.latents.scale**2 * latents.shape[2] * latents.shape[3]
        batch = max(1, DECODED // pixels)
        parts = [self.vae.decode(part) for part in latents.cpu().split(batch)]
        drawn = torch.cat(parts).float().permute(0, 2, 3, 1)
        if not drawn.isfinite().all():
            raise EraseError("The autoencoder draws NaN; its file is damaged, choose another VAE.")
        return (drawn * 255).round().to(torch.uint8).contiguous()

    def generate(
        self,
        prompts: Sequence[str] | Conditioning,
        seeds: Sequence[int],
        eraser: Adapter | None = None,
        **options: Any,
    ) -> Tensor:
        """Pictures (N, H, W, 3) uint8; parameters as in :meth:`draw`."""
        return self.decode(self.draw(prompts, seeds, eraser, **options))


def under(text: TextEncoder, adapter: Adapter | None) -> AbstractContextManager[None]:
    """Within it a text encoder does what an eraser of its own Linears makes of it. Encoders that
    let nobody change them stay as they are, and so do all without an eraser."""
    change = getattr(text, "under", None)
    return nullcontext() if adapter is None or change is None else change(adapter)


def parts(text: TextEncoder) -> tuple[slice, ...]:
    """The rows of a prompt's states that each of the encoders gives, one after another: a text of
    its own for each. Of most families it is one."""
    ends = list(accumulate(getattr(text, "parts", (text.length,)), initial=0))
    return tuple(slice(*two) for two in pairwise(ends))


def linear_flop(encoder: nn.Module, tokens: int) -> float:
    """Floating point operations of an encoder's Linears on a prompt of so many tokens."""
    linears = (m for m in encoder.modules() if isinstance(m, nn.Linear))
    return 2.0 * tokens * sum(m.in_features * m.out_features for m in linears)


def tree_device(tree: nn.Module) -> torch.device:
    """Where a tree computes: its ``compute_device`` if it has one, as a host that keeps weights
    elsewhere says, else where its weights are."""
    told = getattr(tree, "compute_device", None)
    return next(tree.parameters()).device if told is None else told


def kept_dtype(tree: nn.Module) -> torch.dtype:
    """Precision that holds the tree's velocities: bfloat16 unless it computes in float32."""
    told = getattr(tree, "compute_dtype", None)
    dtype = next(tree.parameters()).dtype if told is None else told
    return torch.float32 if dtype.itemsize >= 4 else torch.bfloat16
