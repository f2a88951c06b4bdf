"""One architecture: what the rest of the house asks of it, and how its files are recognised.

A family is a package of this room with ``FAMILIES = (Family(...),)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import EraseError
from ..registry import collect
from .base import VAE, Adapter, Conditioning, Output, Probe, Sizes, Slot, TextEncoder
from .sampling import Latents

if TYPE_CHECKING:
    from .files import Files

Shapes = Mapping[str, tuple[int, ...]]  # of tensors, by their names
State = dict[str, Tensor]
ABOVE = 3  # names at the end of a folder's path that may tell


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


class Witness(Protocol):
    """The velocity that another implementation computes from the weights of a tree, (B, C, h, w);
    EraseError where it is not installed."""

    def __call__(
        self,
        tree: nn.Module,
        config: Any,
        latents: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float | None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Activations:
    """What a pass holds beside the weights, in tensors as wide as the model for each token.

    Attributes
    ----------
    drawn
        Of a pass without gradients, at most.
    double, single
        What autograd keeps of a block with a text stream, and of one without.
    above
        What the peak has beyond that: gradients, and the block that is being computed.
    checkpointed, above_checkpointed
        The same of a pass whose blocks are recomputed: of any block, and beyond.
    above_probed, inputs_probed
        Beyond, while the block is recomputed whose attention is probed; q and k of every further
        probed block, where its pieces are recomputed.
    attacked_double, attacked_single, above_attacked, attacked_checkpointed
        So many more where the prompts get gradients, too: the vector that modulates every block
        then has one, so that all which it scales is kept.
    freed
        So many fewer while an fp8 matrix is widened, which is not at the peak of the rest.
    probes
        Of a probed block's attention, in float32: saved, its gradient, that of the logits.
    before_probed
        Of a probed block, before its attention is looked at. Where the last block is probed, and
        tokens have many heads, the peak is there.
    drawn_probed
        Of a pass without gradients, beside two pieces of a probed block's attention; 0 where
        ``drawn`` and one of them are more.
    second, second_checkpointed
        What autograd keeps more of a block whose image has a second attention to itself alone, and
        while such a block is recomputed, for each token of the image.
    """

    drawn: float
    double: float
    single: float
    above: float
    checkpointed: float
    above_checkpointed: float
    above_probed: float
    inputs_probed: float
    attacked_double: float
    attacked_single: float
    above_attacked: float
    attacked_checkpointed: float
    freed: float
    probes: int
    before_probed: float = 0.0
    drawn_probed: float = 0.0
    second: float = 0.0
    second_checkpointed: float = 0.0


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes
    ----------
    name, label
        In files and on the command line; for people.
    published
        Names of its models, for sentences that say what to choose.
    version
        What LoRA managers read of its erasers as ``ss_base_model_version``.
    latents
        How its latents lie over a picture.
    size, trained
        (height, width) in pixels of pictures, and of training states.
    steps, guidance
        Of a picture, unless told otherwise.
    negative
        Whether ``guidance`` is the scale of true CFG: a second pass with a negative prompt.
    blocks
        The tree's lists of blocks in the order of a forward pass, which offloading walks.
    roles
        Role, such as "text.q", -> pattern of the names that its Linears have in a LoRA file. What
        an architecture lacks is absent.
    activations
        What a pass holds, for estimates.
    parts
        Which of :class:`~.files.Files` it reads beside the transformer -> its folder in a pipeline.
    owns
        Whether a transformer's tensors, by names and shapes, are of this family.
    read
        Those tensors under the tree's names, and the scales of fp8 modules, all cast if told.
    sizes
        The sizes that the tree's shapes tell; EraseError for variants that take more than a prompt.
    skeleton
        The tree of these sizes, without storage.
    linears
        Every Linear of a transformer of these sizes by its name in a LoRA file, with its place.
    forward
        The pass that is trained through.
    shift
        The shift of the schedule, None for none.
    text, vae
        Encoders from their files for a transformer of these sizes, computing on a device; an
        autoencoder from its file.
    witness
        Another implementation to compare with, if there is one.
    entering
        What the Linear of the role "text_in" reads of a prompt's states, by the tree.
    rows
        Role -> how many of its Linears' first rows it is, in widths of the model; absent where it
        is all of them.
    variant
        Which of several published models a file is that differ in how pictures are drawn alone:
        a family of the same name, or None for this one.
    notice
        A sentence for whoever trains on it.
    aliases
        Other names of roles that files and workflows hold.
    presets
        Method -> preset -> kind of concept -> settings, see :mod:`erase_core.methods.presets`.
    """

    name: str
    label: str
    published: tuple[str, ...]
    version: str
    latents: Latents
    size: tuple[int, int]
    trained: tuple[int, int]
    steps: int
    guidance: float
    blocks: tuple[str, ...]
    roles: Mapping[str, str]
    activations: Activations
    parts: Mapping[str, str]
    owns: Callable[[Shapes], bool]
    read: Callable[[Path, torch.dtype | None], tuple[State, dict[str, float]]]
    sizes: Callable[[Shapes], Sizes]
    skeleton: Callable[[Any], nn.Module]
    linears: Callable[[Any], dict[str, Slot]]
    forward: Forward
    shift: Callable[[Any], float | None]
    text: Callable[[Files, Any, torch.device], TextEncoder]
    vae: Callable[[Path], VAE]
    witness: Witness | None = None
    negative: bool = False
    entering: Callable[[nn.Module, Tensor], Tensor] = lambda tree, states: states
    rows: Mapping[str, int] = field(default_factory=dict)
    variant: Callable[[Path], Family | None] = lambda file: None
    notice: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, Any] = field(default_factory=dict)

    def of(self, file: Path | None) -> Family:
        """The family as a file of it wants it."""
        return self.variant(file) or self if file else self

    def slots(self, config: Any, roles: Iterable[str]) -> dict[str, Slot]:
        """The Linears that play ``roles``, by their names in a LoRA file, in file order.

        Raises
        ------
        EraseError
            Listing the family's roles, for any other or for none.
        """
        wanted = [self.aliases.get(role, role) for role in dict.fromkeys(roles)]
        unknown = ", ".join(role for role in wanted if role not in self.roles)
        if unknown or not wanted:
            what = f"Unknown LoRA target {unknown}" if unknown else "No LoRA target given"
            raise EraseError(f"{what}; choose from {', '.join(self.roles)}.")
        found: dict[str, Slot] = {}
        for name, slot in self.linears(config).items():
            for role in wanted:
                if re.fullmatch(self.roles[role], name):
                    count = self.rows.get(role, 0) * config.hidden_size
                    found[name] = slot.first(count) if count else slot
        return found


@lru_cache(maxsize=1)
def families() -> tuple[Family, ...]:
    """All families, folder after folder in alphabetical order."""
    return tuple(collect(__package__ or "", "FAMILIES", Family).values())


def named_as(file: Path, word: str) -> bool:
    """Whether the name of a file tells a ``word``, such as "turbo", or the end of a folder's path,
    as in a download of the hub's: the tensors of a distilled model are those of its base."""
    told = file.absolute().parts[-ABOVE:] if file.is_dir() else (file.stem,)
    return any(word in name.lower() for name in told)


def published(found: Iterable[Family]) -> str:
    """The models of some families, for a sentence: "FLUX.1-dev or FLUX.1-schnell"."""
    *others, last = [name for family in found for name in family.published]
    return f"{', '.join(others)} or {last}" if others else last


def advice() -> str:
    """What to choose instead of a file that is refused."""
    return f"choose a {published(families())} transformer in safetensors format"
