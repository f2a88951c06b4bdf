"""Families are found by their folders, and know their own files from all others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import CONFIG, make_model, make_tree

import erase_core.models.files as files
from erase_core.errors import EraseError
from erase_core.evaluate.attacks.base import Target
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.miniatures import miniflux
from erase_core.models.base import Conditioning, OpenText
from erase_core.models.chroma import FAMILY as CHROMA
from erase_core.models.family import Family, families, published
from erase_core.models.files import Files, family_of, filled
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.names import NAMING, file_keys, skeleton
from erase_core.models.flux2 import FAMILY as FLUX2
from erase_core.models.qwen_image import FAMILY as QWEN_IMAGE
from erase_core.models.sd3 import FAMILY as SD3
from erase_core.models.zimage import FAMILY as ZIMAGE


def stranger(**changes: object) -> Family:
    """A family of one tensor, for models that nobody has made."""
    told = {"name": "strange", "label": "Strange", "published": ("Strange-1", "Strange-2")}
    own = {"owns": lambda shapes: "strange.weight" in shapes}
    return replace(FAMILY, **told | own | changes)  # type: ignore[arg-type]


def test_every_folder_is_found() -> None:
    assert families() == (CHROMA, FAMILY, FLUX2, QWEN_IMAGE, SD3, ZIMAGE)
    assert published([FAMILY]) == "FLUX.1-dev or FLUX.1-schnell"
    assert published([FAMILY, stranger()]) == "FLUX.1-dev, FLUX.1-schnell, Strange-1 or Strange-2"


@pytest.mark.parametrize("layout", ["bfl", "diffusers"])
def test_a_file_is_its_familys(layout: str, tmp_path: Path) -> None:
    state = make_tree().state_dict()
    named = file_keys(state) if layout == "bfl" else NAMING.to_diffusers(state, CONFIG)
    path = tmp_path / "a.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in named.items()}, path)
    assert family_of(path) is FAMILY


def test_each_family_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = stranger()
    monkeypatch.setattr(files, "families", lambda: (FAMILY, other))
    path = tmp_path / "a.safetensors"
    save_file({"strange.weight": torch.ones(2, 2)}, path)
    assert family_of(path) is other
    save_file({"strange.weight": torch.ones(2, 2), "strange.lora_A.weight": torch.ones(2)}, path)
    with pytest.raises(EraseError, match=r"a\.safetensors is a LoRA; choose"):
        family_of(path)


DIFFUSERS = {
    "FluxTransformer2DModel": [FAMILY],
    "ChromaTransformer2DModel": [CHROMA],
    "Flux2Transformer2DModel": [FLUX2],
    "ZImageTransformer2DModel": [ZIMAGE],
    "Lumina2Transformer2DModel": [],
    "LongCatImageTransformer2DModel": [],
    "SD3Transformer2DModel": [SD3],
    "SD3ControlNetModel": [SD3],  # which files.py calls by its name before
    "QwenImageTransformer2DModel": [QWEN_IMAGE],
    "HunyuanVideoTransformer3DModel": [],
}


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers_models_are_told_apart(name: str) -> None:
    """By the names and shapes of diffusers' own classes, two blocks of a kind."""
    kind = getattr(pytest.importorskip("diffusers"), name, None)
    if kind is None:
        pytest.skip(f"this diffusers has no {name}")
    counts = {"num_layers": 2, "num_single_layers": 2, "num_refiner_layers": 1, "n_layers": 2}
    known = kind.__init__.__wrapped__.__code__.co_varnames
    with torch.device("meta"):
        model = kind(**{what: count for what, count in counts.items() if what in known})
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert [family for family in families() if family.owns(shapes)] == DIFFUSERS[name]


def test_a_damaged_file_is_still_its_familys() -> None:
    shapes = {name: tuple(t.shape) for name, t in skeleton(CONFIG).state_dict().items()}
    assert FAMILY.owns({n: s for n, s in shapes.items() if not n.startswith("single_blocks")})


def test_a_pipelines_folder_fills_in_what_is_not_named(tmp_path: Path) -> None:
    for part in ("transformer", "text_encoder_2", "vae"):
        (tmp_path / part).mkdir()
    split = NAMING.to_diffusers(make_tree().state_dict(), CONFIG)
    tensors = {name: tensor.contiguous() for name, tensor in split.items()}
    save_file(tensors, tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    found = filled(Files(tmp_path, vae=Path("mine.safetensors")))
    assert found == Files(tmp_path, None, tmp_path / "text_encoder_2", Path("mine.safetensors"))


def test_prompts_may_have_no_pooled_vector() -> None:
    cond = Conditioning(torch.arange(6.0).reshape(2, 3, 1))
    both = Conditioning.cat([cond.select([1]), cond.to(torch.float64)])
    assert both.pooled is None and both.context.flatten(1).tolist() == [
        [3, 4, 5], [0, 1, 2], [3, 4, 5],
    ]  # fmt: skip


def test_attacks_ask_whether_encoders_can_be_looked_into() -> None:
    target = Target(miniflux.load(), RecogniserJudge(), None, "tiger")
    assert isinstance(target.encoders, OpenText)
    with pytest.raises(EraseError, match="tiny cannot be looked into, .* choose another attack"):
        print(replace(target, model=make_model()).encoders)


def test_open_encoders_give_what_they_encode() -> None:
    text = miniflux.load_text()
    prompts = ["a tiger", "a red car on a green background"]
    ids = text.tokens(prompts)
    assert ids.shape == (2, text.length)
    with torch.no_grad():
        states = text.states(text.table[ids])
    assert states.pooled is None
    torch.testing.assert_close(states.context, text.encode(prompts).context)
