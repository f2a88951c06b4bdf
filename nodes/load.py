"""Load Flux: transformer, text encoders and VAE in one node, MiniFlux among them."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.supported_models
import comfy.text_encoders.flux
import comfy.utils
import folder_paths
import torch
from comfy import model_detection, sd1_clip
from comfy import model_management as management
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import ClipTarget
from comfy_api.latest import io
from transformers import PreTrainedTokenizerFast

from ..erase_core.errors import EraseError
from ..erase_core.miniatures import miniflux
from . import hosts, inputs
from .hosts import flux1, flux2, zimage

MINIFLUX = "MiniFlux (bundled)"
DTYPES: dict[str, dict[str, Any]] = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
    "bf16": {"dtype": torch.bfloat16},
    "fp32": {"dtype": torch.float32},
}


class LoadFlux(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingLoadFlux",
            display_name="Load Flux",
            category=inputs.CATEGORY,
            description=(
                "Loads a Flux transformer with its text encoders and VAE, ready to train on. "
                "MiniFlux is bundled: a tiny Flux that draws 128 px pictures and needs no download."
            ),
            inputs=[
                io.Combo.Input(
                    "transformer",
                    options=_choices("diffusion_models"),
                    default=MINIFLUX,
                    tooltip="The model: MiniFlux, or a FLUX.1-dev or -schnell file from "
                    "models/diffusion_models (bf16, fp8 or scaled fp8). MiniFlux brings its own "
                    "encoders and VAE; the other choices are then not looked at.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip="How the transformer's weights are kept. default: as in the file; fp8 "
                    "halves the memory. Training computes in the host's precision either way.",
                ),
                io.Combo.Input(
                    "clip_l",
                    options=_choices("text_encoders"),
                    default=MINIFLUX,
                    tooltip="The CLIP-L text encoder, e.g. clip_l.safetensors.",
                ),
                io.Combo.Input(
                    "t5",
                    options=_choices("text_encoders"),
                    default=MINIFLUX,
                    tooltip="The T5-XXL text encoder, e.g. t5xxl_fp16 or t5xxl_fp8_e4m3fn.",
                ),
                io.Combo.Input(
                    "vae",
                    options=_choices("vae"),
                    default=MINIFLUX,
                    tooltip="The autoencoder of Flux.1, ae.safetensors.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The transformer."),
                io.Clip.Output(display_name="clip", tooltip="CLIP-L and T5."),
                io.Vae.Output(display_name="vae", tooltip="The autoencoder."),
            ],
            **inputs.aliases("load flux", "miniflux", "diffusion model loader", "unet loader"),
        )

    @classmethod
    def execute(
        cls, transformer: str, weight_dtype: str, clip_l: str, t5: str, vae: str
    ) -> io.NodeOutput:
        with hosts.training():  # weights made here are no inference tensors
            if transformer == MINIFLUX:
                return io.NodeOutput(*load_miniflux(DTYPES[weight_dtype]))
            for what, name in (("clip_l", clip_l), ("t5", t5), ("vae", vae)):
                if name == MINIFLUX:
                    raise EraseError(
                        f"{transformer} needs its own encoders and VAE; choose a file for {what}."
                    )
            encoders = [_path("text_encoders", clip_l), _path("text_encoders", t5)]
            return io.NodeOutput(
                load_transformer(_path("diffusion_models", transformer), DTYPES[weight_dtype]),
                comfy.sd.load_clip(
                    encoders,
                    embedding_directory=folder_paths.get_folder_paths("embeddings"),
                    clip_type=comfy.sd.CLIPType.FLUX,
                ),
                load_vae(_path("vae", vae)),
            )


def load_transformer(path: str, options: dict[str, Any]) -> Any:
    """A Flux file as a MODEL through the host's own loader; EraseError for another kind."""
    for family in (flux2, zimage):
        family.refuse_in_old_hosts(Path(path))
    return _checked(comfy.sd.load_diffusion_model(path, model_options=dict(options)), path)


def _checked(model: Any, path: str) -> Any:
    """The MODEL, which now knows its file, if it is one that can be trained."""
    model.set_attachments(hosts.BASE, path)
    host = hosts.host_of(model)
    if host is not flux1.HOST:
        raise EraseError(
            f"{Path(path).name} is {host.family.label}, which this node does not load; take "
            f"{host.loaders}."
        )
    hosts.sizes(model)
    return model


def load_vae(path: str) -> Any:
    """A VAE file through the host's own class."""
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(path))
    vae.throw_exception_if_invalid()
    return vae


def load_miniflux(options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The bundled MODEL, CLIP and VAE."""
    return (
        load_small(str(miniflux.FOLDER / "transformer.safetensors"), options),
        load_miniflux_clip(),
        load_vae(str(miniflux.FOLDER / "vae.safetensors")),
    )


def reads_width(state: dict[str, Any]) -> bool:
    """Whether the host's own loader sees how wide a Flux is."""
    found = model_detection.detect_unet_config(state, "")["hidden_size"]
    return bool(found == len(state["img_in.weight"]))


def load_small(path: str, options: dict[str, Any]) -> Any:
    """A small Flux, also where the host takes every Flux for one of full width (0.3.64)."""
    state = comfy.utils.load_torch_file(path)
    if reads_width(state):
        return load_transformer(path, options)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    config: Any = flux1.HOST.family.sizes(shapes)
    sizes = model_detection.detect_unet_config(state, "") | {
        "hidden_size": config.hidden_size,
        "num_heads": config.num_heads,
        "context_in_dim": config.context_in_dim,
    }
    kind = comfy.supported_models.Flux(sizes)
    device, known = management.get_torch_device(), kind.supported_inference_dtypes
    dtype = options.get("dtype") or management.unet_dtype(supported_dtypes=known)
    kind.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, known))
    model = kind.get_model(state, "")
    model.load_model_weights(state, "")
    offload = management.unet_offload_device()
    return _checked(ModelPatcher(model, load_device=device, offload_device=offload), path)


def load_miniflux_clip() -> Any:
    """MiniFlux's encoders as a CLIP; their sizes come from the core's own reading of the files."""
    text = miniflux.load_text()
    clip, t5 = text.clip.config, text.t5.config
    options = {
        "clip_l_model_config": {
            "hidden_size": clip.hidden_size,
            "intermediate_size": clip.intermediate_size,
            "num_hidden_layers": clip.num_hidden_layers,
            "num_attention_heads": clip.num_attention_heads,
        },
        "t5xxl_model_config": {
            "d_model": t5.d_model,
            "d_ff": t5.d_ff,
            "num_heads": t5.num_heads,
            "num_layers": t5.num_layers,
            "vocab_size": t5.vocab_size,
        },
    }
    files = [
        comfy.utils.load_torch_file(str(miniflux.FOLDER / f"{name}.safetensors"))
        for name in ("clip_l", "t5xxl")
    ]
    files[0]["text_projection.weight"] = torch.eye(clip.hidden_size)  # Flux does not look at it
    target = ClipTarget(_MiniTokenizer, partial(_MiniEncoders, vocabulary=clip))
    if "state_dict" in inspect.signature(comfy.sd.CLIP).parameters:
        return comfy.sd.CLIP(target, state_dict=files, model_options=options)
    found = comfy.sd.CLIP(target, model_options=options)  # ComfyUI in 2025
    for file in files:
        found.load_sd(file)
    return found


class _MiniTokenizer(comfy.text_encoders.flux.FluxTokenizer):
    """Flux's pair of tokenizers with MiniFlux's vocabularies; 64 T5 tokens."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        self.clip_l = sd1_clip.SDTokenizer(
            str(miniflux.FOLDER / "clip_l_tokenizer"), tokenizer_class=PreTrainedTokenizerFast
        )
        self.t5xxl = sd1_clip.SDTokenizer(
            str(miniflux.FOLDER / "t5xxl_tokenizer"),
            tokenizer_class=PreTrainedTokenizerFast,
            embedding_key="t5xxl",
            has_start_token=False,
            pad_with_end=False,
            pad_to_max_length=False,
            max_length=99999999,  # as in the host: longer prompts are the user's business
            min_length=miniflux.T5_LENGTH,
        )


class _MiniEncoders(comfy.text_encoders.flux.FluxClipModel):
    """Flux's pair of encoders with a small CLIP vocabulary, which the host's options leave out."""

    def __init__(self, vocabulary: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        embeddings = self.clip_l.transformer.text_model.embeddings
        old = embeddings.token_embedding
        embeddings.token_embedding = type(old)(
            vocabulary.vocab_size,
            old.embedding_dim,
            dtype=old.weight.dtype,
            device=old.weight.device,
        )
        end = vocabulary.eos_token_id  # where the pooled vector is read
        self.clip_l.special_tokens = {"start": vocabulary.bos_token_id, "end": end, "pad": end}


def _choices(folder: str) -> list[str]:
    return [MINIFLUX, *folder_paths.get_filename_list(folder)]


def _path(folder: str, name: str) -> str:
    return folder_paths.get_full_path_or_raise(folder, name)
