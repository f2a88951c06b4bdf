"""Algorithm 1: erase below, preserve above, each level with its own optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ...concepts.sets import ConceptSet
from ...erasers.earlier import Earlier
from ...erasers.lora import EraserLora
from ...errors import EraseError
from ...models.base import Conditioning, Model, kept_dtype
from ...training.checkpoint import Snapshot, pack_optimiser, unpack_optimiser
from ...training.estimate import Run, Workload
from ...training.preview import Preview
from ...training.progress import Losses, Progress, Reporter
from ...training.prompts import CHUNK, EncodedPrompts, PromptPlan, RowPrompts, Wanted, plan_prompts
from ...training.result import BrokenError, Result, Stopped
from ...training.run_folder import checkpoints, load_checkpoint, save_checkpoint, step_of
from ...training.states import Buffer, KeepPictures, Pictures, Rollouts, Sampler
from ...training.team import ALONE, Team
from .guard import Guard, idle_loss
from .levels import Levels, LossTensors, check_team, probed_blocks
from .settings import TrainSettings
from .workload import workload

NEW = 0.5  # share of the iterations that look at concepts that an earlier eraser lacks
SAME_BASE = 0.05  # relative difference of velocities below which two bases count as one


class _Whole(NamedTuple):
    """A run after its last whole iteration: what :class:`Snapshot` has of it, on the CPU."""

    step: int
    training: dict[str, Tensor]
    means: dict[str, float]


class Trainer:
    """One run of Algorithm 1 over a model that is read and never changed.

    Parameters
    ----------
    model
        Stays on its device and in its dtype; its text encoder is used in the first phase only.
    concepts, settings
        What to erase, and how.
    pictures
        Stand for the irrelevant set in Eq. 4, instead of rollouts of the base model.
    plan
        The prompts of a run that goes on; None writes them.
    checkpoint_dir
        Where checkpoints go; None writes none. Only one process may use it: see
        :func:`erase_core.training.run_folder.own_run_folder`.
    replaces
        The run takes the place of another whose checkpoints are there. They stay until this one
        has its first.
    earlier
        An eraser to start from; ``concepts`` begin with its own, which stay erased.
    team
        The processes that train together.
    on_step
        Called after every step of every phase. What it raises ends the run: KeyboardInterrupt is a
        cancel, anything else reaches the caller, and ``lora`` still holds the work done.

    Raises
    ------
    EraseError
        When ``checkpoint_dir`` holds another run's checkpoints, and it is not to be replaced. When
        the earlier eraser is no start for these settings.
    """

    def __init__(
        self,
        model: Model,
        concepts: ConceptSet,
        settings: TrainSettings,
        *,
        pictures: KeepPictures | None = None,
        plan: PromptPlan | None = None,
        checkpoint_dir: Path | None = None,
        replaces: bool = False,
        earlier: Earlier | None = None,
        team: Team = ALONE,
        on_step: Callable[[Progress], None] | None = None,
    ) -> None:
        older = checkpoints(checkpoint_dir) if checkpoint_dir is not None else []
        if older and not replaces:
            raise EraseError(
                f"{checkpoint_dir} holds the checkpoints of another run; resume it or choose "
                "another folder."
            )
        check_team(team, settings)
        self.team = team
        self.model = replace(model, shift_mu=settings.shift_mu)
        self.concepts, self.settings = concepts, settings
        self.checkpoint_dir = checkpoint_dir
        self.notices: list[str] = []  # sentences for the person
        self._superseded = older  # checkpoints that go when the next one is there
        self._resumes = False
        self._saved: int | None = None  # iteration of the newest checkpoint of this run
        self._whole: _Whole | None = None
        self._live: dict[str, Tensor] = {}  # the LoRA's own parameters, by name
        self.reporter = Reporter(on_step)
        self.device = model.device
        self.blocks = probed_blocks(settings, model.config)
        self.guidance = model.guidance(settings.guidance_train)
        rollout = model.drawing(settings.guidance_rollout)
        self.sampler = Sampler(model, rollout, self.guidance, self.blocks)
        self.generator = torch.Generator().manual_seed(settings.seed)
        slots = model.slots(settings.targets)
        self.lora = EraserLora.create(slots, settings.rank, settings.alpha, settings.seed)
        if earlier is not None:
            self.lora.begin_with(earlier.tensors, earlier.told())
        self.known = len(earlier.concepts.concepts) if earlier else 0
        self.extends = earlier.sha256 if earlier else ""
        self.lora.to(self.device)
        self.lower = torch.optim.AdamW(self.lora.parameters(), lr=settings.lr_low)
        self.upper = torch.optim.AdamW(self.lora.parameters(), lr=settings.lr_up)
        texts = None if pictures is None else tuple(pictures.prompts)
        self.plan = plan or plan_prompts(concepts, _wanted(settings), self.generator, texts)
        self.pictures = pictures
        self.prompts: EncodedPrompts | None = None
        self.states: Buffer | None = None
        self.guard: Guard | None = None
        self.fp8: bool | None = None  # whether memory.fit made the base fp8; None: it was not asked
        self._resumed: dict[str, Tensor] = {}  # of a checkpoint, for the adversaries
        self._text_tokens: int | None = None  # that its states were made with
        self.step = 0
        self.history: list[Losses] = []

    @classmethod
    def resume(
        cls,
        checkpoint: Path,
        model: Model,
        *,
        steps: int | None = None,
        team: Team = ALONE,
        on_step: Callable[[Progress], None] | None = None,
    ) -> Trainer:
        """A trainer that goes on from a checkpoint, or from the newest one in a folder of them.

        The run ends as one that was never stopped would, bit for bit on the CPU with as many
        threads. ``steps`` may ask for more iterations than were planned. Further checkpoints go to
        the same place.

        Raises
        ------
        EraseError
            When there is no whole checkpoint, the tree is not the one it was trained on, or
            ``steps`` are fewer than are done.
        """
        path, snapshot, damaged = load_checkpoint(checkpoint)
        settings = TrainSettings.from_dict(snapshot.run["settings"])
        settings = replace(settings, steps=steps or settings.steps)
        if settings.steps < snapshot.step:
            raise EraseError(
                f"This run has done {snapshot.step} iterations already; set steps to more, or "
                "leave them out to go on as planned."
            )
        concepts = ConceptSet.from_json(snapshot.run["concepts"])
        plan = PromptPlan.from_json(snapshot.run["prompts"])
        trainer = cls(model, concepts, settings, plan=plan, team=team, on_step=on_step)
        trainer.checkpoint_dir, trainer._resumes = path.parent, True
        trainer._superseded = [p for p in checkpoints(path.parent) if step_of(p) > snapshot.step]
        trainer.notices += [
            f"The checkpoint {newer} is damaged; the run goes on from {path.name}."
            for newer in damaged
        ]
        trainer._restore(snapshot)
        return trainer

    def encode(self) -> EncodedPrompts:
        """Encode all prompts, unless that is done; the text encoders may go afterwards."""
        if self.prompts is None:
            chunks = -(-len(self.plan.texts()) // CHUNK)
            with self.reporter.phase("text", chunks) as tick:
                self.prompts = EncodedPrompts(self.plan, self.model.text, tick)
        return self.prompts

    def run(self, on_ready: Callable[[Run], None] = lambda run: None) -> Result:
        """Encode, roll out, train.

        However it ends early, the LoRA is that of the last whole iteration, and a checkpoint of it
        is written. A cancel (KeyboardInterrupt, or :meth:`stop`) returns the work done so far.
        ``on_ready`` hears of the run once its prompts are encoded; its model need not be in place
        before.

        Raises
        ------
        BrokenError
            When anything else breaks it off, with the work done so far.
        """
        stopped: Stopped = "cancelled"
        try:
            prompts = self.encode()
            on_ready(self)
            if self.states is None:
                self.states = self._roll_out(prompts)
            else:
                self._check_base(self.states.erase, prompts)
            stopped = self._train(self.states, prompts)
        except BaseException as error:
            try:
                self._roll_back()
                self._keep_unfinished()
            except (EraseError, RuntimeError) as second:  # a full disk, a device that is gone
                self.notices.append(str(second))
            if not isinstance(error, KeyboardInterrupt):  # ComfyUI's cancel is no Exception
                raise BrokenError(error, self.result("cancelled")) from error
        finally:
            self.lower.zero_grad()
        return self.result(stopped)

    @property
    def eraser(self) -> EraserLora:
        """The eraser as it is now."""
        return self.lora

    @property
    def checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass."""
        return self.settings.activation_checkpointing

    @checkpointing.setter
    def checkpointing(self, value: bool) -> None:
        self.settings = replace(self.settings, activation_checkpointing=value)

    def result(self, stopped: Stopped) -> Result:
        """What the run has so far."""
        seconds = dict(self.reporter.seconds)
        settings = self.settings.to_dict()
        keep = self.states.keep if self.states is not None else self.pictures
        own = len(keep.latents) if isinstance(keep, Pictures | KeepPictures) else 0
        told = settings, self.history, seconds, stopped, "eraseanything"
        return Result(self.lora, *told, pictures=own, extends=self.extends)

    def workload(self) -> Workload:
        """What the run asks of the machine; its prompts must be encoded."""
        return workload(self)

    def sample(self) -> tuple[Conditioning, float | None]:
        """Erase prompts of one batch, and their guidance."""
        rows = torch.arange(self.settings.batch) % len(self.plan.erase)
        return self.encode().erase(rows).cond, self.guidance

    def preview(self) -> Preview:
        """Pictures of the run on its way."""
        settings = self.settings
        size, guidance = (settings.height, settings.width), settings.guidance_rollout
        return Preview.of(
            self.model, self.encode(), size, settings.seed, self.model.drawing(guidance)
        )

    def stop(self) -> None:
        """Cancel the run after the step it is at; safe in signal handlers and from any thread."""
        self.reporter.stopping = True

    def keep(self) -> None:
        """Write a checkpoint of the last whole iteration, unless there is one or none is wanted.

        EraseError when the file system refuses.
        """
        whole, folder = self._whole, self.checkpoint_dir
        if whole is None or folder is None or self.team.rank:
            return
        if self._saved == whole.step or not self.settings.checkpoint_every:
            return
        assert self.states is not None and self.guard is not None
        run = {
            "settings": self.settings.to_dict(),
            "concepts": self.concepts.to_json(),
            "prompts": self.plan.to_json(),
            "guard": {"idle": self.guard.idle, "means": whole.means},
            "fp8": self.fp8,
            "known": self.known,
            "extends": self.extends,
            "text_tokens": self.encode().length,
            "history": self.history[: whole.step],
        }
        states = self.states.tensors()
        snapshot = Snapshot(whole.step, self.lora.tensors(), whole.training, states, run)
        save_checkpoint(folder, snapshot, self.settings.keep_checkpoints, self._superseded)
        self._saved, self._superseded = whole.step, []

    def _roll_out(self, prompts: EncodedPrompts) -> Buffer:
        """Fill the buffer from the base model."""
        settings, plan = self.settings, self.plan
        levels = self.model.sigmas(settings.rollout_steps)
        size, dtype = (settings.height, settings.width), kept_dtype(self.model.tree)
        laid, heads = self.model.family.latents, self.model.config.num_heads
        contrast = (1 + settings.k, len(self.blocks), heads, laid.tokens(*size))
        erase = Rollouts.empty(
            len(plan.erase),
            levels,
            laid.shape(*size),
            dtype,
            null=settings.l_esd > 0,
            contrast=contrast if settings.l_rsc else None,
        )
        keep: Rollouts | Pictures | None = None
        if self.pictures is not None:
            keep = Pictures(self.pictures.latents.detach().float().cpu())
        elif plan.keep:
            keep = Rollouts.empty(len(plan.keep), levels, laid.shape(*size), dtype)
        jobs: list[tuple[Rollouts, Tensor, Callable[[Tensor], RowPrompts]]] = []
        jobs += [(erase, rows, prompts.erase) for rows in _batches(erase, settings.batch)]
        if isinstance(keep, Rollouts):
            jobs += [(keep, rows, prompts.keep) for rows in _batches(keep, settings.batch)]
        along_null = settings.rollout_prompt == "null"  # keep prompts have none
        own = len(range(self.team.rank, len(jobs), self.team.size))
        with self.reporter.phase("rollouts", own * settings.rollout_steps) as tick:
            for number, (states, rows, encoded) in enumerate(jobs):
                if number % self.team.size != self.team.rank:
                    self.sampler.skip(states, rows, self.generator)
                    continue
                self.sampler.fill(
                    states, rows, encoded(rows), self.generator, along_null=along_null, on_step=tick
                )
        for rolled in (erase, keep):
            if isinstance(rolled, Rollouts):
                self.team.fill(rolled.filled())
        return Buffer(erase, keep)

    def _train(self, states: Buffer, prompts: EncodedPrompts) -> Stopped:
        """Iterate until the steps are done or the guard stops the run."""
        settings = self.settings
        levels = Levels(self.model, self.lora, prompts, settings, self.blocks, self.guidance)
        if self._resumed:
            levels.load_state(self._resumed)
        guard = self.guard = self.guard or self._make_guard(states)
        self._live = self.lora.state()  # looked up once, since that takes long
        self._whole = self._copy(levels, guard)
        with self.reporter.phase("training", settings.steps, self.step) as tick:
            while self.step < settings.steps:
                self._refresh(states.erase, prompts)
                guard.before(self.step)
                losses = self._iterate(states, levels)
                if not guard.healthy(losses):
                    guard.restore()
                    return "diverged"
                self.step += 1
                self.history.append(losses)
                self._whole = self._copy(levels, guard)
                if settings.checkpoint_every and self.step % settings.checkpoint_every == 0:
                    self.keep()
                tick(losses)
        if guard.finite():
            return "done"
        guard.restore()
        return "diverged"

    def _iterate(self, states: Buffer, levels: Levels) -> Losses:
        """One iteration of Algorithm 1, for a concept drawn from the set."""
        size = self.settings.batch
        concept = self._concept()
        drawn = states.erase.draw(self.generator, size, self.plan.rows(concept))
        erase = self.team.part(drawn)
        losses = self._descend(self.lower, chain(levels.erase(erase), levels.adversarial(erase)))
        above = [levels.contrast(erase)]
        if states.keep is not None:
            kept = self.team.part(states.keep.draw(self.generator, size))
            above.insert(0, levels.preserve(kept))
        return losses | self._descend(self.upper, chain(*above))

    def _concept(self) -> int:
        """The concept of an iteration: any, or one that is new with the chance NEW."""
        first, end = 0, len(self.concepts.concepts)
        if self.known:
            new = torch.rand((), generator=self.generator) < NEW
            first, end = (self.known, end) if new else (0, self.known)
        return int(torch.randint(first, end, (), generator=self.generator))

    def _descend(self, optimiser: torch.optim.Optimizer, graphs: Iterable[LossTensors]) -> Losses:
        """One optimiser step down the weighted losses; returns them unweighted."""
        optimiser.zero_grad()
        parameters = self.lora.parameters()
        values: Losses = {}
        for losses in graphs:
            weighted = [getattr(self.settings, f"l_{k}") * loss for k, loss in losses.items()]
            torch.stack(weighted).sum().backward(inputs=parameters)  # none for the tree's own
            values |= {name: loss.item() for name, loss in losses.items()}
        if values:
            told = torch.tensor([*values.values()], dtype=torch.float64)
            self.team.mean([told, *(p.grad for p in parameters if p.grad is not None)])
            values = dict(zip(values, told.tolist(), strict=True))
            clip_grad_norm_(parameters, self.settings.max_grad_norm)
            optimiser.step()
        return values

    def _refresh(self, erase: Rollouts, prompts: EncodedPrompts) -> None:
        """Now and then, roll one batch of concept prompts out anew, with the student."""
        every = self.settings.refresh_every
        if every and self.step and self.step % every == 0:
            rows = torch.randperm(len(erase), generator=self.generator)[: self.settings.batch]
            fresh = erase.like(len(rows))  # all of them or none
            own = torch.arange(len(rows))
            self.sampler.fill(fresh, own, prompts.erase(rows), self.generator, self.lora)
            erase.put(rows, fresh)

    def _make_guard(self, states: Buffer) -> Guard:
        idle = None
        if states.erase.null is not None:
            idle = idle_loss(states.erase.target, states.erase.null, self.settings.eta)
        rolled = isinstance(states.keep, Rollouts)
        return Guard(self.lora, idle, ("esd", "lora") if rolled else ("esd",))

    def _copy(self, levels: Levels, guard: Guard) -> _Whole:
        training = self._live | {
            **pack_optimiser("lower", self.lower),
            **pack_optimiser("upper", self.upper),
            **levels.state(),
            "generator": self.generator.get_state(),
        }
        copied = {name: tensor.to("cpu", copy=True) for name, tensor in training.items()}
        return _Whole(self.step, copied, dict(guard.means))

    def _roll_back(self) -> None:
        """Undo the iteration that something broke off."""
        if self._whole is not None:
            self.step = self._whole.step
            del self.history[self.step :]
            kept = self._whole.training
            self.lora.load_state({name: kept[name] for name in self._live})

    def _keep_unfinished(self) -> None:
        """A checkpoint of a run that ends early, unless one that it was to replace got further."""
        further = [] if self._resumes else [p for p in self._superseded if step_of(p) > self.step]
        if self._whole is not None and further:
            self.notices.append(
                f"The run that {further[-1]} belongs to got further and stays; it can be resumed."
            )
        else:
            self.keep()

    def _restore(self, snapshot: Snapshot) -> None:
        """Take everything over from a checkpoint."""
        training, run = snapshot.training, snapshot.run
        self.step, self.history = snapshot.step, list(run["history"])
        self._saved = snapshot.step
        self.fp8, self._text_tokens = run.get("fp8"), run.get("text_tokens")
        self.known, self.extends = run.get("known", 0), run.get("extends", "")
        self.states = Buffer.from_tensors(snapshot.states)
        try:
            self.lora.load_state({name: training[name] for name in self.lora.state()})
        except (KeyError, RuntimeError) as error:
            raise EraseError(_OTHER_BASE) from error
        unpack_optimiser("lower", self.lower, training)
        unpack_optimiser("upper", self.upper, training)
        self.generator.set_state(training["generator"])
        self._resumed = training
        self.guard = Guard(self.lora, run["guard"]["idle"], ())
        self.guard.means = dict(run["guard"]["means"])

    def _check_base(self, erase: Rollouts, prompts: EncodedPrompts) -> None:
        """Refuse to go on with prompts of another length, or over a tree that does not move a kept
        state as the old one did."""
        if self._text_tokens not in (None, prompts.length):
            raise EraseError(
                f"The run began with prompts of {self._text_tokens} tokens, not {prompts.length}; "
                f"resume it with --t5-length {self._text_tokens}."
            )
        cond = prompts.erase(torch.tensor([0])).cond.to(self.device)
        x, sigma = erase.latents[:1, -1].float(), erase.sigmas[-2]
        fresh = self.sampler.velocity(x.to(self.device), sigma.to(self.device), cond, self.guidance)
        kept = erase.target[:1, -1].float()
        if (fresh.cpu() - kept).norm() > SAME_BASE * kept.norm():
            raise EraseError(_OTHER_BASE)


_OTHER_BASE = (
    "The checkpoint belongs to another base model; resume it with the model it was started on."
)


def _wanted(settings: TrainSettings) -> Wanted:
    """The prompts that the losses ask for."""
    return Wanted(
        erase=settings.erase_rollouts,
        keep=settings.keep_rollouts if settings.l_lora else 0,
        contrast=settings.k if settings.l_rsc else 0,
        null=settings.null,
        anchor=settings.anchor,
        shuffle=settings.shuffle,
    )


def _batches(states: Rollouts, size: int) -> tuple[Tensor, ...]:
    return torch.arange(len(states)).split(size)
