"""Everything a training run can be told, with its defaults and its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

from ..errors import EraseError
from ..losses import RscVariant

NullPrompt = Literal["auto", "empty", "without", "replace"]
RolloutPrompt = Literal["concept", "null"]
EACH = {"steps": 150, "erase_rollouts": 18, "keep_rollouts": 16}  # beyond the first concept
ROOM = 5  # concepts that share one rank of the LoRA


@dataclass(frozen=True)
class TrainSettings:
    """Settings of Algorithm 1.

    Attributes
    ----------
    steps, batch
        Iterations (a lower and an upper half-step each) and states per half-step.
    rank, alpha, targets
        The LoRA; ``alpha`` None means ``alpha = rank``; targets are diffusers' short names.
    lr_low, lr_up
        AdamW learning rates of the lower (erase) and the upper (preserve) level.
    eta, l_esd, l_attn, l_lora, l_rsc, tau, rsc
        Eq. 2's push, the four weights (a loss of weight 0 is not computed), Eq. 5's temperature
        and variant.
    l_adv
        Weight of Eq. 2 at prompts that adversaries have learned (0: none); see
        :mod:`erase_core.training.adversary`.
    attention_blocks
        Double blocks probed by Eq. 3 and 5; None is the last one.
    null, anchor
        What stands for "nothing" in Eq. 2: the empty prompt, the sentence without the concept, or
        with ``anchor`` in its place (empty: the first irrelevant word, "mid" before "near"). "auto"
        is "empty" for entities, "without" for all other kinds.
    rollout_prompt
        Whose path the erase states lie on: the concept's, or that of its null prompt, where a
        student that has learned Eq. 2 with eta 0 would come along.
    k
        Irrelevant words per sentence in Eq. 5.
    guidance_rollout, guidance_train
        Guidance input of distilled models while sampling states and at the predictions.
    shift_mu, rollout_steps, erase_rollouts, keep_rollouts, refresh_every
        Euler schedule (None: no shift), rollouts in the buffer, iterations between two refreshes
        from the student (0: never).
    shuffle
        Probability that the phrases of a sentence are shuffled.
    height, width, seed
        Picture size in pixels, multiples of 16; the seed of every draw.
    checkpoint_every, keep_checkpoints
        Iterations between checkpoints (0: none) and how many are kept.
    activation_checkpointing, max_grad_norm
        Trade time for memory; gradient clipping.
    """

    steps: int = 400
    batch: int = 8
    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ("add_q_proj", "add_k_proj")
    lr_low: float = 1e-3
    lr_up: float = 5e-4
    eta: float = 1.0
    l_esd: float = 1.0
    l_attn: float = 5.0
    l_lora: float = 3.0
    l_rsc: float = 0.1
    l_adv: float = 0.0
    tau: float = 0.07
    rsc: RscVariant = "text"
    attention_blocks: tuple[int, ...] | None = None
    null: NullPrompt = "auto"
    anchor: str = ""
    rollout_prompt: RolloutPrompt = "concept"
    k: int = 3
    guidance_rollout: float = 3.5
    guidance_train: float = 3.5
    shift_mu: float | None = 1.15
    rollout_steps: int = 16
    erase_rollouts: int = 48
    keep_rollouts: int = 48
    refresh_every: int = 0
    shuffle: float = 0.2
    height: int = 512
    width: int = 512
    seed: int = 0
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    activation_checkpointing: bool = False
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            self._check_number(name, low, high)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise EraseError(f"The setting {name} must be one of {', '.join(choices)}.")
        for name in ("height", "width"):
            if getattr(self, name) % 16:
                raise EraseError(f"The setting {name} must be a multiple of 16 pixels.")
        self._check_texts()
        if not any((self.l_esd, self.l_attn, self.l_lora, self.l_rsc)):
            raise EraseError("All four loss weights are 0; give at least one of them a value.")
        if self.l_adv and not self.l_esd:
            raise EraseError("The setting l_adv needs l_esd, whose target it has; set l_esd to 1.")
        if self.rollout_prompt == "null" and not self.l_esd:
            raise EraseError("Rollouts of the null prompt need l_esd, which has one; set it to 1.")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is None and name in _OPTIONAL:
            return
        whole = _DEFAULTS[name].__class__ is int
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and low <= value <= high):
            kind = "a whole number" if whole else "a number"
            above = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            raise EraseError(f"The setting {name} must be {kind} {above}, not {value!r}.")

    def _check_texts(self) -> None:
        targets, blocks = self.targets, self.attention_blocks
        if not _all_of(targets, str) or not all(target.strip() for target in targets):
            raise EraseError("The setting targets names nothing; write some, e.g. add_q_proj.")
        if blocks is not None and not _all_of(blocks, int):
            raise EraseError("The setting attention_blocks must be block numbers, e.g. 17 18.")
        if not isinstance(self.anchor, str) or (self.anchor and not self.anchor.strip()):
            raise EraseError("The setting anchor is blank; write a word, or leave it out.")

    def for_concepts(self, count: int) -> TrainSettings:
        """The same for ``count`` concepts at once (measured in docs/erasing.md): more of all in
        EACH for each beyond the first, since an iteration looks at one concept alone, and ``rank``
        for every ROOM of them, since each wants directions of its own."""
        more = {name: getattr(self, name) + (count - 1) * each for name, each in EACH.items()}
        return replace(self, rank=self.rank * -(-count // ROOM), **more)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """The inverse of :meth:`to_dict`; absent keys keep their defaults, unknown ones raise."""
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else "see TrainSettings for the names."
                raise EraseError(f"There is no setting {name!r}; {hint}")
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**plain)


_ANY = math.inf
_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, _ANY),
    "batch": (1, _ANY),
    "rank": (1, _ANY),
    "alpha": (1e-6, _ANY),
    "lr_low": (0, _ANY),
    "lr_up": (0, _ANY),
    "eta": (0, _ANY),
    "l_esd": (0, _ANY),
    "l_attn": (0, _ANY),
    "l_lora": (0, _ANY),
    "l_rsc": (0, _ANY),
    "l_adv": (0, _ANY),
    "tau": (1e-6, _ANY),
    "k": (1, _ANY),
    "guidance_rollout": (0, _ANY),
    "guidance_train": (0, _ANY),
    "shift_mu": (-10, 10),
    "rollout_steps": (1, 1000),
    "erase_rollouts": (1, _ANY),
    "keep_rollouts": (1, _ANY),
    "refresh_every": (0, _ANY),
    "shuffle": (0, 1),
    "height": (16, _ANY),
    "width": (16, _ANY),
    "seed": (0, 2**63 - 1),
    "checkpoint_every": (0, _ANY),
    "keep_checkpoints": (1, _ANY),
    "max_grad_norm": (1e-9, _ANY),
}
_OPTIONAL = ("alpha", "shift_mu")


def _all_of(values: object, kind: type) -> bool:
    """Whether it is a tuple of ``kind`` with at least one member."""
    return isinstance(values, tuple) and bool(values) and {type(v) for v in values} == {kind}


_CHOICES = {
    "rsc": get_args(RscVariant),
    "null": get_args(NullPrompt),
    "rollout_prompt": get_args(RolloutPrompt),
}
_DEFAULTS = {field.name: field.default for field in fields(TrainSettings)}
