"""What every model is to the rest of the house: a family, and a model of it.

A :class:`Family` knows the insides of one architecture. A :class:`Model` is a transformer of it
with encoders and autoencoder; whoever trains, erases or examines knows no more than this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..errors import EraseError
from .sampling import DEV_SHIFT, euler, finite, noise, sigmas

STEPS, GUIDANCE = 28, 3.5  # of a picture, unless told otherwise
BATCH = 32  # pictures drawn at once
DECODED = 2**18  # pixels at once: sixteen pictures of MiniFlux, one of 512 px (a GB or so)


class Adapter(Protocol):
    """Changes the outputs of named Linear modules: what an eraser does in a forward pass."""

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Return ``y`` plus the change at module ``name`` for input ``x`` (``y`` if none)."""
        ...


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts: ``context`` (B, L, D), a state a text token, and ``pooled`` (B, P)."""

    context: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return self.context.shape[0]

    def select(self, rows: Sequence[int] | Tensor) -> Conditioning:
        """The given rows, in that order, repeats allowed."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.context.device)
        return Conditioning(self.context[index], self.pooled[index])

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """Both tensors moved or cast as ``Tensor.to`` does."""
        return Conditioning(self.context.to(*args, **kwargs), self.pooled.to(*args, **kwargs))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """All rows of ``parts`` one after another."""
        return Conditioning(
            torch.cat([p.context for p in parts]), torch.cat([p.pooled for p in parts])
        )


@dataclass(frozen=True)
class Probe:
    """Asks for the attention of image queries to given text tokens.

    ``blocks`` are indices of blocks with a text stream; ``tokens`` (B, W, L) holds one row of token
    weights a word. ``stop`` ends the pass after the last probed block. ``chunk`` queries at a time,
    so that the whole attention matrix never exists.
    """

    blocks: tuple[int, ...]
    tokens: Tensor
    stop: bool = False
    chunk: int = 1024


@dataclass(frozen=True)
class Output:
    """``velocity`` like the latents (None after an early stop) and, when probed, ``attention``
    (B, len(blocks), W, heads, Q), image tokens Q row by row."""

    velocity: Tensor | None
    attention: Tensor | None


class Slot(NamedTuple):
    """Where a Linear of a LoRA file sits in the tree: output ``rows`` of Linear ``module``."""

    module: str
    rows: slice
    in_features: int
    out_features: int


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
        """(L,) float: 1 at the tokens of ``word``; EraseError when it is absent or cut off."""
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


class Forward(Protocol):
    """One pass of a family's transformer, which gradients may go through.

    ``latents`` (B, C, h, w), ``sigma`` (B,) in [0, 1], ``cond`` with B rows, ``guidance`` for
    distilled models; ``eraser`` changes the Linears, ``probe`` collects attention, ``checkpoint``
    recomputes each block in the backward pass.
    """

    def __call__(
        self,
        tree: nn.Module,
        latents: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float | Tensor | None = None,
        *,
        eraser: Adapter | None = None,
        probe: Probe | None = None,
        checkpoint: bool = False,
    ) -> Output: ...


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes
    ----------
    name, label
        In files and on the command line; for people.
    blocks
        The tree's lists of blocks in the order of a forward pass, which offloading walks.
    roles
        Role, such as "text.q", -> pattern of the names that its Linears have in a LoRA file. What
        an architecture lacks is absent.
    aliases
        Other names of roles that files and workflows hold.
    linears
        Every Linear of a transformer of these sizes by its name in a LoRA file, with its place.
    forward
        The pass that is trained through.
    presets
        Method -> preset -> kind of concept -> settings, see :mod:`erase_core.methods.presets`.
    """

    name: str
    label: str
    blocks: tuple[str, ...]
    roles: Mapping[str, str]
    aliases: Mapping[str, str]
    linears: Callable[[Any], dict[str, Slot]]
    forward: Forward
    presets: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A transformer of a family with its encoders and autoencoder.

    ``tree`` is read and never changed. ``name`` and ``sha256`` are those of its ``file``;
    the latter is empty until :func:`.files.base_hash` is asked. ``size`` is the (height, width) in
    pixels it draws best, ``trained`` that of training states where they are smaller. ``shift_mu``
    is the shift of its schedule, None for none; ``presets``, where its file brings them, replace
    the family's.
    """

    family: Family
    tree: nn.Module
    config: Sizes
    text: TextEncoder
    vae: VAE | None
    name: str
    sha256: str
    size: tuple[int, int]
    shift_mu: float | None = DEV_SHIFT
    trained: tuple[int, int] | None = None
    presets: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return tree_device(self.tree)

    def guidance(self, value: float | None) -> float | None:
        """``value`` where guidance is an input of the model, else None."""
        return value if self.config.guidance_embed else None

    def slots(self, roles: Iterable[str]) -> dict[str, Slot]:
        """The Linears of some roles, by their names in a LoRA file; EraseError for unknown ones."""
        return role_slots(self.family, self.config, roles)

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
        """One pass at latents ``x`` (B, C, h, w) and noise levels ``sigma`` () or (B,)."""
        return self.family.forward(
            self.tree,
            x,
            sigma.expand(len(x)),
            cond,
            guidance,
            eraser=eraser,
            probe=probe,
            checkpoint=checkpoint,
        )

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
        steps: int = STEPS,
        guidance: float | None = GUIDANCE,
        batch: int = BATCH,
        on_step: Callable[[int], None] = lambda done: None,
    ) -> Tensor:
        """Latents (N, C, h, w) on the model's device that it makes of ``noise``, one prompt each.

        ``on_step`` hears how many of the steps of all batches are done, as pictures times steps;
        what it raises ends the sampling. EraseError when a picture is no number.
        """
        levels = sigmas(steps, self.shift_mu).to(self.device)
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
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        batch: int = BATCH,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> Tensor:
        """One latent a prompt from the noise of its seed: (N, C, H/8, W/8) on the CPU.

        Prompts may be encoded already. ``on_batch`` hears how many are done.
        """
        height, width = size or self.size
        parts = []
        for start in range(0, len(prompts), batch):
            part = slice(start, start + batch)
            if isinstance(prompts, Conditioning):
                cond = prompts.select(range(len(prompts))[part])
            else:
                cond = self.text.encode(list(prompts[part]))
            start_noise = torch.cat([noise(seed, 1, height, width) for seed in seeds[part]])
            drawn = self.sample(cond, start_noise, eraser, steps=steps, guidance=guidance)
            parts.append(drawn.cpu())
            on_batch(start + len(start_noise))
        return torch.cat(parts)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) -> pictures (N, 8h, 8w, 3) uint8, in main memory, where the
        autoencoder is; EraseError without one."""
        if self.vae is None:
            raise EraseError("A picture needs an autoencoder; name one with --vae.")
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
        eraser: Adapter | None = None,
        **options: Any,
    ) -> Tensor:
        """Pictures (N, H, W, 3) uint8; parameters as in :meth:`draw`."""
        return self.decode(self.draw(prompts, seeds, eraser, **options))


def role_slots(family: Family, config: Any, roles: Iterable[str]) -> dict[str, Slot]:
    """The Linears that play ``roles``, by their names in a LoRA file, in file order.

    Raises
    ------
    EraseError
        Listing the family's roles, for any other or for none.
    """
    wanted = [family.aliases.get(role, role) for role in dict.fromkeys(roles)]
    unknown = [role for role in wanted if role not in family.roles]
    if unknown or not wanted:
        problem = f"Unknown LoRA target {', '.join(unknown)}" if unknown else "No LoRA target given"
        raise EraseError(f"{problem}; choose from {', '.join(family.roles)}.")
    pattern = re.compile("|".join(family.roles[role] for role in wanted))
    return {n: slot for n, slot in family.linears(config).items() if pattern.fullmatch(n)}


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
