"""A model from files: which family they are of, or one sentence why not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..errors import EraseError
from ..files import parse_json, sha256
from .base import Model, Slot
from .family import Family, advice, families
from .load import load, read_state

QWEN_VL = 3584  # width of Qwen2.5-VL's text states
PRESETS = "erase.presets"  # in a transformer's metadata, see methods/presets.py

# Keys that give files away which are no plain transformer, tried in this order.
_NO_TRANSFORMERS = {
    r"lora_(A|B|up|down|unet)": "a LoRA",
    r"(^|\.)(qweight|absmax|quant_map)$": "quantised to integers",
    r"controlnet": "a ControlNet",
    r"^redux_": "a FLUX.1 Redux adapter",
    r"^(text_model|shared|encoder\.block|text_encoders)\.": "a text encoder",
    r"^(encoder|decoder|taesd_encoder)\.": "an autoencoder (VAE)",
}
# And those of models of no family that is known here.
_OTHERS = {
    r"^nerf_(blocks|image_embedder)\.": "a Chroma Radiance model, which draws without a VAE",
    r"^time_embed\.timestep_embedder\.": "a LongCat-Image model",
    r"img_attn_qkv": "a HunyuanVideo model",
    r"^(label_emb|add_embedding)\.": "a Stable Diffusion XL model",
    r"^(input_blocks|down_blocks)\.": "a Stable Diffusion 1 or 2 model",
    r"^(cap_embedder|time_caption_embed)\.": "a Lumina Image 2 model",
    r"^(head\.modulation$|condition_embedder\.)": "a Wan model",
}


@dataclass(frozen=True)
class Files:
    """The files of one model.

    ``model`` is a transformer, or a pipeline's folder, which may have all the others. ``t5_length``
    counts the tokens of a prompt.
    """

    model: Path
    clip_l: Path | None = None
    t5: Path | None = None
    vae: Path | None = None
    tokenizers: Path | None = None
    t5_length: int = 256
    qwen: Path | None = None
    clip_g: Path | None = None


def open_files(files: Files, device: torch.device, *, placed: bool = True) -> Model:
    """The model in some files, ready to draw.

    Without ``placed`` the transformer stays in main memory until
    :func:`erase_core.training.memory.fit` brings it to its device.

    Raises
    ------
    EraseError
        When a file is missing, damaged, or of no family that is known.
    """
    family = family_of(files.model).of(files.model)
    files = _filled(files, family)
    tree, config = load(family, files.model, device if placed else "cpu")
    tree.compute_device = device
    return Model(
        family=family,
        tree=tree,
        config=config,
        text=family.text(files, config, device),
        vae=family.vae(files.vae) if files.vae else None,
        name=files.model.stem,
        sha256="",
        size=family.size,
        shift_mu=family.shift(config),
        trained=family.trained,
        presets=read_presets(files.model),
        file=files.model,
    )


def family_of(path: Path) -> Family:
    """The family that a transformer's file or a pipeline's folder is of.

    Raises
    ------
    EraseError
        When the file is missing or damaged, or says what it is instead.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in read_state(path)[0].items()}
    other = _named(shapes, _NO_TRANSFORMERS)
    found = [family for family in families() if not other and family.owns(shapes)]
    if not found:
        what = other or _named(shapes, _OTHERS) or _by_width(shapes)
        raise EraseError(f"{path.name} is {what}; {advice()}.")
    return found[0]


def _by_width(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What a transformer is called whose names are Flux's own: by the text states that it reads."""
    blocks = "double_blocks.0.img_attn.qkv.weight" in shapes
    if blocks and shapes.get("txt_in.weight", ())[1:] == (QWEN_VL,):
        return "a LongCat-Image model"
    return "no transformer that is known here"


def _named(names: Iterable[str], known: Mapping[str, str]) -> str:
    """What the first pattern is called that any of the names fits; "" for none."""
    names = list(names)
    found = (what for pattern, what in known.items() if any(re.search(pattern, n) for n in names))
    return next(found, "")


def filled(files: Files) -> Files:
    """The files, with what was not named from the pipeline's folder, if there is one."""
    return _filled(files, family_of(files.model)) if files.model.is_dir() else files


def _filled(files: Files, family: Family) -> Files:
    found: dict[str, Any] = {
        name: files.model / part
        for name, part in family.parts.items()
        if getattr(files, name) is None and (files.model / part).is_dir()
    }
    return replace(files, **found)


def read_presets(path: Path) -> Mapping[str, Any]:
    """The presets that a transformer's file brings; none where it brings none."""
    from safetensors import safe_open

    if not path.is_file():
        return {}
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(PRESETS, "{}")
    try:
        found = parse_json(text)
        assert all(isinstance(values, dict) for values in _third_level(found))
    except (ValueError, AttributeError, AssertionError) as error:
        raise EraseError(f"The presets in {path.name} are damaged; take another file.") from error
    return found


def _third_level(found: Any) -> Iterator[Any]:
    """The values of every preset of every method, but for what they were measured on."""
    for presets in found.values():
        for preset in presets.values():
            yield from (value for name, value in preset.items() if name != "measured")


def read_linears(path: Path) -> dict[str, Slot]:
    """The Linears of a transformer's file by their names in a LoRA file."""
    family = family_of(path)
    return family.linears(load(family, path)[1])


def base_hash(model: Model) -> str:
    """SHA-256 of a model's file, a minute for a big one; empty for a folder."""
    if model.sha256 or model.file is None or not model.file.is_file():
        return model.sha256
    return _hash(model.file, model.file.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _hash(file: Path, changed: int) -> str:
    return sha256(file)
