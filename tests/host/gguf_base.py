"""A base of ComfyUI-GGUF's loader, in the host's process; see inside.py.

python gguf_base.py gguf HOST PACKAGE BASE OUT, with COMFYUI_GGUF naming the node pack's folder
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import inside  # the host's process

# isort: split
import comfy.utils
import gguf
import numpy as np
import torch
from eraseanything.nodes import hosts
from inside import BASE, FLUX, HELD, PROMPTS, latents, random_lora, relative, standalone
from matrix import loaded

QUANT = gguf.GGMLQuantizationType.Q8_0


def pack() -> Any:
    """ComfyUI-GGUF, loaded as the host loads node packs."""
    folder = Path(os.environ["COMFYUI_GGUF"])
    spec = importlib.util.spec_from_file_location(
        "gguf_pack", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["gguf_pack"] = made
    spec.loader.exec_module(made)
    return made


def written() -> tuple[Path, Path]:
    """MiniFlux with its matrices in Q8_0 as a GGUF file, and the same numbers as float32."""
    quantised, exact = FLUX.with_name("toy.gguf"), FLUX.with_name("toy.safetensors")
    writer, plain = gguf.GGUFWriter(str(quantised), "flux"), {}
    for name, tensor in comfy.utils.load_torch_file(str(FLUX)).items():
        numbers = tensor.float().numpy()
        if numbers.ndim == 2 and numbers.shape[1] % 32 == 0 and "_in" not in name:
            blocks = gguf.quants.quantize(numbers, QUANT)
            writer.add_tensor(name, blocks, raw_dtype=QUANT)
            numbers = gguf.quants.dequantize(blocks, QUANT)
        else:
            writer.add_tensor(name, np.ascontiguousarray(numbers))
        plain[name] = torch.from_numpy(numbers.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    comfy.utils.save_torch_file(plain, str(exact))
    return quantised, exact


def models() -> tuple[Any, Any]:
    """The GGUF loader's MODEL, and the host's own of the same numbers."""
    quantised, exact = written()
    with torch.inference_mode():
        loader = pack().NODE_CLASS_MAPPINGS["UnetLoaderGGUFAdvanced"]()
        theirs = loader.load_unet(quantised.name, "float32")[0]  # by default it unpacks to float16
    return theirs, inside.unet(path=exact)


def gguf_drawing() -> dict[str, Any]:
    """The host's velocity on both, without and with an eraser."""
    own = standalone()
    cond = own.text.encode(PROMPTS)
    random_lora(own.config, 0.15).save(BASE / "models" / "loras" / "eraser.safetensors")
    theirs, exact = models()
    found: dict[str, Any] = {"plain": _difference(theirs, exact, cond)}
    for strength in (0.3, 1.0, 2.0):
        pair = (loaded(model, "eraser", strength) for model in (theirs, exact))
        found[f"{strength:g}"] = _difference(*pair, cond)
    with_it = inside.sampled(loaded(theirs, "eraser"), latents(), cond)
    found["change"] = relative(with_it, inside.sampled(theirs, latents(), cond))
    return found


def _difference(one: Any, other: Any, cond: Any) -> float:
    return relative(*(inside.sampled(model, latents(), cond) for model in (one, other)))


def gguf_training() -> dict[str, Any]:
    """Gradients on both, and a whole training that leaves the weights as they were."""
    own = standalone()
    cond = own.text.encode(PROMPTS)
    theirs, exact = models()
    found: dict[str, Any] = {}
    grads = []
    for model in (theirs, exact):
        hosts.load(model)
        grads.append(inside.gradients(inside.tree_of(model), own.config, cond))
    found["gradients"] = relative(*grads)
    name = "double_blocks.0.txt_attn.qkv"
    solved = (inside.tree_of(model).get_submodule(name).weight for model in (theirs, exact))
    found["solved"] = relative(*solved)
    return found | _trained(theirs)


def _trained(model: Any) -> dict[str, Any]:
    """Two steps by Erase Concept, and the weights' digest after them."""
    inside.know_our_nodes()
    graph = json.loads((inside.OUT.parent / "train.json").read_text())
    HELD["gguf"] = model, inside.load.load_miniflux_clip(), None
    graph["load"] = {"class_type": "Given", "inputs": {"name": "gguf"}}
    before = _digest(model)
    runner = inside.execute(graph)
    told = inside.failure(runner)
    return {"told": told, "success": runner.success, "untouched": _digest(model) == before}


def _digest(model: Any) -> str:
    """SHA-256 of what the parameters hold; a GGUF layer's state dict is made of empty tensors."""
    found = hashlib.sha256()
    for name, parameter in model.model.named_parameters():
        held = parameter.data.as_subclass(torch.Tensor).contiguous()
        found.update(name.encode() + held.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    inside.main(globals())
