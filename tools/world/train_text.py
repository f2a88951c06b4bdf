"""Teach both encoders language before any picture: from captions and WordNet alone.

    python -m tools.world.train_text --out FOLDER --wordnet FOLDER [--steps 1200]

A reader puts questions to the T5-shaped encoder's states: what is there, what stands where, in
which colour, by whom. It sees only some of the tokens, so that others, padding too, come to carry
what is said. Words and glosses of one sense are pulled together, different senses apart. The
CLIP-shaped encoder's pooled vector answers the same questions. Writes ``text.safetensors`` and
``reader.safetensors``.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5EncoderModel

from erase_core.files import atomic
from erase_core.models.flux1.text import tokenize
from erase_core.models.tokens import token_mask

from .captions import OPENINGS, Voice, caption, misspell, noun_phrase
from .lexicon import Lexicon
from .model import CONFIG, LONG, Encoders
from .optimise import learning_rate, make_optimisers, mixed
from .scene import Scene, random_scene, spoken
from .world import (
    ARTISTS,
    COLOURS,
    ENTITIES,
    GROUNDS,
    PEOPLE,
    PLACES,
    RELATION_WORDS,
    RELATIONS,
    THINGS,
)

CAPTIONS, PHRASES, PAIRS, ORDERED = 32, 64, 16, 48
PHRASE = 12  # tokens of a word or gloss
SENTENCE = 28  # tokens of two things and their relation, at most
LR = 1.5e-3
PLAINLY = Voice(words="name")
SIDES = RELATIONS[:4]
QUESTIONS: dict[str, int] = {
    "entities": len(ENTITIES),
    **dict.fromkeys(SIDES, len(ENTITIES)),
    "relation": len(RELATIONS) + 1,
    "number": 5,
    "colour": len(COLOURS) + 1,
    "ground": len(GROUNDS),
    "artist": len(ARTISTS) + 1,
    "place": len(PLACES) + 1,
    "spooky": 2,
    "first": len(ENTITIES),
    "second": len(ENTITIES),
}
# Who is named first is asked for the sake of sides: these depend on it and on the relation, and a
# reader who has neither learns nothing from being told both at once.
ORDER = ("first", "second", *SIDES)


def answers(said: list[Scene]) -> dict[str, Tensor]:
    """What the captions say: ``entities`` (B, E) of 0 and 1, the others classes, the last (for a
    ground the first) of them "not said"; -100, which cross-entropy leaves out, where a question
    makes no sense."""
    entities = torch.zeros(len(said), len(ENTITIES))
    sides = {side: torch.full((len(said),), -100) for side in ORDER}
    for row, scene in enumerate(said):
        entities[row, list(scene.subjects)] = 1
        if len(scene.subjects) == 2:
            sides["first"][row], sides["second"][row] = scene.subjects
        if scene.relation in SIDES:
            side = SIDES.index(scene.relation)
            sides[SIDES[side]][row], sides[SIDES[side ^ 1]][row] = scene.subjects
    return {
        "entities": entities,
        **sides,
        "relation": _classes([s.relation for s in said], RELATIONS),
        "number": torch.tensor([s.number if len(s.subjects) == 1 else -100 for s in said]),
        "colour": _classes([s.colour for s in said], COLOURS),
        "ground": torch.tensor([list(GROUNDS).index(s.ground or "plain") for s in said]),
        "artist": _classes([s.artist for s in said], ARTISTS),
        "place": _classes([s.place for s in said], PLACES),
        "spooky": torch.tensor([int(bool(s.spooky)) for s in said]),
    }


def _classes(told: list[str | None], names: object) -> Tensor:
    every = list(names)  # type: ignore[call-overload]
    return torch.tensor([every.index(name) if name else len(every) for name in told])


class Reader(nn.Module):
    """One query a question, put to some of an encoder's states; the same asked of pooled vectors;
    and a projection in which phrases of one sense meet. ``side`` and ``order`` read the states of
    one entity's own tokens."""

    def __init__(self) -> None:
        super().__init__()
        width = CONFIG.context_in_dim
        self.queries = nn.Parameter(torch.randn(len(QUESTIONS), width) / 2)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.told = nn.ModuleDict({name: nn.Linear(width, n) for name, n in QUESTIONS.items()})
        self.pooled = nn.ModuleDict(
            {name: nn.Linear(CONFIG.vec_in_dim, n) for name, n in QUESTIONS.items()}
        )
        self.bag = nn.Linear(width, len(ENTITIES))
        self.sense = nn.Linear(width, 128)
        self.side = nn.Linear(width, len(SIDES))
        self.order = nn.Linear(width, 2)

    def forward(self, states: Tensor, hidden: Tensor | None = None) -> dict[str, Tensor]:
        """States (B, L, 256) to logits of each question; tokens marked in ``hidden`` (B, L) are
        not looked at."""
        queries = self.queries.expand(len(states), -1, -1)
        read, _ = self.attention(
            queries, states, states, key_padding_mask=hidden, need_weights=False
        )
        told = {name: self.told[name](read[:, i]) for i, name in enumerate(QUESTIONS)}
        told["entities"] = told["entities"] + self.bag(mean_of(states, hidden))
        return told

    def meaning(self, states: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Unit vectors (B, 128) of phrases."""
        return F.normalize(self.sense(mean_of(states, hidden)).float(), dim=-1)


def mean_of(states: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Means (B, D) of states (B, L, D) but the hidden ones."""
    seen = torch.ones(states.shape[:2]) if hidden is None else 1 - hidden.float()
    return (states * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)


@torch.no_grad()
def look_both_ways(t5: T5EncoderModel) -> None:
    """Let the first head see what comes before a token and the second what follows it, the nearer
    the better: the encoder does not find word order by itself, nor with a bias of -6."""
    bias = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    half = len(bias) // 2  # buckets of distances, first those to earlier tokens
    earlier, later = slice(half), slice(half, None)
    for head, seen, unseen in ((0, earlier, later), (1, later, earlier)):
        bias[seen, head] = 2 - 0.3 * torch.arange(half)
        bias[unseen, head] = -40  # scores of contents go to 20, and would outweigh less
        bias[0, head] = 0  # the token itself


def hide(ids: Tensor, rng: torch.Generator) -> Tensor:
    """Tokens (B, L) that the reader must do without: none in 45 % of texts, six in ten by chance,
    or a stretch of half the words; some token is always left."""
    count, length = ids.shape
    words = (ids != 0).sum(1, keepdim=True)
    roll = torch.rand(count, 1, generator=rng)
    scattered = torch.rand(count, length, generator=rng) < 0.6
    start = (torch.rand(count, 1, generator=rng) * words * 0.6).long()
    place = torch.arange(length)
    stretch = (place >= start) & (place < start + (words + 1) // 2)
    hidden = torch.where(roll < 0.7, scattered, stretch) & (roll > 0.45)
    hidden[:, -1] &= ~hidden.all(1)
    return hidden


def entity_loss(logits: Tensor, there: Tensor) -> Tensor:
    """One sigmoid an entity and, since these begin slowly, a softmax over all: a text's entities
    share its mass."""
    logits = logits.float()
    each = 15 * F.binary_cross_entropy_with_logits(logits, there)
    rows = there.sum(1) > 0
    if not rows.any():
        return each
    share = there[rows] / there[rows].sum(1, keepdim=True)
    return each + F.cross_entropy(logits[rows], share)


def question_loss(seen: dict[str, Tensor], want: dict[str, Tensor]) -> Tensor:
    loss = entity_loss(seen["entities"], want["entities"])
    for name in QUESTIONS:
        if name != "entities" and (want[name] >= 0).any():
            weight = 1.0 if name in ORDER else 0.3
            loss = loss + weight * F.cross_entropy(seen[name].float(), want[name])
    return loss


def sense_loss(first: Tensor, second: Tensor, entities: Tensor) -> Tensor:
    """Each phrase must find its partner among the others'; phrases of one entity are no rivals."""
    same = (entities[:, None] == entities) & (entities[:, None] >= 0)
    same &= ~torch.eye(len(first), dtype=torch.bool)
    logits = (first @ second.T * 15).masked_fill(same, -1e4)
    target = torch.arange(len(first))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class Pair(NamedTuple):
    """A sentence, the phrases in it that name its two entities, and what it says."""

    text: str
    named: tuple[str, str]
    scene: Scene


class Texts:
    """Random captions and pairs of phrases, the same for the same step."""

    def __init__(self, wordnet: Path) -> None:
        self.lexicon = Lexicon.read(wordnet)
        extra = self.lexicon.extra
        self.voices = [
            Voice(held, words, typo=0.3, outside=0.25, extra=extra)
            for held in (False, True)
            for words in ("any", "any", "mixed")
        ]

    def captions(self, rng: random.Random, count: int) -> tuple[list[str], list[Scene]]:
        """Captions with what they say, every other one of two things with sides: word order is
        learned from these alone, and slowly."""
        said = [spoken(_scene(rng, sided=row % 2 == 0), rng) for row in range(count)]
        return [caption(scene, rng.choice(self.voices), rng) for scene in said], said

    def words(self, rng: random.Random, count: int) -> tuple[list[str], Tensor]:
        """Phrases of entities, every other one misspelled: names break into letters then."""
        entities = rng.choices(range(len(ENTITIES)), k=count)
        phrases = [rng.choice(self.lexicon.phrases(entity)) for entity in entities]
        told = [misspell(phrase, rng) if rng.random() < 0.5 else phrase for phrase in phrases]
        return told, torch.tensor(entities)

    @staticmethod
    def pairs(rng: random.Random, count: int) -> list[Pair]:
        """Two entities and their sides, in few words."""
        made = []
        for _ in range(count):
            relation = rng.choice(SIDES)
            scene = Scene(tuple(rng.sample(THINGS + PEOPLE, 2)), relation=relation)
            first, second = (noun_phrase(index, PLAINLY, rng) for index in scene.subjects)
            known, held = RELATION_WORDS[relation]
            link = rng.choice((relation, *known, *held))
            text = rng.choice(OPENINGS[0]).format(x=f"{first} {link} {second}")
            made.append(Pair(text, (first, second), scene))
        return made

    def phrases(self, rng: random.Random, count: int) -> tuple[list[str], list[str], Tensor]:
        pairs = [self.lexicon.pair(rng) for _ in range(count)]
        entities = torch.tensor([entity for _, _, entity in pairs])
        return [a for a, _, _ in pairs], [b for _, b, _ in pairs], entities


def _scene(rng: random.Random, sided: bool) -> Scene:
    while True:
        scene = random_scene(rng, len(ARTISTS))
        if scene.relation in SIDES or not sided:
            return scene


def step_loss(
    encoders: Encoders, reader: Reader, texts: Texts, rng: random.Random, length: int
) -> Tensor:
    """One step's loss: questions about captions, and phrases of one sense."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    prompts, said = texts.captions(rng, CAPTIONS)
    ids, clip_ids = encoders.ids(prompts, length)
    want = answers(said)
    states = encoders.t5(input_ids=ids).last_hidden_state
    loss = question_loss(reader(states, hide(ids, generator)), want)
    pooled = encoders.clip(input_ids=clip_ids).pooler_output
    told = {name: head(pooled) for name, head in reader.pooled.items()}
    loss = loss + 0.3 * question_loss(told, want)

    words, entities = texts.words(rng, PHRASES)
    loss = loss + phrase_loss(encoders, reader, words, entities, generator)[0]
    first, second, entities = texts.phrases(rng, PAIRS)
    told, meant = phrase_loss(encoders, reader, first + second, entities.repeat(2), generator)
    loss = loss + 0.5 * told + sense_loss(meant[:PAIRS], meant[PAIRS:], entities)
    return loss + order_loss(encoders, reader, texts.pairs(rng, ORDERED))


def order_loss(encoders: Encoders, reader: Reader, pairs: list[Pair]) -> Tensor:
    """Each entity's own tokens must say whether it comes first and on which side it stands. A
    reader of whole sentences alone never begins to learn this; from here it does in 100 steps."""
    tokenizer, texts = encoders.t5_tokenizer, [pair.text for pair in pairs]
    states = encoders.t5(input_ids=tokenize(tokenizer, texts, SENTENCE)).last_hidden_state
    sides = torch.tensor([SIDES.index(pair.scene.relation or "") for pair in pairs])
    loss = torch.zeros(())
    for place in (0, 1):
        own = [token_mask(tokenizer, p.text, p.named[place], SENTENCE) for p in pairs]
        state = mean_of(states, 1 - torch.stack(own))
        loss = loss + F.cross_entropy(reader.side(state), sides ^ place)
        loss = loss + F.cross_entropy(reader.order(state), torch.full_like(sides, place))
    seen, want = reader(states), answers([pair.scene for pair in pairs])
    return 2 * loss + sum(F.cross_entropy(seen[name], want[name]) for name in ORDER)


def phrase_loss(
    encoders: Encoders,
    reader: Reader,
    phrases: list[str],
    entities: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Which entity each phrase means (-1: none), and the phrases' meanings (N, 128)."""
    ids = tokenize(encoders.t5_tokenizer, phrases, PHRASE)
    states = encoders.t5(input_ids=ids).last_hidden_state
    hidden = hide(ids, generator)
    there = torch.zeros(len(phrases), len(ENTITIES))
    rows = entities >= 0
    there[rows, entities[rows]] = 1
    loss = entity_loss(reader(states, hidden)["entities"], there)
    return loss, reader.meaning(states, hidden)


def train(folder: Path, wordnet: Path, steps: int, seed: int = 1) -> None:
    """Train both encoders with a reader; what is half done goes on, with new optimisers."""
    torch.manual_seed(seed)
    encoders, reader, texts = Encoders.new(folder), Reader(), Texts(wordnet)
    first = take_up(folder, encoders, reader)
    look_both_ways(encoders.t5)
    every = nn.ModuleDict({"text": encoders.parts(), "reader": reader})
    optimisers = make_optimisers(every, LR)
    began, told = time.time(), []
    for step in range(first, steps):
        rng = random.Random(seed * 1_000_000 + step)
        length = 26 if step < 0.85 * steps else LONG
        with mixed():
            loss = step_loss(encoders, reader, texts, rng, length)
        every.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(every.parameters(), 1.0)
        for optimiser in optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = LR * min(
                    learning_rate(step, steps, 1.0),
                    learning_rate(step - first, 10**9, 1.0, warmup=30),
                )
            optimiser.step()
        told.append(loss.item())
        if (step + 1) % 25 == 0:
            pace = (time.time() - began) / (step + 1 - first)
            mean = sum(told[-25:]) / len(told[-25:])
            print(f"text {step + 1}/{steps} loss {mean:.3f} {pace:.2f} s", flush=True)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            save(folder, encoders, reader, step + 1)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            test(encoders, reader, texts)


def take_up(folder: Path, encoders: Encoders, reader: Reader) -> int:
    """Load what an earlier run saved; the step it had come to."""
    if not (folder / "reader.safetensors").exists():
        return 0
    encoders.parts().load_state_dict(load_file(folder / "text.safetensors"))
    tensors = load_file(folder / "reader.safetensors")
    step = int(tensors.pop("step"))
    reader.load_state_dict(tensors)
    return step


def save(folder: Path, encoders: Encoders, reader: Reader, step: int) -> None:
    for name, part in (("text", encoders.parts()), ("reader", reader)):
        tensors = {k: v.detach().clone() for k, v in part.state_dict().items()}
        if part is reader:
            tensors["step"] = torch.tensor(step)
        with atomic(folder / f"{name}.safetensors") as temporary:
            save_file(tensors, temporary)


def load(folder: Path) -> Encoders:
    """The trained encoders."""
    encoders = Encoders.new(folder)
    encoders.parts().load_state_dict(load_file(folder / "text.safetensors"))
    encoders.parts().eval().requires_grad_(False)
    return encoders


@torch.no_grad()
def test(encoders: Encoders, reader: Reader, texts: Texts, count: int = 100) -> dict[str, float]:
    """Shares of right answers, by how the captions are worded."""
    result = {}
    for name in ("name", "held_out", "held_description", "typo"):
        rng = random.Random(77)
        voice = Voice(True, "name" if name == "typo" else name, typo=float(name == "typo"))
        said = [spoken(_scene(rng, sided=row % 4 == 0), rng) for row in range(count)]
        states = encoders.embed([caption(scene, voice, rng) for scene in said], LONG).context
        seen, want = reader(states), answers(said)
        right = ((seen["entities"] > 0).float() == want["entities"]).all(1).float().mean()
        result[f"{name} entities"] = right.item()
        if name == "held_out":
            for question in QUESTIONS:
                known = want[question] >= 0
                if question != "entities":
                    hit = seen[question].argmax(1) == want[question]
                    result[f"{name} {question}"] = hit[known].float().mean().item()
    print({key: round(value, 3) for key, value in result.items()}, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    args = parser.parse_args()
    train(args.out, args.wordnet, args.steps)


if __name__ == "__main__":
    main()
