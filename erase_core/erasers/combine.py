"""Several erasers as one: LoRAs by PEFT's weighted combinations, weight edits by addition."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from .. import __version__
from ..errors import EraseError
from ..files import parse_json
from ..models.base import Slot
from .load import parts as split
from .lora import DOWN, FILE_PREFIX, PEFT_PREFIX, UP, bake, bare_modules
from .metadata import VERSION, network

# "cat" stacks the ranks and so adds the changes exactly; the others keep the rank and blend.
METHODS = ("cat", "linear", "ties", "dare_linear", "dare_ties", "svd")


class Part(NamedTuple):
    """One eraser of a combination: its file's tensors, its weight, its file's metadata."""

    tensors: Mapping[str, Tensor]
    weight: float
    metadata: Mapping[str, str]


def combine(
    parts: Sequence[Part], method: str = "cat", density: float = 0.5, seed: int = 0
) -> dict[str, Tensor]:
    """The tensors of one file (float32, CPU) that does what all ``parts`` do.

    Parameters
    ----------
    method
        One of METHODS; "cat" is the exact weighted sum, its rank the sum of the ranks.
    density
        Share of values that the "ties" and "dare" methods keep.
    seed
        Of what the "dare" methods drop.

    Raises
    ------
    EraseError
        When there is no part, or a tensor is no part of a LoRA with diffusers' names. Also when
        ranks differ where the method wants them equal.
    """
    if method not in METHODS:
        raise EraseError(f"There is no method {method}; choose from {', '.join(METHODS)}.")
    if not all(math.isfinite(part.weight) for part in parts):
        raise EraseError("A weight is no finite number; write numbers such as 1 or 0.5.")
    if not parts or not all(part.tensors for part in parts):
        raise EraseError("There is nothing to combine; connect or choose at least one LoRA.")
    loras: list[Part] = []
    changes: dict[str, Tensor] = {}
    for part in parts:
        lora, edit = split(part.tensors)
        loras += [part._replace(tensors=lora)] if lora else []
        for name, change in edit.items():
            scaled = part.weight * change.float()
            changes[name] = changes[name] + scaled if name in changes else scaled
    if changes and method != "cat":
        raise EraseError(f"{method} cannot combine edits of whole weights; choose cat, which can.")
    return (_combine_loras(loras, method, density, seed) if loras else {}) | changes


def _combine_loras(
    parts: Sequence[Part], method: str, density: float, seed: int
) -> dict[str, Tensor]:
    states = [bake(part.tensors, f"LoRA {n}") for n, part in enumerate(parts, 1)]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about rank 0 initialisations that are overwritten
        torch.manual_seed(seed)
        model = _adapted(states)
        names = [f"part{n}" for n in range(len(states))]
        options: dict[str, Any] = {"combination_type": method}
        if method.startswith(("ties", "dare")):
            options["density"] = density
        try:
            weights = [part.weight for part in parts]
            model.base_model.add_weighted_adapter(names, weights, "sum", **options)
        except ValueError as error:
            raise EraseError(
                f"{method} cannot combine these LoRAs ({_first(error)}); choose cat, which can."
            ) from error
    found = get_peft_model_state_dict(model, adapter_name="sum", save_embedding_layers=False)
    return {
        FILE_PREFIX + key.removeprefix(PEFT_PREFIX): value.detach().clone().contiguous()
        for key, value in found.items()
    }


def combined_metadata(
    parts: Sequence[Part], method: str, tensors: Mapping[str, Tensor]
) -> dict[str, str]:
    """What a combined file of ``tensors`` says about itself: its parts under ``erase.combined``."""
    told = [
        {
            "weight": part.weight,
            "concepts": _names(part.metadata),
            "base": part.metadata.get("erase.base", ""),
        }
        for part in parts
    ]
    names = ", ".join(name for part in parts for name in _names(part.metadata)) or "unknown"
    versions = {part.metadata[VERSION] for part in parts if part.metadata.get(VERSION)}
    bases = {part.metadata.get("erase.base_sha256", "") for part in parts}
    return {
        "format": "pt",
        "erase.combined": json.dumps({"method": method, "parts": told}, ensure_ascii=False),
        "erase.base_sha256": bases.pop() if len(bases) == 1 else "",
        **network(tensors),
        "ss_training_comment": f"EraseAnything {__version__}: erases {names}",
    } | ({VERSION: versions.pop()} if len(versions) == 1 else {})


def _names(metadata: Mapping[str, str]) -> list[str]:
    """The concepts that a file of ours erases."""
    try:
        concepts = parse_json(metadata["erase.concepts"])["concepts"]
        return [str(concept["name"]) for concept in concepts]
    except (KeyError, TypeError, ValueError):
        return []


def _adapted(states: Sequence[Mapping[str, Tensor]]) -> Any:
    """PEFT's model over bare modules, with each state as an adapter "part0", "part1", ..."""
    slots: dict[str, Slot] = {}
    for state in states:
        own = _slots(state)
        if any(slots.get(name, slot) != slot for name, slot in own.items()):
            raise EraseError(
                "These LoRAs were made for bases of different sizes; combine those of one base."
            )
        slots |= own
    model: Any = None
    for number, state in enumerate(states):
        name = f"part{number}"
        ranks = {module: len(state[module + DOWN]) for module in _slots(state)}
        rank = max(ranks.values())
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=list(ranks),
            rank_pattern={re.escape(m): r for m, r in ranks.items() if r != rank},
            alpha_pattern={re.escape(m): r for m, r in ranks.items() if r != rank},
        )
        if model is None:
            model = get_peft_model(bare_modules(slots), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        named = {PEFT_PREFIX + key: tensor for key, tensor in state.items()}
        set_peft_model_state_dict(model, named, adapter_name=name)
    return model


def _slots(state: Mapping[str, Tensor]) -> dict[str, Slot]:
    """The modules of a state, sized as its tensors are."""
    return {
        key.removesuffix(DOWN): Slot(
            "", slice(0), down.shape[1], len(state[key.removesuffix(DOWN) + UP])
        )
        for key, down in state.items()
        if key.endswith(DOWN)
    }


def _first(error: Exception) -> str:
    return str(error).split(".")[0].strip()
