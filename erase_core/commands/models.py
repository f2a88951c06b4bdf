"""Which model a command works with: the bundled MiniFlux, or the user's files."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import EraseError
from .numbers import HIGHEST_SEED, SIDE, STEPS, real, whole

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..flux.config import FluxConfig
    from ..lora import EraserLora
    from ..text.encoders import TextEncoders
    from ..training import Estimate, Trainer

MINIFLUX = "miniflux"
SIZE = (512, 512)
HOST = "COMFYUI_PATH"  # in the environment: the folder of a ComfyUI
# A tokenizer is whole with the files of one of these rows; transformers reads a part of one, too,
# and then knows no word.
TOKENIZER_FILES = (("vocab.json", "merges.txt"), ("tokenizer.json",))


class Tokenizer(NamedTuple):
    """Where a tokenizer is: sub-folders of a local folder, of a ComfyUI, its name on the hub."""

    local: tuple[str, ...]
    host: str
    hub: str


CLIP = Tokenizer(
    ("tokenizer", "clip_l_tokenizer"), "comfy/sd1_tokenizer", "openai/clip-vit-large-patch14"
)
T5 = Tokenizer(
    ("tokenizer_2", "t5xxl_tokenizer"), "comfy/text_encoders/t5_tokenizer", "google-t5/t5-base"
)


def add_model(parser: argparse.ArgumentParser) -> None:
    """``--model`` and the files beside it."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=MINIFLUX,
        metavar="miniflux|FILE",
        help="the bundled MiniFlux (default), a Flux.1 transformer (.safetensors, bf16 or fp8), or "
        "diffusers' Flux folder, which has all that is asked for below",
    )
    files = {"--clip-l": "CLIP-L text encoder", "--t5": "T5-XXL text encoder", "--vae": "VAE"}
    for flag, what in files.items():
        group.add_argument(
            flag, type=Path, metavar="FILE", help=f"{what} for a FILE, or its folder"
        )
    group.add_argument(
        "--tokenizers",
        type=Path,
        metavar="DIR",
        help="folder with tokenizer and tokenizer_2, as in diffusers' Flux folders; without it "
        "those of --model, if that is a folder, of the ComfyUI at COMFYUI_PATH, or downloaded from "
        "Hugging Face once",
    )
    group.add_argument(
        "--t5-length",
        type=whole(1, 4096),
        default=256,
        metavar="N",
        help="T5 tokens a prompt (default 256)",
    )
    add_device(group)


def add_device(parser: Any) -> None:
    """``--device`` and ``--deterministic``."""
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: the best there is)")
    parser.add_argument(
        "--deterministic", action="store_true", help="repeat exactly on CUDA too, slower"
    )


def add_memory(parser: argparse.ArgumentParser) -> None:
    """``--memory``: how much of the device a command may take."""
    parser.add_argument(
        "--memory",
        type=_gigabytes,
        default="auto",
        metavar="auto|GB",
        help="size of the card to fit into, e.g. 80, 24, 16 or 12 (default auto: what is free). "
        "Each step costs time: training recomputes activations, the base becomes fp8, blocks stay "
        "in main memory",
    )


def _gigabytes(text: str) -> float | str:
    """A positive number, or "auto"."""
    if text == "auto":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no size; write auto, or gigabytes such as 24")
    return value


def settle(args: argparse.Namespace, bundle: Bundle, trainer: Trainer) -> tuple[str, Estimate]:
    """Encode the prompts, let the text encoders go, and bring a model opened with ``placed=False``
    to the device, within ``--memory``.

    Returns how it is kept, in words, and what the run will take.
    """
    from ..training import estimate
    from ..training.memory import fit

    trainer.encode()
    bundle.text.release()
    placement, weights = fit(trainer, _budget(args, trainer.device))
    words = str(placement)
    if trainer.settings.activation_checkpointing:
        words += ", activations recomputed"
    return words, estimate(trainer, weights)


def settle_to_draw(
    args: argparse.Namespace, bundle: Bundle, size: tuple[int, int], *, probed: bool = False
) -> int:
    """Bring a model opened with ``placed=False`` to the device, within ``--memory``; returns how
    many pictures of ``size`` can be drawn at once."""
    from ..flux.forward import tree_device
    from ..training.memory import fit_to_draw

    budget = _budget(args, tree_device(bundle.tree))
    return fit_to_draw(bundle, size, budget, probed=probed)[1]


def _budget(args: argparse.Namespace, device: Any) -> float:
    """Bytes of the device that may be taken."""
    from ..training.memory import free_bytes

    return free_bytes(device) if args.memory == "auto" else args.memory * 1e9


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """What generation needs to know beside the prompt."""
    parser.add_argument(
        "--seed", type=whole(0, HIGHEST_SEED), default=0, help="seed of the noise (default 0)"
    )
    parser.add_argument(
        "--steps", type=whole(1, STEPS), default=28, help="Euler steps (default 28)"
    )
    parser.add_argument("--guidance", type=real(0, 100), default=3.5, help="default 3.5")
    parser.add_argument(
        "--size", type=size, metavar="WxH", help="pixels, multiples of 16 (default: the model's)"
    )
    parser.add_argument("--lora", type=Path, metavar="FILE", help="the eraser, or any Flux LoRA")
    parser.add_argument(
        "--strength", type=real(-100, 100), default=1.0, help="of the LoRA (default 1.0)"
    )


def size(text: str) -> tuple[int, int]:
    """ "512x768" as (height, width)."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    sides = [int(side) for side in match.groups()] if match else [0]
    if any(side % 16 or not 16 <= side <= SIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text} is no size; write e.g. 512x512, multiples of 16 up to {SIDE}"
        )
    return sides[1], sides[0]


def open_bundle(args: argparse.Namespace, *, placed: bool = True) -> Bundle:
    """The model that ``args`` name, ready to draw, a file without its hash.

    Without ``placed`` the transformer stays in main memory until :func:`settle` brings it to its
    device.
    """
    if args.model == MINIFLUX:
        return open_miniflux(args, placed)
    return _from_files(args, placed)


def open_miniflux(args: argparse.Namespace, placed: bool = True) -> Bundle:
    """The bundled model, on the device that ``args`` ask for or meant for it."""
    from ..miniflux import load

    bundle, device = load(), _device(args)
    _mean_for(bundle.tree.to(device) if placed else bundle.tree, device)
    return bundle


def _mean_for(tree: Any, device: Any) -> None:
    """Say where a tree computes; its weights may follow later."""
    tree.compute_device = device


def _device(args: argparse.Namespace) -> Any:
    import torch

    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # older torch asks for it
        torch.use_deterministic_algorithms(True)
    try:
        device = torch.device(args.device or _best_device())
        torch.zeros(1, device=device).item()  # "meta" makes tensors, too, but computes nothing
    except (RuntimeError, AssertionError) as error:
        raise EraseError(f"There is no device {args.device} here; try --device cpu.") from error
    return device


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _from_files(args: argparse.Namespace, placed: bool) -> Bundle:
    from ..bundle import Bundle
    from ..flux.load import load_flux
    from ..flux.sampling import DEV_SHIFT

    fill_from_folder(args)
    path, device = Path(args.model), _device(args)
    tree, config = load_flux(path, device if placed else "cpu")
    _mean_for(tree, device)
    text = _text(args)
    _check_widths(config, text)
    if device.type == "cuda":
        text.to(device)
    return Bundle(
        tree=tree,
        config=config,
        text=text,
        vae=_vae(args.vae),
        name=path.stem,
        sha256="",
        size=SIZE,
        shift_mu=DEV_SHIFT if config.guidance_embed else None,
    )


def fill_from_folder(args: argparse.Namespace) -> None:
    """What was not named comes from the pipeline's folder, if ``--model`` is one that has it."""
    for name, part in (("clip_l", "text_encoder"), ("t5", "text_encoder_2"), ("vae", "vae")):
        place = Path(args.model) / part
        if getattr(args, name) is None and place.is_dir():
            setattr(args, name, place)


def _check_widths(config: FluxConfig, text: TextEncoders) -> None:
    """Refuse encoders of other widths than the transformer was made for, and tokenizers with more
    words than an encoder."""
    for flag, what, has, wants in (
        ("--clip-l", "CLIP", text.clip.config.hidden_size, config.vec_in_dim),
        ("--t5", "T5", text.t5.config.d_model, config.context_in_dim),
    ):
        if has != wants:
            raise EraseError(
                f"This {what} encoder is {has} wide, but the model reads {wants}; choose another "
                f"file with {flag}."
            )
    for what, tokenizer, encoder in (
        ("CLIP", text.clip_tokenizer, text.clip),
        ("T5", text.t5_tokenizer, text.t5),
    ):
        if max(tokenizer.get_vocab().values(), default=0) >= encoder.config.vocab_size:
            raise EraseError(
                f"The tokenizer for {what} has more words than the encoder; choose the one that "
                "belongs to it with --tokenizers."
            )


def file_hash(path: Path) -> str:
    """SHA-256 of a model file, a minute for a big one; empty for a folder or a bundled model."""
    from ..files import sha256

    return sha256(path) if path.is_file() else ""


def _text(args: argparse.Namespace) -> TextEncoders:
    from ..text.encoders import TextEncoders, load_clip, load_t5

    for flag, given in (("--clip-l", args.clip_l), ("--t5", args.t5)):
        if given is None:
            raise EraseError(f"A model from a file needs its text encoders; name one with {flag}.")
    clip, t5 = _tokenizer(args, CLIP), _tokenizer(args, T5)
    return TextEncoders(
        clip=load_clip(args.clip_l, clip),
        clip_tokenizer=clip,
        t5=load_t5(args.t5),
        t5_tokenizer=t5,
        t5_length=args.t5_length,
    )


def _tokenizer(args: argparse.Namespace, kind: Tokenizer) -> Any:
    """The first tokenizer there is: in a local folder, in a ComfyUI, on Hugging Face."""
    from ..text.encoders import read_tokenizer

    local: Path = args.tokenizers or Path(args.model)
    for place in (local / name for name in kind.local):
        if not _lacks(place):
            return read_tokenizer(place)
    if args.tokenizers:
        folders = " or ".join(kind.local)
        raise EraseError(f"There is no whole {folders} in {local}; check --tokenizers.")
    host, lacks = os.environ.get(HOST), ""
    if host:
        place = Path(host) / kind.host
        lacks = _lacks(place)
        if not lacks:
            return read_tokenizer(place)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(kind.hub)
    except OSError as error:
        there = f"{HOST} has no {kind.host}/{lacks}" if lacks else f"{HOST} names no ComfyUI"
        raise EraseError(
            f"The tokenizer {kind.hub} cannot be downloaded, and {there}; go online once, or name "
            "a folder that has it with --tokenizers."
        ) from error


def _lacks(folder: Path) -> str:
    """The file that a tokenizer's folder wants to be whole; "" when it is."""
    missing = [[n for n in row if not (folder / n).is_file()] for row in TOKENIZER_FILES]
    return (min(missing, key=len) or [""])[0]


def _vae(path: Path | None) -> Any:
    """The autoencoder in a file: Flux's own, or a tiny one in TAESD's layout."""
    from ..files import read_weights
    from ..flux.autoencoder import Autoencoder
    from ..miniflux import load_vae

    if path is None:
        return None
    if not any(name.startswith("taesd_decoder.") for name in read_weights(path)):
        return Autoencoder.load(path)
    return load_vae(path)


def require_vae(bundle: Bundle) -> None:
    """Refuse to draw without an autoencoder."""
    if bundle.vae is None:
        raise EraseError("A picture needs an autoencoder; name one with --vae.")


def open_lora(args: argparse.Namespace, bundle: Bundle) -> EraserLora | None:
    """``--lora`` at ``--strength`` on the model's device, or None."""
    from ..flux.forward import tree_device
    from ..lora import EraserLora

    if args.lora is None:
        return None
    return (
        EraserLora.load(args.lora, bundle.config).to(tree_device(bundle.tree)).scaled(args.strength)
    )
