"""A person without a card makes an eraser for FLUX.1's true widths, from files to file.

The files have random weights. True are all widths that a closed form meets: the transformer's 3072,
T5-XXL's 4096 with an MLP of 10240 and 64 heads, CLIP-L's 768. Scaled down are the depths (one block
each instead of 19 + 38, 24 and 12) and the words (MiniFlux's tokenizers), since a closed form never
runs the blocks, and a layer of an encoder costs the same as the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import TIGER

from erase_core.concepts.sets import ConceptSet
from erase_core.miniatures.miniflux import FOLDER
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.names import file_keys, skeleton
from erase_core.models.tokens import read_tokenizer
from erase_core.tensors import read_tensors, save_tensors

ROOT = Path(__file__).parents[2]
T5 = {"q": (4096, 4096), "k": (4096, 4096), "v": (4096, 4096), "o": (4096, 4096)}
MLP = {"wi_0": (10240, 4096), "wi_1": (10240, 4096), "wo": (4096, 10240)}


def rand(*shape: int) -> torch.Tensor:
    """Half precision, of unit length a row; a view of few numbers, so that files are made fast."""
    generator = torch.Generator().manual_seed(sum(shape))
    row = torch.randn(shape[-1] + shape[0], generator=generator) / shape[-1] ** 0.5
    return torch.stack([row[n : n + shape[-1]] for n in range(shape[0])]).half()


def write_transformer(path: Path) -> None:
    """Only what a closed form reads is random; the blocks are zeros, and nobody looks."""
    shapes = skeleton(FluxConfig(depth=1, depth_single_blocks=1)).state_dict()
    read = ("txt_in.weight", "vector_in.in_layer.weight")
    state = {
        key: (rand(*t.shape) if key in read else torch.zeros(t.shape)).to(torch.bfloat16)
        for key, t in shapes.items()
    }
    save_tensors(path, file_keys(state))


def write_t5(path: Path) -> None:
    words = len(read_tokenizer(FOLDER / "t5xxl_tokenizer").get_vocab())
    block = "encoder.block.0.layer"
    state = {f"{block}.0.SelfAttention.{name}.weight": rand(*s) for name, s in T5.items()}
    state |= {f"{block}.1.DenseReluDense.{name}.weight": rand(*s) for name, s in MLP.items()}
    norms = [f"{block}.0.layer_norm", f"{block}.1.layer_norm", "encoder.final_layer_norm"]
    state |= {f"{norm}.weight": torch.ones(4096).half() for norm in norms}
    bias = f"{block}.0.SelfAttention.relative_attention_bias.weight"
    state |= {"shared.weight": torch.randn(words, 4096).half(), bias: rand(32, 64)}
    save_tensors(path, state)


def write_clip(path: Path) -> None:
    words = len(read_tokenizer(FOLDER / "clip_l_tokenizer").get_vocab())
    layer, inner = "text_model.encoder.layers.0", {"fc1": (3072, 768), "fc2": (768, 3072)}
    linears = {f"self_attn.{part}_proj": (768, 768) for part in ("q", "k", "v", "out")}
    linears |= {f"mlp.{name}": shape for name, shape in inner.items()}
    state = {f"{layer}.{name}.weight": rand(*shape) for name, shape in linears.items()}
    state |= {f"{layer}.{name}.bias": torch.zeros(s[0]).half() for name, s in linears.items()}
    for norm in (f"{layer}.layer_norm1", f"{layer}.layer_norm2", "text_model.final_layer_norm"):
        state |= {f"{norm}.weight": torch.ones(768).half(), f"{norm}.bias": torch.zeros(768).half()}
    table = "text_model.embeddings"
    state[f"{table}.token_embedding.weight"] = torch.randn(words, 768).half()
    state[f"{table}.position_embedding.weight"] = 0.1 * torch.randn(77, 768).half()
    save_tensors(path, state)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("files")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_transformer(folder / "flux1-random.safetensors")
        write_t5(folder / "t5xxl.safetensors")
        write_clip(folder / "clip_l.safetensors")
    ConceptSet((TIGER,)).save(folder / "tiger.json")
    yield folder
    for path in folder.glob("*.safetensors"):
        path.unlink()


def command(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """``eraseanything`` in a process of its own, which says its most memory at the end."""
    code = (
        "import sys; from erase_core.cli.main import main; from erase_core.machine import "
        "peak_memory; code = main(sys.argv[1:]); "
        "print('PEAK', peak_memory(), file=sys.stderr); sys.exit(code)"
    )
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "ERASEANYTHING_CACHE": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    argv = [sys.executable, "-c", code, *more]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, cwd=folder)


@pytest.mark.slow
def test_from_files_to_file_without_a_card(files: Path) -> None:
    base = ["--model", "flux1-random.safetensors", "--clip-l", "clip_l.safetensors"]
    base += ["--t5", "t5xxl.safetensors", "--tokenizers", str(FOLDER), "--t5-length", "32"]
    wanted = ["train", "--concepts", "tiger.json", "--method", "speed", *base]
    few = ["--set", "prompts=3", "kept=1"]
    first = command(files, *wanted, *few, "--out", "tiger.safetensors")
    assert first.returncode == 0, first.stderr[-2000:]
    assert "prompts to encode: " in first.stdout and "TFLOP" in first.stdout
    assert int(first.stderr.split("PEAK ")[1]) < 4e9
    tensors, metadata = read_tensors(files / "tiger.safetensors")
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    assert shapes == {
        "diffusion_model.txt_in.diff": (3072, 4096),
        "diffusion_model.vector_in.in_layer.diff": (3072, 768),
    }
    assert all(t.isfinite().all() and t.any() for t in tensors.values())
    assert json.loads(metadata["erase.concepts"])["concepts"][0]["name"] == "tiger"

    again = command(files, *wanted, *few, "rank=8", "--out", "small.safetensors")
    assert again.returncode == 0, again.stderr[-2000:]
    assert "prompts are known already" in again.stdout
    assert "misses" in again.stdout
    small, _ = read_tensors(files / "small.safetensors")
    assert small["transformer.context_embedder.lora_A.weight"].shape == (8, 4096)
    told = command(
        files, "inspect", "small.safetensors", "--model", "flux1-random.safetensors", "--json"
    )
    assert told.returncode == 0 and json.loads(told.stdout)["warning"] is None
