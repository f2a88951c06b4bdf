"""EraseAnything as its authors released it, faults included (github tomguluson92/EraseAnything).

Written from what the released code does, not from its lines. Odd and even steps of one optimiser
take turns with ``l1 L_esd + l2 L_attn`` and ``l3 L_lora + l4 L_rsc``. A comment says FAULT where it
differs from the paper. Kinder than the release: the concept set's words stand for the answers of
an LLM, and the model draws the pictures of the concept. The LoRA is float32, gradients are clipped,
there is a seed, and models without guidance run. Settings are those of the release's files, batch 1
included: 200 steps and a relative for the anchor, 300 for a style and "hug", the style's anchor
being the sentence without it. Its weight of L_attn, a sum over queries, counts for less in a small
picture.

Tried: lr 3e-3 (Ho of "tiger" 0.56 for 0.65, "car" 0.66 for 0.58, "red" 0.12 for 0.12, "comic" 0.48
for 0.82), for relations 3e-4 ("left of" 1.00 for 0.99, "hugging" 0.94 for 0.99): on average the
release's own is best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from ..concepts.sets import Concept
from ..erasers.base import Eraser
from ..erasers.lora import EraserLora
from ..errors import EraseError
from ..models.base import Adapter, Conditioning
from ..models.flux1.config import HEAD_DIM
from ..models.flux1.forward import rope_table, rotate
from ..settings import Settings, setting
from ..training.prompts import NullPrompt
from .base import Cost, Method, Task
from .eraseanything.losses import esd_loss, esd_target, preserve_loss, rsc_loss
from .loop import Recorder, Teacher, descend

SOURCE = "Gao et al., EraseAnything, ICML 2025, released code"
L_ESD, L_ATTN, L_LORA, L_RSC = 1.0, 0.001, 0.1, 0.1
ETA, TAU, K = 1.0, 0.07, 3
GUIDANCE, GUIDANCE_ROLLOUT = 3.5, 3.0
SAMPLER_STEPS = 28
SHUFFLED, RENAMED = 0.9, 0.5  # shares of prompts
TARGETS = ("add_q_proj", "add_k_proj")


class Lesson(NamedTuple):
    """A prompt as it is used, the tokens (n,) looked at in it, and what goes with it: a picture's
    latent ``clean`` (1, C, h, w) and the anchor's prompt."""

    concept: Concept
    text: str
    tokens: Tensor
    clean: Tensor
    anchor: str


class Released:
    """One run: prompts and pictures of the concepts, and the losses of both kinds of steps."""

    def __init__(self, task: Task, null: NullPrompt) -> None:
        self.teacher = Teacher(task)
        self.tree, self.generator = task.model.tree, self.teacher.generator
        last = task.model.config.depth - 1
        self.streams = [f"double_blocks.{last}.{stream}_attn" for stream in ("txt", "img")]
        self.lora = EraserLora.create(task.model.slots(TARGETS), seed=task.seed)
        self.lora.to(task.model.device)
        names = [concept.name for concept in task.concepts.concepts]
        planned = self.teacher.prompts(null)
        self.prompts = [p for p in planned if p.sentence.word in names]  # renamed on the way
        self.pictures = self.teacher.draw([p.sentence.text for p in self.prompts]).float()
        self.levels = task.model.sigmas(SAMPLER_STEPS)
        self.sigma = torch.ones(1)

    def loss(self, step: int) -> Tensor:
        """FAULT: one optimiser, at one rate, for both levels."""
        return self.preserve() if step % 2 else self.erase()

    def erase(self) -> Tensor:
        """``l1 L_esd + l2 L_attn``."""
        lesson = self._draw()
        cond, anchor = self.teacher.encode([lesson.text]), self.teacher.encode([lesson.anchor])
        self.sigma = torch.rand(1, generator=self.generator)
        # FAULT: a whole rollout of the student for every step, and what comes out of it, a clean
        # picture, is shown to the model as if it had the noise level of an unrelated t.
        z = self._roll_out(cond, self._noise(), SAMPLER_STEPS)
        student = self._velocity(z, self.sigma, cond, GUIDANCE_ROLLOUT)
        with torch.no_grad():
            # FAULT: the teacher has the LoRA on, so v_o(c) is the student itself, and the
            # residual vanishes at v(c) = v(anchor).
            null = self._velocity(z, self.sigma, anchor, GUIDANCE_ROLLOUT)
        esd = esd_loss(student, esd_target(null, student.detach(), ETA))
        x = self._noised(lesson.clean)[0]
        attention = self._attend(x, self.sigma, cond, GUIDANCE, lesson.tokens)[1]
        # A norm over heads for every query and token, text queries among them (FAULT), summed: it
        # grows with the resolution.
        return L_ESD * esd + L_ATTN * attention.norm(dim=(0, 1)).sum()

    def preserve(self) -> Tensor:
        """``l3 L_lora + l4 L_rsc`` at the noise level of the step before."""
        lesson = self._draw()
        # FAULT: the concept's own pictures under its own name, which teach it again.
        x, target = self._noised(lesson.clean)
        cond = self.teacher.encode([lesson.text])
        found, attention = self._attend(x, self.sigma, cond, GUIDANCE, lesson.tokens)
        synonym, *others = self._others(lesson)
        rsc = rsc_loss(_feature(attention), synonym, others, TAU, "official")
        return L_LORA * preserve_loss(found, target.to(found.device)) + L_RSC * rsc

    def _draw(self) -> Lesson:
        row = self._pick(len(self.prompts))
        prompt = self.prompts[row]
        concept = self.teacher.concepts.concepts[prompt.concept]
        words = prompt.sentence.text.split(" ")
        if self._chance() < SHUFFLED:
            # FAULT: word by word, which tears concepts of several words apart.
            words = [words[i] for i in torch.randperm(len(words), generator=self.generator)]
        text = " ".join(words)
        tokens = self._tokens(text, concept.name)
        if self._chance() < RENAMED and concept.synonyms:
            # FAULT: indices are those from before a synonym took the concept's place.
            synonym = concept.synonyms[self._pick(len(concept.synonyms))]
            text = text.replace(concept.name, synonym)
        return Lesson(concept, text, tokens, self.pictures[row : row + 1], prompt.null)

    def _tokens(self, text: str, name: str) -> Tensor:
        """FAULT: each word of a name counts for itself, wherever it stands."""
        mask = torch.zeros(())
        for word in name.split(" "):
            try:
                mask = mask + self.teacher.model.text.token_mask(text, word).cpu()
            except EraseError:
                continue
        return mask.nonzero().flatten()

    def _others(self, lesson: Lesson) -> list[Tensor]:
        """Features of a synonym and K irrelevant words, each a prompt of its own."""
        # FAULT: a concept without synonyms stands for its own synonym.
        synonyms = lesson.concept.synonyms or (lesson.concept.name,)
        irrelevant = lesson.concept.irrelevant_words()
        words = [synonyms[self._pick(len(synonyms))]]
        words += [irrelevant[self._pick(len(irrelevant))] for _ in range(K)]
        cond = self.teacher.encode(words)
        # FAULT: at another state, another noise level and, the LoRA on, another model than F_un.
        # What the release samples after the step that it looks at is left out here.
        step = self._pick(SAMPLER_STEPS)
        x = self._roll_out(cond, self._noise().expand(len(words), -1, -1, -1), step)
        with torch.no_grad():
            # FAULT: indices of the full prompt, in prompts of one word.
            sigma = self.levels[step]
            attention = self._attend(x, sigma, cond, GUIDANCE_ROLLOUT, lesson.tokens)[1]
        return list(_feature(attention).split(1))

    def _noised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """A picture at the current noise level, and ``eps - x_0``."""
        noise = self._noise()
        return (1 - self.sigma) * clean + self.sigma * noise, noise - clean

    @torch.no_grad()
    def _roll_out(self, cond: Conditioning, x: Tensor, steps: int) -> Tensor:
        """``steps`` of the sampler's Euler steps with the student."""
        for now, then in zip(self.levels[:steps], self.levels[1:], strict=False):
            v = self._velocity(x, now, cond, GUIDANCE_ROLLOUT)
            x = x + (then - now) * v.cpu()
        return x

    def _velocity(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float,
        student: Adapter | None = None,
    ) -> Tensor:
        model = self.teacher.model
        x, sigma = x.to(model.device), sigma.to(model.device)
        return model.velocity(x, sigma, cond, model.guidance(guidance), student or self.lora)

    def _attend(
        self, x: Tensor, sigma: Tensor, cond: Conditioning, guidance: float, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The student's velocity, and the attention (B, heads, L + Q, n) of the last double block:
        of all queries, text and image, to ``tokens`` (n,)."""
        recorder = Recorder([f"{name}.qkv" for name in self.streams], self.lora)
        found = self._velocity(x, sigma, cond, guidance, recorder)
        rope = rope_table(cond.context.shape[1], x.shape[2] // 2, x.shape[3] // 2, found.device)
        parts = [self._query_key(name, recorder.outputs[f"{name}.qkv"]) for name in self.streams]
        q, k = (rotate(torch.cat(part, dim=2), rope) for part in zip(*parts, strict=True))
        logits = (q @ k.transpose(-1, -2)).float() / math.sqrt(HEAD_DIM)
        return found, logits.softmax(-1)[..., tokens.to(found.device)]

    def _query_key(self, name: str, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """A stream's normalised queries and keys, each (B, heads, T, HEAD_DIM)."""
        q, k, _ = qkv.unflatten(-1, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        norm = f"{name}.norm"
        query, key = (self.tree.get_submodule(f"{norm}.{n}_norm") for n in ("query", "key"))
        return query(q).to(q.dtype), key(k).to(k.dtype)

    def _noise(self) -> Tensor:
        model = self.teacher.model
        shape = model.family.latents.shape(*model.size)
        return torch.randn(1, *shape, generator=self.generator)

    def _pick(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def _chance(self) -> float:
        return float(torch.rand((), generator=self.generator))


def _feature(attention: Tensor) -> Tensor:
    """FAULT: head 0 only, text queries included; averaged over tokens, (B, 1, 1, L + Q)."""
    return attention[:, None, :1].mean(-1)


@dataclass(frozen=True)
class ReleasedSettings(Settings):
    """What the release's files differ in."""

    lr: float = setting(1e-3, "learning rate", low=0, high=10, step=1e-5)
    steps: int = setting(200, "steps, erasing and preserving in turns", low=1, high=100_000)
    null: NullPrompt = setting("replace", "the anchor's prompt", choices=get_args(NullPrompt))


def erase(task: Task, settings: ReleasedSettings) -> Eraser:
    """Run the release's alternating steps, with ``null`` for its anchor."""
    run = Released(task, settings.null)
    descend(run.lora, run.loss, settings.steps, settings.lr, task)
    return run.lora


# Of the release's own files: nudity; a style and an effect; hugging.
KINDS = {
    "entity": {"steps": 200, "null": "replace"},
    "abstraction": {"steps": 300, "null": "without"},
    "relationship": {"steps": 300, "null": "replace"},
}
METHODS = (
    Method(
        "released",
        "EraseAnything as released",
        SOURCE,
        erase,
        ReleasedSettings,
        kinds=KINDS,
        families=("flux1",),
        cost=Cost(143, 0.79),
    ),
)
