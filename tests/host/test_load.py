"""Load Flux, given a file that is another family's."""

from __future__ import annotations

import shutil

import torch
from host.client import Client
from host.conftest import HOST
from host.graphs import node

from erase_core.miniatures import miniflux
from erase_core.models.flux1.names import file_keys
from erase_core.models.flux2.config import Flux2Config
from erase_core.models.flux2.tree import Flux2
from erase_core.tensors import save_tensors

SMALL = Flux2Config(context_in_dim=96, hidden_size=256, num_heads=2, depth=1, depth_single_blocks=1)


def test_flux2_is_told_also_where_the_host_has_none(server: Client) -> None:
    models = server.base / "models"
    (models / "text_encoders").mkdir(exist_ok=True)
    for name in ("clip_l", "t5xxl"):
        file = miniflux.FOLDER / f"{name}.safetensors"
        shutil.copy(file, models / "text_encoders" / f"miniflux_{name}.safetensors")
    torch.manual_seed(0)
    save_tensors(
        models / "diffusion_models" / "klein.safetensors", file_keys(Flux2(SMALL).state_dict())
    )
    run = server.run(
        {
            "load": node(
                "EraseAnythingLoadFlux",
                transformer="klein.safetensors",
                weight_dtype="default",
                clip_l="miniflux_clip_l.safetensors",
                t5="miniflux_t5xxl.safetensors",
                vae="miniflux_vae.safetensors",
            ),
            "shown": node("PreviewAny", source=["load", 0]),
        }
    )
    known = "class Flux2(" in (HOST / "comfy" / "model_base.py").read_text("utf-8")
    told = "which this node does not load; take Load Diffusion Model" if known else "too old for"
    assert not run.ok and told in run.error and run.error.startswith("klein.safetensors is FLUX.2")
