"""Load Flux, given a file that is another family's, also one that the host does not know."""

from __future__ import annotations

import shutil

import pytest
import torch
from host.client import Client
from host.conftest import HOST
from host.graphs import node

from erase_core.miniatures import miniflux
from erase_core.models.flux1.names import file_keys
from erase_core.models.flux2.config import Flux2Config
from erase_core.models.flux2.tree import Flux2
from erase_core.models.zimage.config import ZImageConfig
from erase_core.models.zimage.tree import ZImage
from erase_core.tensors import save_tensors

KLEIN = Flux2Config(context_in_dim=96, hidden_size=256, num_heads=2, depth=1, depth_single_blocks=1)
Z_IMAGE = ZImageConfig(context_in_dim=32, hidden_size=256, depth=1, refiners=1, mlp_width=256)
NEWER = {
    "FLUX.2 klein": ("model_base", "Flux2", lambda: file_keys(Flux2(KLEIN).state_dict())),
    "Z-Image": ("supported_models", "ZImage", lambda: ZImage(Z_IMAGE).state_dict()),
}


@pytest.mark.parametrize("label", NEWER)
def test_a_family_is_told_also_where_the_host_has_none(label: str, server: Client) -> None:
    module, kind, state = NEWER[label]
    known = f"class {kind}(" in (HOST / "comfy" / f"{module}.py").read_text("utf-8")
    if label == "Z-Image" and known:
        pytest.skip("this host knows it by its full width")
    models = server.base / "models"
    (models / "text_encoders").mkdir(exist_ok=True)
    for name in ("clip_l", "t5xxl"):
        file = miniflux.FOLDER / f"{name}.safetensors"
        shutil.copy(file, models / "text_encoders" / f"miniflux_{name}.safetensors")
    torch.manual_seed(0)
    save_tensors(models / "diffusion_models" / "newer.safetensors", state())
    run = server.run(
        {
            "load": node(
                "EraseAnythingLoadFlux",
                transformer="newer.safetensors",
                weight_dtype="default",
                clip_l="miniflux_clip_l.safetensors",
                t5="miniflux_t5xxl.safetensors",
                vae="miniflux_vae.safetensors",
            ),
            "shown": node("PreviewAny", source=["load", 0]),
        }
    )
    told = "which this node does not load; take Load Diffusion Model" if known else "too old for"
    assert not run.ok and told in run.error
    assert run.error.startswith(f"newer.safetensors is {label},")
