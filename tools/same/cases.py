"""What is run on both sides: concept files with every word, command lines with every setting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Concepts: kind, synonyms, words to keep, and how a sentence goes on after the name.
WORDS: dict[str, tuple[str, list[str], list[str]]] = {
    "tiger": ("entity", ["bengal"], ["lion", "cat"]),
    "car": ("entity", ["automobile"], ["truck", "bus"]),
    "bicycle": ("entity", ["bike"], ["tractor"]),
    "chicken": ("entity", ["hen"], ["owl", "penguin"]),
    "robot": ("entity", [], ["ghost", "crown"]),
    "red": ("abstraction", [], ["orange", "blue", "green"]),
    "above": ("relationship", [], ["left of", "inside", "hugging"]),
}
FORMS = {
    "entity": ["a {}", "a {} on a red background", "a picture of three {}s", "a {} and a tree"],
    "abstraction": ["a house, {} background", "on {}, a sailboat", "a crown on a {} background"],
    "relationship": ["a frog {} a car", "a lion {} a crown on a pink background"],
}
FAR = ["apple", "rose", "house", "guitar"]

SMALL: dict[str, Any] = {
    "steps": 3, "batch": 2, "height": 64, "width": 64, "rollout-steps": 4, "erase-rollouts": 6,
    "keep-rollouts": 6, "refresh-every": 2, "checkpoint-every": 0, "keep-checkpoints": 2,
}  # fmt: skip
TARGETS = "add_q_proj add_k_proj add_v_proj"
DEMO = SMALL | {
    "lr-low": 5e-4, "lr-up": 1e-3, "rank": 8, "alpha": 8, "targets": TARGETS, "seed": 0, "eta": 0.0,
    "l-esd": 1.0, "l-attn": 0.1, "l-lora": 3.0, "l-rsc": 0.1, "l-adv": 0.0, "tau": 0.07,
    "rsc": "text", "attention-blocks": 0, "null": "replace", "rollout-prompt": "concept", "k": 3,
    "guidance-rollout": 3.5, "guidance-train": 3.5, "shift-mu": 1.15, "shuffle": 0.2,
    "max-grad-norm": 1.0,
}  # fmt: skip
TRAIN = DEMO | {"targets": f"{TARGETS} image_attention", "lr-low": 1e-3, "l-adv": 1.0}
SWITCHES = DEMO | {
    "targets": "add_q_proj to_add_out single_blocks vector_in", "rsc": "official", "null": "empty",
    "rollout-prompt": "null", "eta": 1.0, "alpha": 4, "seed": 7, "batch": 1,
}  # fmt: skip
DRAW = '--prompt "a tiger left of a car" --seed 7 --steps 6 --guidance 3.5 --size 128x128'
OWN = "batch=2 erase_rollouts=6 keep_rollouts=6 rollout_steps=4 height=64 width=64"
METHODS = {
    "bench-esd": ("dog", ["esd-x steps=2", "esd-x-strict steps=2", "esd-x-full steps=2"]),
    "bench-ca": ("dog", ["ca-model steps=2", "ca-noise steps=2", "meta steps=2", "eap steps=2"]),
    "bench-released": ("dog", ["untouched", "released steps=4"]),
    "bench-several": ("dog+rose", ["uce", "mace steps=2", f"ours-combined steps=2 {OWN}"]),
    "bench-ours": ("dog", [f"{name} steps=2 {OWN}" for name in (
        "ours", "ours-plain", "ours-esd-attn", "ours-esd-lora", "ours-esd-rsc",
        "ours-attn-lora-rsc")]),
    "bench-colour": ("blue", ["uce", f"ours-plain steps=2 {OWN}"]),
    "bench-relation": ("inside", ["uce", f"ours-plain steps=2 {OWN}"]),
}  # fmt: skip


class Case(NamedTuple):
    """Command lines, run in the case's own folder; ``whole``: with the miniature uncut."""

    commands: list[str]
    whole: bool = True


def train(concepts: str, settings: dict[str, Any], out: str = "lora", more: str = "") -> str:
    told = " ".join(f"--{name} {value}" for name, value in settings.items())
    return f"train --concepts {concepts} --out {out}.safetensors {told} {more}"


def bench(concepts: str, methods: Sequence[str]) -> str:
    quoted = " ".join(f"'{method}'" for method in methods)
    return f"bench --out . --threads 1 --exam 2 --seeds 0 --concepts {concepts} --methods {quoted}"


def cases(words: Path, lora: Path) -> dict[str, Case]:
    """All cases; ``words`` is the folder of concept files, ``lora`` an eraser to draw with."""
    thing, five = f"{words}/tiger.json", f"{words}/five.json"
    kept = DEMO | {"checkpoint-every": 2, "steps": 2}
    drawn = [f"generate {DRAW} --out plain.png", f"generate {DRAW} --lora {lora} --out erased.png"]
    drawn.append(f"attention {DRAW} --words tiger car --lora {lora} --out words.png")
    erasers = {
        "thing": [train(thing, DEMO)],
        "colour": [train(f"{words}/red.json", DEMO)],
        "relation": [train(f"{words}/above.json", DEMO | {"rollout-prompt": "null"})],
        "five-demo": [train(five, DEMO | {"lr-low": 1e-3})],
        "five-train": [train(five, TRAIN)],
        "switches": [train(thing, SWITCHES, more="--activation-checkpointing --chart chart.png")],
        "resumed": [
            train(thing, kept, "half", "--checkpoints kept"),
            "train --resume kept --steps 4 --out lora.safetensors",
        ],
        "pictures": [*drawn, f"inspect {lora} --model miniflux"],
        "exam": [bench("tiger", [f"ours-plain steps=2 {OWN}"])],
    }
    whole = {name: Case(commands) for name, commands in erasers.items()}
    return whole | {name: Case([bench(*told)], whole=False) for name, told in METHODS.items()}


def write_words(folder: Path) -> None:
    """The concept files: each concept alone, and the first five together."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for name, (kind, synonyms, near) in WORDS.items():
        far = FAR if kind == "entity" else []
        made[name] = {
            "name": name, "kind": kind, "sense": "", "synonyms": synonyms,
            "irrelevant": {"none": far[2:], "far": far[:2], "mid": [], "near": near},
            "sentences": [form.format(name) for form in FORMS[kind]],
        }  # fmt: skip
    sets = {name: [concept] for name, concept in made.items()} | {"five": list(made.values())[:5]}
    for name, concepts in sets.items():
        text = json.dumps({"version": 1, "concepts": concepts})
        (folder / f"{name}.json").write_text(text)
