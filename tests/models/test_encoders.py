"""Text encoders: held as the file has them, computing in float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel

from erase_core.errors import EraseError
from erase_core.miniatures.miniflux import FOLDER, load_text
from erase_core.models.flux1.text import _StoredLinear, load_t5
from erase_core.models.frozen import to_fp8

T5 = FOLDER / "t5xxl.safetensors"
IDS = torch.arange(24).view(2, 12)
State = dict[str, Tensor]


def states(t5: T5EncoderModel) -> Tensor:
    with torch.no_grad():
        return t5(input_ids=IDS).last_hidden_state


def linears(model: nn.Module) -> list[_StoredLinear]:
    return [module for module in model.modules() if isinstance(module, _StoredLinear)]


def dtypes(model: nn.Module) -> set[torch.dtype]:
    """Of the matrices as they are held."""
    return {module.stored.dtype for module in linears(model)}


def cast(state: State, dtype: torch.dtype) -> State:
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def scaled(state: State) -> State:
    """Matrices in fp8 with a scale each, as in t5xxl_fp8_e4m3fn_scaled."""
    made = {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in state.items():
        made[name] = tensor
        if tensor.ndim == 2:
            made[name], scale = to_fp8(tensor)
            made[name.removesuffix("weight") + "scale_weight"] = torch.tensor(scale)
    return made


def widened(state: State) -> State:
    """What a file's tensors stand for, in float32."""
    scales = {n.removesuffix("scale_weight"): float(t) for n, t in state.items() if "scale_w" in n}
    return {
        name: tensor.float() * scales.get(name.removesuffix("weight"), 1.0)
        for name, tensor in state.items()
        if name.endswith(".weight")
    }


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "float8_e4m3fn", "scaled"])
def test_t5_keeps_its_files_dtype_and_computes_in_float32(kind: str, tmp_path: Path) -> None:
    plain = load_file(T5)
    made = scaled(plain) if kind == "scaled" else cast(plain, getattr(torch, kind))
    save_file(made, tmp_path / "t5.safetensors")
    save_file(widened(made), tmp_path / "wide.safetensors")
    t5, wide = load_t5(tmp_path / "t5.safetensors"), load_t5(tmp_path / "wide.safetensors")
    assert states(t5).dtype == torch.float32
    assert torch.equal(states(t5), states(wide))
    assert dtypes(t5) == {made["encoder.block.0.layer.0.SelfAttention.q.weight"].dtype}


def test_encoders_are_transformers_own() -> None:
    """The same numbers as plain float32 models in which nothing is replaced."""
    text = load_text()
    plain = T5EncoderModel(text.t5.config).eval()
    plain.load_state_dict(cast(load_file(T5), torch.float32), strict=False)
    assert torch.equal(states(text.t5), states(plain))
    clip = CLIPTextModel(text.clip.config).eval()
    old = any(name.startswith("text_model.") for name in clip.state_dict())  # transformers 4
    named = cast(load_file(FOLDER / "clip_l.safetensors"), torch.float32)
    clip.load_state_dict({n if old else n.removeprefix("text_model."): t for n, t in named.items()})
    with torch.no_grad():
        ids = torch.tensor([[3, 5, text.clip_tokenizer.eos_token_id]])
        assert torch.equal(clip(input_ids=ids).pooler_output, text.clip(ids).pooler_output)
    assert dtypes(text.t5) == dtypes(text.clip) == {torch.float16}


def test_on_another_device_matrices_stay_in_the_file() -> None:
    """The meta device stands in for a card. It computes no numbers, and takes a matrix that is
    elsewhere; so what the layers use is looked at, too."""
    text = load_text().to("meta")
    assert {p.device.type for p in (*text.t5.parameters(), *text.clip.parameters())} == {"meta"}
    matrices = (*linears(text.t5), *linears(text.clip))
    assert {m.stored.device.type for m in matrices} == {"cpu"}
    there = [m.used(torch.empty(1, m.in_features, device="meta")) for m in matrices]
    assert {t.device.type for pair in there for t in pair if t is not None} == {"meta"}
    with torch.no_grad():
        cond = text.embed(["a photo of a cat", "a dog"])
    assert cond.context.device.type == cond.pooled.device.type == "meta"
    assert cond.context.shape == (2, text.t5_length, text.t5.config.d_model)


def test_integers_are_refused(tmp_path: Path) -> None:
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    save_file(load_file(T5) | {name: torch.ones(256, 256).to(torch.int8)}, tmp_path / "t5.st")
    with pytest.raises(EraseError, match="t5.st is quantised in a way"):
        load_t5(tmp_path / "t5.st")


def test_folders_of_a_pipeline_hold_the_same_encoders(tmp_path: Path) -> None:
    """As transformers writes them, in shards."""
    text = load_text()
    plain = T5EncoderModel(text.t5.config)
    plain.load_state_dict(cast(load_file(T5), torch.float32), strict=False)
    plain.save_pretrained(tmp_path, max_shard_size="4MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(states(load_t5(tmp_path)), states(load_t5(T5)))
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(EraseError, match="There is no file .*-of-"):
        load_t5(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(EraseError, match=r"There is no model\.safetensors or"):
        load_t5(tmp_path)
