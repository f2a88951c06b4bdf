"""FLUX.2's names in Black Forest Labs' and diffusers' schemes."""

from __future__ import annotations

import torch

from ..flux1.names import DOUBLE, OUTER, ROLES, SINGLE, Naming
from .config import Flux2Config
from .tree import Flux2

_TIME = "time_guidance_embed"
_OUTER = {
    **{name: parts for name, parts in OUTER.items() if "embed" not in parts[0]},
    "img_in": OUTER["img_in"],
    "txt_in": OUTER["txt_in"],
    "time_in.in_layer": (f"{_TIME}.timestep_embedder.linear_1",),
    "time_in.out_layer": (f"{_TIME}.timestep_embedder.linear_2",),
    "guidance_in.in_layer": (f"{_TIME}.guidance_embedder.linear_1",),
    "guidance_in.out_layer": (f"{_TIME}.guidance_embedder.linear_2",),
    **{
        f"{name}.lin": (f"{name}.linear",)
        for name in (
            "double_stream_modulation_img",
            "double_stream_modulation_txt",
            "single_stream_modulation",
        )
    },
}
_MLPS = {
    f"{ours}.{place}": (f"{theirs}.linear_{end}",)
    for ours, theirs in (("img_mlp", "ff"), ("txt_mlp", "ff_context"))
    for place, end in ((0, "in"), (2, "out"))
}
_NORMS = {name: parts for name, parts in SINGLE.items() if "_norm" in name}


def skeleton(config: Flux2Config) -> Flux2:
    """A FLUX.2 tree without storage (meta device), for its names and shapes."""
    with torch.device("meta"):
        return Flux2(config)


NAMING = Naming(
    outer=_OUTER,
    double={name: parts for name, parts in DOUBLE.items() if "_mod" not in name} | _MLPS,
    single=_NORMS | {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
    tree=skeleton,
)
# As FLUX.1's; there is no pooled vector to read.
FLUX2_ROLES = {role: pattern for role, pattern in ROLES.items() if role != "pooled_in"} | {
    "text.mlp_out": r"transformer_blocks\.\d+\.ff_context\.linear_out",
    "single.attention": r"single_transformer_blocks\.\d+\.attn\.to_qkv_mlp_proj",
}
# In both schemes q, k and v are the first rows of a matrix that holds the MLP's, too.
ROWS = {"single.attention": 3}
