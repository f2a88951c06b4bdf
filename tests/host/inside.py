"""The host's own process, for scripts that measure in it: run by its Python, one JSON file out.

    python SCRIPT KIND HOST PACKAGE BASE OUT

Every function of the script named ``KIND_...`` returns plain values, which the tests beside it
judge.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import inspect
import json
import sys
import traceback
from pathlib import Path
from typing import Any

KIND = sys.argv[1]
HOST, PACKAGE, BASE, OUT = (Path(argument) for argument in sys.argv[2:6])
sys.path.insert(0, str(HOST))
sys.argv = ["main.py", "--cpu", "--base-directory", str(BASE)]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401, I001  (first, as in main.py: nodes.py hides it)
import comfy.clip_vision  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import execution  # noqa: E402
import server  # noqa: E402
import torch  # noqa: E402

import nodes as host_nodes  # noqa: E402

LOOP = asyncio.new_event_loop()
SERVER = server.PromptServer(LOOP)
SPEC = importlib.util.spec_from_file_location("eraseanything", PACKAGE / "__init__.py")
assert SPEC is not None and SPEC.loader is not None
PACK = importlib.util.module_from_spec(SPEC)
sys.modules["eraseanything"] = PACK
SPEC.loader.exec_module(PACK)

from eraseanything.erase_core.erasers.lora import EraserLora  # noqa: E402
from eraseanything.erase_core.errors import EraseError  # noqa: E402
from eraseanything.erase_core.miniatures import miniflux  # noqa: E402
from eraseanything.erase_core.models.flux1 import FAMILY  # noqa: E402
from eraseanything.erase_core.models.flux1.forward import velocity  # noqa: E402
from eraseanything.nodes import hosts, load  # noqa: E402
from eraseanything.nodes.hosts import flux1  # noqa: E402

FLUX = BASE / "models" / "diffusion_models" / "miniflux_transformer.safetensors"
PROMPTS = ["a tiger on a red background", "two cats left of a car, a mosaic"]
SIGMA = torch.tensor([0.9, 0.4])
ANY_WIDTH = load.reads_width(comfy.utils.load_torch_file(str(FLUX)))
HELD: dict[str, Any] = {}  # what the test's own nodes hand into and out of graphs


def unet(dtype: str = "default", path: Path = FLUX) -> Any:
    """A MODEL of UNETLoader's, as the executor has it made.

    0.3.64 takes every Flux for one of full width; there it is Load Flux's.
    """
    with torch.inference_mode():
        if ANY_WIDTH:
            return host_nodes.UNETLoader().load_unet(path.name, dtype)[0]
        return load.load_small(str(path), load.DTYPES[dtype])


def standalone(dtype: torch.dtype = torch.float32) -> Any:
    return miniflux.load(dtype)


def tree_of(model: Any) -> Any:
    """A MODEL as a tree with the core's names."""
    return flux1.tree(model, hosts.sizes(model))


def latents() -> Any:
    return torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))


def said(make: Any) -> str:
    try:
        make()
    except EraseError as error:
        return str(error)
    return ""


def random_lora(config: Any, scale: float = 0.05) -> Any:
    """An eraser that changes something."""
    slots = FAMILY.slots(config, ["add_q_proj", "add_k_proj"])
    lora = EraserLora.create(slots, 4, seed=0)
    shaken(lora, scale)
    return lora


def sampled(model: Any, x: Any, cond: Any) -> Any:
    """The velocity that the host itself computes: (x - denoised) / sigma."""
    hosts.load(model)
    with torch.inference_mode():
        guidance = torch.full((len(x),), 3.5)
        denoised = model.model.apply_model(
            x, SIGMA, c_crossattn=cond.context, y=cond.pooled, guidance=guidance
        )
        return ((x - denoised) / SIGMA[:, None, None, None]).clone()


def relative(a: Any, b: Any) -> float:
    return float((a - b).norm() / b.norm())


def shaken(eraser: Any, size: float) -> None:
    """Add the same random numbers, as large as ``size``, to an eraser's parameters."""
    generator = torch.Generator().manual_seed(1)
    for parameter in eraser.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)


def small_vision() -> Any:
    """A small vision model of the host's, of the width of MiniFlux's CLIP."""
    sizes = {
        "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "patch_size": 32,
        "num_hidden_layers": 2, "image_size": 224, "projection_dim": 128, "num_channels": 3,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "model_type": "clip_vision_model",
    }  # fmt: skip
    config = OUT.parent / "vision.json"
    config.write_text(json.dumps(sizes))
    vision = comfy.clip_vision.ClipVisionModel(str(config))
    for parameter in vision.model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    return vision


def gradients(tree: Any, config: Any, cond: Any) -> Any:
    """Of the LoRA's parameters for a loss of the velocity."""
    lora = random_lora(config)
    out = velocity(tree, latents(), SIGMA, cond, 3.5, eraser=lora)
    out.square().mean().backward(inputs=lora.parameters())
    return torch.cat([p.grad.flatten() for p in lora.parameters()])


class Given:
    """Hands a MODEL, CLIP and VAE of ours into a graph."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {})}}

    def give(self, name: str) -> Any:
        return HELD[name]


def execute(graph: dict[str, Any]) -> Any:
    """Run a graph with the host's executor; the executor, for its outcome."""
    known = inspect.signature(execution.PromptExecutor).parameters
    cache = {"cache_args": {"lru": 0, "ram": 0, "ram_inactive": 0}}
    runner = execution.PromptExecutor(SERVER, **(cache if "cache_args" in known else {}))
    outputs = [key for key, value in graph.items() if value["class_type"].startswith("EraseAny")]
    runner.execute(graph, f"run{len(HELD)}", {"client_id": "page"}, outputs)
    return runner


def digest(model: Any) -> str:
    """SHA-256 of all weights, LoRAs taken out."""
    with torch.inference_mode():
        comfy.model_management.unload_all_models()
    found = hashlib.sha256()
    for key, tensor in sorted(model.model.state_dict().items()):
        found.update(key.encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def know_our_nodes() -> None:
    """Let the host run graphs with our nodes and Given."""

    async def ours() -> Any:
        return await (await PACK.comfy_entrypoint()).get_node_list()

    known = {node.GET_SCHEMA().node_id: node for node in asyncio.run(ours())}
    host_nodes.NODE_CLASS_MAPPINGS |= known | {"Given": Given}


def failure(runner: Any) -> str:
    errors = (data for name, data in runner.status_messages if name == "execution_error")
    return str(next(errors, {"exception_message": ""})["exception_message"])


def main(functions: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name, measure in list(functions.items()):
        kind, _, what = name.partition("_")
        if what and kind == KIND:
            try:
                results[what] = measure()
            except Exception:
                results[what] = {"raised": traceback.format_exc()}
    OUT.write_text(json.dumps(results, indent=1))
