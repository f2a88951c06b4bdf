"""Stable Diffusion 3.5 inside the host's own process; see inside.py.

    python sd3.py sd3 HOST PACKAGE BASE OUT

Small are the widths, the blocks and the text encoders; T5's words are MiniFlux's. The host fills
CLIP's states up to 4096 numbers, so that T5 has as many. The autoencoder is a stand-in.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import inside  # the host's process

# isort: split
import comfy.sd
import comfy.text_encoders.sd3_clip
import torch
from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from eraseanything.erase_core.miniatures import miniflux
from eraseanything.erase_core.models.base import Model
from eraseanything.erase_core.models.flux1.text import load_clip, load_t5
from eraseanything.erase_core.models.sd3 import FAMILY
from eraseanything.erase_core.models.sd3.config import SD3Config
from eraseanything.erase_core.models.sd3.text import ThreeEncoders, load_clip_g
from eraseanything.erase_core.models.sd3.tree import SD3
from eraseanything.erase_core.models.tokens import read_tokenizer
from eraseanything.erase_core.tensors import save_tensors
from eraseanything.nodes import hosts, load
from eraseanything.nodes.hosts import sd3
from eraseanything.nodes.hosts.base import base_file
from inside import BASE, HOST, PROMPTS, SIGMA, relative, said
from small import Small, ToyVae, random_weights, unet
from transformers import PreTrainedTokenizerFast

import nodes as host_nodes

CONFIG = SD3Config(vec_in_dim=128, hidden_size=128, depth=2, dual=(0,), positions=16)
PATH = BASE / "models" / "diffusion_models" / "sd3.5_toy.safetensors"
ENCODERS = BASE / "models" / "text_encoders"
T5_WORDS = miniflux.FOLDER / "t5xxl_tokenizer"
CLIP = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 1,
}  # fmt: skip
T5 = {"d_ff": 48, "num_heads": 1, "num_layers": 2, "vocab_size": 391}

TREE = random_weights(SD3(CONFIG))
with torch.no_grad():
    TREE.pos_embed.copy_(torch.randn(TREE.pos_embed.shape))
    TREE.x_embedder.proj.weight.mul_(3)
save_tensors(PATH, TREE.state_dict())


class Tokenizer(comfy.text_encoders.sd3_clip.SD3Tokenizer):
    """The host's three tokenizers, T5's with fewer words."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = {}) -> None:  # noqa: B006
        super().__init__(embedding_directory, tokenizer_data)
        self.t5xxl = sd1_clip.SDTokenizer(
            str(T5_WORDS), tokenizer_class=PreTrainedTokenizerFast, embedding_key="t5xxl",
            has_start_token=False, pad_with_end=False, pad_to_max_length=False,
            max_length=99999999, min_length=77,
        )  # fmt: skip


def fresh_clip(**kept: bool) -> Any:
    """The host's CLIP of Stable Diffusion 3, or one without some of its encoders."""
    kinds = {"clip_l": True, "clip_g": True, "t5": True} | kept
    target = ClipTarget(Tokenizer, comfy.text_encoders.sd3_clip.sd3_clip(**kinds))
    options = {"clip_l_model_config": CLIP, "clip_g_model_config": CLIP, "t5xxl_model_config": T5}
    clip = comfy.sd.CLIP(target, model_options=options | {"dtype": torch.float32})
    for name in sd3.ENCODERS:
        inner = getattr(clip.cond_stage_model, name)
        if inner is not None:
            scatter(inner.transformer)
    return clip


def scatter(encoder: Any) -> None:
    """Random weights, of norms about one."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in encoder.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        norm = "norm" in name and name.endswith("weight")
        parameter.data.copy_(1 + 0.3 * noise if norm else 0.1 * noise)


@cache
def make_clip() -> Any:
    """One with all three, which are written to files."""
    clip = fresh_clip()
    for name in sd3.ENCODERS:
        inner = getattr(clip.cond_stage_model, name).transformer
        save_tensors(ENCODERS / f"{name}_toy.safetensors", inner.state_dict())
    return clip


def make_text() -> Any:
    return sd3.Text(make_clip(), CONFIG)


def standalone() -> Model:
    """The same transformer in the core, with the host's text encoders."""
    return Model(FAMILY, TREE, CONFIG, make_text(), None, "sd", "", (64, 64), CONFIG.shift)


def latents() -> Any:
    return torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


def sampled(model: Any, x: Any, cond: Any) -> Any:
    """The velocity that the host itself computes: (x - denoised) / sigma."""
    hosts.load(model)
    with torch.inference_mode():
        denoised = model.model.apply_model(x, SIGMA, c_crossattn=cond.context, y=cond.pooled)
        return ((x - denoised) / SIGMA[:, None, None, None]).clone()


def sd3_text() -> dict[str, Any]:
    """The encoders in the host against ours, from the same files, with the host's own CLIP
    tokenizer."""
    prompts = [*PROMPTS, "", "a (tiger:1.5)", "a tiger in the snow " * 4]
    found = make_text().encode(prompts)
    files = [ENCODERS / f"{name}_toy.safetensors" for name in sd3.ENCODERS]
    words, t5_words = read_tokenizer(HOST / "comfy" / "sd1_tokenizer"), read_tokenizer(T5_WORDS)
    core = ThreeEncoders(
        load_clip(files[0], words), *load_clip_g(files[1], words), words, load_t5(files[2]),
        t5_words, 77,
    )  # fmt: skip
    ours = core.encode(prompts)
    mask = make_text().token_mask(PROMPTS[0], "tiger")
    ids = {name: rows[0] for name, rows in make_clip().tokenize(PROMPTS[0]).items()}
    places = mask.split(make_text().parts)
    picked = [
        [ids[name][row][0] for row in part.nonzero().flatten().tolist()]
        for name, part in (("l", places[0]), ("g", places[0]), ("t5xxl", places[1]))
    ]
    return {
        "shape": list(found.context.shape),
        "clip": relative(ours.context[:, :77], found.context[:, :77]),
        "t5": relative(ours.context[:, 77:], found.context[:, 77:]),
        "pooled": relative(ours.pooled, found.pooled),
        "spread": [float(part.std()) for part in (*found.context.split(77, 1), found.pooled)],
        "negative": relative(found.negative.context, found.context[-3:-2]),
        "words": [words.decode(picked[0]), words.decode(picked[1]), t5_words.decode(picked[2])],
        "same_mask": bool((core.token_mask(PROMPTS[0], "tiger") == mask).all()),
    }


SMALL = Small(
    "sd3",
    PATH.name,
    0.04,
    make_clip,
    standalone,
    latents,
    sampled,
    edited=("context_embedder", "joint_blocks.1.context_block.attn.qkv", "y_embedder.mlp.0"),
)
sd3_velocity, sd3_gradients, sd3_attention = SMALL.velocity, SMALL.gradients, SMALL.attention


def sd3_pictures() -> dict[str, Any]:
    return SMALL.pictures(ToyVae(), 4)


def sd3_nodes() -> dict[str, Any]:
    """Every node that opens a MODEL."""
    return SMALL.nodes(ToyVae(), 64, "0, 1")


def sd3_shift() -> list[Any]:
    """Of the schedule as it comes."""
    model = unet(PATH.name)
    opened = replace(standalone(), shift_mu=sd3.HOST.shift(model))
    theirs = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 8)
    return [opened.shift_mu, float((opened.sigmas(8) - theirs).abs().max())]


def sd3_narrow() -> float:
    """All matrices in fp8, as a file has them: through the host's layers, against its own pass."""
    path = PATH.with_name("sd3.5_toy_fp8.safetensors")
    state = TREE.state_dict()
    save_tensors(
        path, {n: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for n, t in state.items()}
    )
    model, cond = unet(path.name), make_text().encode(PROMPTS)
    theirs = sampled(model, latents(), cond)
    with torch.inference_mode(), hosts.training(), torch.no_grad():
        ours = hosts.open_model(model, make_clip()).velocity(latents(), SIGMA, cond)
    return relative(ours, theirs)


def sd3_checkpoint() -> dict[str, Any]:
    """The same in a checkpoint, through Load Checkpoint."""
    path = BASE / "models" / "checkpoints" / "sd3.5_toy_incl.safetensors"
    path.parent.mkdir(exist_ok=True)
    state = TREE.state_dict()
    save_tensors(path, {f"model.diffusion_model.{name}": t for name, t in state.items()})
    with torch.inference_mode():
        model = host_nodes.CheckpointLoaderSimple().load_checkpoint(path.name)[0]
    cond = make_text().encode(PROMPTS)
    theirs, file = sampled(model, latents(), cond), base_file(model)
    with torch.no_grad():
        ours = hosts.open_model(model, make_clip()).velocity(latents(), SIGMA, cond)
    return {"difference": relative(ours, theirs), "file": file.name if file else ""}


def sd3_distilled() -> dict[str, Any]:
    """The same file under the large turbo model's name."""
    path = PATH.with_name("sd3.5_large_turbo_toy.safetensors")
    path.write_bytes(PATH.read_bytes())
    opened = hosts.open_model(unet(path.name), make_clip())
    return {"steps": opened.family.steps, "notice": opened.family.notice}


def sd3_refusals() -> dict[str, str]:
    """What does not fit."""
    model, half, hidden = unet(PATH.name), unet(PATH.name), unet(PATH.name)
    half.model.manual_cast_dtype = torch.float16
    del hidden.model.diffusion_model.joint_blocks
    return {
        "flux": said(lambda: hosts.open_model(model, load.load_miniflux_clip())),
        "two": said(lambda: hosts.open_model(model, fresh_clip(t5=False))),
        "wide": said(lambda: sd3.Text(make_clip(), replace(CONFIG, vec_in_dim=64)).encode(["a"])),
        "clip": said(lambda: make_text().encode(["\u864e" * 60])),
        "t5": said(lambda: make_text().encode(["a tiger in the snow " * 19])),
        "half": said(lambda: hosts.open_model(half, make_clip())),
        "hidden": said(lambda: hosts.sizes(hidden)),
        "large": said(lambda: standalone().draw(["a tiger"], [1], size=(64, 512), steps=1)),
        "loader": said(lambda: load.load_transformer(str(PATH), {})),
    }


if __name__ == "__main__":
    inside.main(globals())
