"""The losses of Algorithm 1's two levels at given states: the student's side of them.

The base model's side comes with the states, so that one pass of the student is all there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from ...errors import EraseError
from ...models.base import Adapter, Conditioning, Model, Output, Probe, Sizes
from ...training.prompts import EncodedPrompts
from ...training.states import Batch
from ...training.team import Team
from .adversary import Adversaries
from .losses import attention_loss, esd_loss, esd_target, preserve_loss, rsc_loss
from .settings import TrainSettings

LossTensors = dict[str, Tensor]


class Levels:
    """Computes the four losses. Every method yields the losses of one graph at a time: the caller
    runs its backward pass before the next graph is built.

    ``blocks`` are the probed double blocks; ``guidance`` the guidance input, None without one.
    ``adversaries`` are those of every concept, none with ``l_adv`` 0.
    """

    def __init__(
        self,
        model: Model,
        lora: Adapter,
        prompts: EncodedPrompts,
        settings: TrainSettings,
        blocks: tuple[int, ...],
        guidance: float | None,
    ) -> None:
        self.model, self.lora, self.prompts = model, lora, prompts
        self.settings, self.blocks, self.guidance = settings, blocks, guidance
        self.device = model.device
        self.adversaries = self._adversaries() if settings.l_adv else ()

    def erase(self, batch: Batch) -> Iterator[LossTensors]:
        """Lower level at erase states: "esd" (Eq. 2) and "attn" (Eq. 3), from one forward pass."""
        weights = self.settings
        if not (weights.l_esd or weights.l_attn):
            return
        cond, words = self.prompts.concept(batch.rows)
        out = self._student(batch, cond, words if weights.l_attn else None, not weights.l_esd)
        losses: LossTensors = {}
        if out.velocity is not None and batch.null is not None:
            target = esd_target(batch.null, batch.target, weights.eta).to(self.device)
            losses["esd"] = esd_loss(out.velocity, target)
        if out.attention is not None:
            losses["attn"] = attention_loss(out.attention)
        yield losses

    def adversarial(self, batch: Batch) -> Iterator[LossTensors]:
        """Lower level at erase states of one concept: "adv", Eq. 2 at adversarial prompts."""
        if not self.adversaries or batch.null is None:
            return
        adversaries = self.adversaries[self.prompts.plan.erase[int(batch.rows[0])].concept]
        cond = self.prompts.concept(batch.rows)[0].to(self.device)
        out = self._student(batch, adversaries.join(cond))
        assert out.velocity is not None
        adversaries.learn(out.velocity, batch.target.to(self.device))
        target = esd_target(batch.null, batch.target, self.settings.eta).to(self.device)
        yield {"adv": esd_loss(out.velocity, target)}

    def preserve(self, batch: Batch) -> Iterator[LossTensors]:
        """Upper level at keep states: "lora" (Eq. 4)."""
        out = self._student(batch, self.prompts.keep(batch.rows).cond)
        assert out.velocity is not None
        yield {"lora": preserve_loss(out.velocity, batch.target.to(self.device))}

    def contrast(self, batch: Batch) -> Iterator[LossTensors]:
        """Upper level at erase states: "rsc" (Eq. 5), unless the concept has no synonym."""
        if batch.contrast is None or not self.prompts.has_synonyms(batch.rows):
            return
        out = self._student(batch, *self.prompts.concept(batch.rows), stop=True)
        assert out.attention is not None
        synonym, *irrelevant = batch.contrast.to(self.device).unbind(1)
        concept = out.attention[:, :, 0]
        yield {"rsc": rsc_loss(concept, synonym, irrelevant, self.settings.tau, self.settings.rsc)}

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the adversaries."""
        states = (a.state(f"adversaries.{i}.") for i, a in enumerate(self.adversaries))
        return {name: tensor for state in states for name, tensor in state.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        for index, adversaries in enumerate(self.adversaries):
            adversaries.load_state(f"adversaries.{index}.", tensors)

    def _adversaries(self) -> tuple[Adversaries, ...]:
        """As many for each concept as a batch has rows."""
        plan, settings, made = self.prompts.plan, self.settings, []
        for concept in range(1 + max(prompt.concept for prompt in plan.erase)):
            cond, mask = self.prompts.concept(plan.rows(concept))
            words = cond.context[mask[:, 0] > 0]
            seed = settings.seed + concept
            made.append(Adversaries(words, cond, settings.batch, seed, self.device))
        return tuple(made)

    def _student(
        self, batch: Batch, cond: Conditioning, words: Tensor | None = None, stop: bool = False
    ) -> Output:
        """The model with its LoRA; attention to ``words`` (B, 1, L) is collected if given."""
        return self.model.predict(
            batch.latents.to(self.device),
            batch.sigma.to(self.device),
            cond.to(self.device),
            self.guidance,
            self.lora,
            probe=None if words is None else Probe(self.blocks, words.to(self.device), stop),
            checkpoint=self.settings.activation_checkpointing,
        )


def probed_blocks(settings: TrainSettings, config: Sizes) -> tuple[int, ...]:
    """The double blocks that Eq. 3 and 5 look at, the last one by default."""
    blocks = settings.attention_blocks
    if blocks is None:
        return (config.depth - 1,)
    if not blocks or not all(0 <= block < config.depth for block in blocks):
        raise EraseError(f"attention_blocks must be among 0 to {config.depth - 1} for this model.")
    return blocks


def check_team(team: Team, settings: TrainSettings) -> None:
    """EraseError for settings that several processes cannot share."""
    if team.size > 1 and settings.l_adv:
        raise EraseError("Adversaries learn on one card; set l_adv to 0, or cards to 1.")
    if settings.batch % team.size:
        raise EraseError(
            f"A batch of {settings.batch} cannot be shared out among {team.size} cards; set batch "
            f"to a multiple of {team.size}."
        )
