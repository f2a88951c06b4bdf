"""Everything a training run can be told, with its defaults and its limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from ...errors import EraseError
from ...settings import Settings, setting

NullPrompt = Literal["auto", "empty", "without", "replace"]
RolloutPrompt = Literal["concept", "null"]
RscVariant = Literal["text", "official"]
EACH = {"steps": 150, "erase_rollouts": 18, "keep_rollouts": 16}  # beyond the first concept
ROOM = 5  # concepts that share one rank of the LoRA
# Beyond what any run has wanted, and where none would end.
MANY, ROLLOUTS, WEIGHT, SIDE = 1_000_000, 10_000, 1_000_000, 4096


@dataclass(frozen=True)
class TrainSettings(Settings):
    """Settings of Algorithm 1; every field says what it is.

    An iteration is a lower (erase) and an upper (preserve) half-step of ``batch`` states each. A
    loss of weight 0 is not computed.
    """

    steps: int = setting(
        400,
        "iterations, an erasing and a preserving half-step each",
        low=1,
        high=MANY,
        widest=100_000,
        group="usual",
    )
    rank: int = setting(8, "rank of the LoRA", low=1, high=1024, widest=256, group="usual")
    alpha: float | None = setting(
        None,
        "alpha of the LoRA (default: the rank)",
        kind=float,
        optional=True,
        low=1e-6,
        high=WEIGHT,
        step=0.5,
        widest=256,
    )
    targets: tuple[str, ...] = setting(
        ("add_q_proj", "add_k_proj"),
        "what the LoRA changes; also add_v_proj to_add_out image_attention single_blocks vector_in",
        group="usual",
    )
    batch: int = setting(
        8,
        "states in each half-step; fewer need less memory",
        low=1,
        high=1024,
        widest=256,
        group="usual",
    )
    lr_low: float = setting(
        1e-3,
        "learning rate of erasing",
        low=0,
        high=1e30,
        step=1e-5,
        widest=1,
        group="usual",
    )
    lr_up: float = setting(
        5e-4,
        "learning rate of preserving",
        low=0,
        high=1e30,
        step=1e-5,
        widest=1,
        group="usual",
    )
    eta: float = setting(
        1.0,
        "how far erasing pushes past the null prompt (Eq. 2)",
        low=0,
        high=1000,
        step=0.05,
        widest=10,
    )
    l_esd: float = setting(
        1.0, "weight of L_esd: forget", low=0, high=WEIGHT, step=0.05, widest=1000
    )
    l_attn: float = setting(
        5.0,
        "weight of L_attn: take the concept's attention away",
        low=0,
        high=WEIGHT,
        step=0.05,
        widest=1000,
    )
    l_lora: float = setting(
        3.0, "weight of L_lora: keep the rest", low=0, high=WEIGHT, step=0.05, widest=1000
    )
    l_rsc: float = setting(
        0.1, "weight of L_rsc: away from synonyms", low=0, high=WEIGHT, step=0.05, widest=1000
    )
    l_adv: float = setting(
        0.0,
        "weight of forgetting under learned adversarial prompts",
        low=0,
        high=WEIGHT,
        step=0.5,
        widest=1000,
    )
    tau: float = setting(0.07, "temperature of L_rsc", low=1e-6, high=1000, step=0.005, widest=10)
    rsc: RscVariant = setting(
        "text",
        "L_rsc as the paper's text has it (text), or the released code (official)",
        choices=get_args(RscVariant),
    )
    attention_blocks: tuple[int, ...] | None = setting(
        None,
        "blocks with a text stream whose attention counts, such as 17 18 (default: the last)",
        kind=int,
        many=True,
        optional=True,
        low=0,
        high=1000,
    )
    null: NullPrompt = setting(
        "auto",
        "what stands for nothing in Eq. 2: the empty prompt, the sentence without the concept, or "
        "with another word (replace). auto: empty for things, else without",
        choices=get_args(NullPrompt),
    )
    anchor: str = setting(
        "",
        "word that replaces the concept with null replace (default: a relative, from the words "
        "that stay)",
    )
    rollout_prompt: RolloutPrompt = setting(
        "concept",
        "whose pictures erasing looks at on their way: the concept's, or those of what stands for "
        "nothing (null)",
        choices=get_args(RolloutPrompt),
    )
    k: int = setting(3, "irrelevant words a sentence in L_rsc", low=1, high=100, widest=32)
    guidance_rollout: float = setting(
        3.5,
        "guidance while drawing states (dev, Chroma, FLUX.2 klein, Z-Image, Qwen-Image, SD3.5)",
        low=0,
        high=100,
        step=0.1,
    )
    guidance_train: float = setting(
        3.5, "guidance while training (dev only)", low=0, high=100, step=0.1
    )
    shift_mu: float | None = setting(
        1.15,
        "shift of the schedule (default: the model's)",
        kind=float,
        optional=True,
        low=-10,
        high=10,
        step=0.05,
    )
    rollout_steps: int = setting(16, "steps of a rollout", low=1, high=1000)
    erase_rollouts: int = setting(48, "rollouts of sentences to erase", low=1, high=ROLLOUTS)
    keep_rollouts: int = setting(48, "rollouts of sentences to keep", low=1, high=ROLLOUTS)
    refresh_every: int = setting(
        0, "iterations between rollouts of the student (0: none)", low=0, high=MANY, widest=10_000
    )
    shuffle: float = setting(
        0.2, "probability that a sentence's phrases are shuffled", low=0, high=1, step=0.05
    )
    height: int = setting(
        512,
        "of the pictures in training (default: the model's)",
        low=16,
        high=SIDE,
        step=16,
        group="usual",
        unit="pixels",
    )
    width: int = setting(
        512,
        "of the pictures in training (default: the model's)",
        low=16,
        high=SIDE,
        step=16,
        group="usual",
        unit="pixels",
    )
    seed: int = setting(0, "seed of every draw", low=0, high=2**63 - 1, group="usual")
    checkpoint_every: int = setting(
        100,
        "iterations between checkpoints (0: none)",
        low=0,
        high=MANY,
        widest=100_000,
        matters=False,
    )
    keep_checkpoints: int = setting(
        2, "checkpoints that are kept", low=1, high=MANY, widest=100, matters=False
    )
    activation_checkpointing: bool = setting(
        False, "recompute in the backward pass: less memory, more time", matters=False
    )
    max_grad_norm: float = setting(
        1.0,
        "gradients are clipped to this norm",
        low=1e-9,
        high=1_000_000_000,
        step=0.1,
        widest=1000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("height", "width"):
            if getattr(self, name) % 16:
                raise EraseError(f"The setting {name} must be a multiple of 16 pixels.")
        if not any((self.l_esd, self.l_attn, self.l_lora, self.l_rsc)):
            raise EraseError("All four loss weights are 0; give at least one of them a value.")
        if self.l_adv and not self.l_esd:
            raise EraseError("The setting l_adv needs l_esd, whose target it has; set l_esd to 1.")
        if self.rollout_prompt == "null" and not self.l_esd:
            raise EraseError("Rollouts of the null prompt need l_esd, which has one; set it to 1.")

    def for_concepts(self, count: int) -> TrainSettings:
        """The same for ``count`` concepts at once (measured in docs/erasing.md). Each beyond the
        first adds all in EACH, since an iteration looks at one concept alone. Every ROOM of them
        have another ``rank``, since each wants directions of its own."""
        more = {name: getattr(self, name) + (count - 1) * each for name, each in EACH.items()}
        return replace(self, rank=self.rank * -(-count // ROOM), **more)

    def for_growing(self, known: int, new: int) -> TrainSettings:
        """The same for a run that adds ``new`` concepts to an eraser of ``known``: all of them have
        their rank and rollouts. The iterations are those of the new ones, and of one more for all
        known ones together, which only have to stay."""
        return replace(self.for_concepts(known + new), steps=self.for_concepts(new + 1).steps)
