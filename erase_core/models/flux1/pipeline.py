"""What FLUX.1 has beside its transformer: CLIP-L, T5, their tokenizers and an autoencoder."""

from __future__ import annotations

import os
from pathlib import Path
from ssl import SSLError
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch

from ...errors import EraseError
from ...tensors import read_weights
from ..base import VAE
from ..tokens import read_tokenizer
from .autoencoder import Autoencoder
from .config import FluxConfig
from .taesd import load_tiny
from .text import TextEncoders, load_clip, load_t5

if TYPE_CHECKING:
    from ..files import Files

PATIENCE = 5  # seconds until the hub must have answered
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


def read_text(files: Files, config: FluxConfig, device: torch.device) -> TextEncoders:
    """The text encoders with their tokenizers; EraseError when they do not fit the transformer."""
    text = _text(files)
    _check(config, text)
    return text.to(device) if device.type == "cuda" else text


def _check(config: FluxConfig, text: TextEncoders) -> None:
    """Refuse encoders of other widths than the transformer was made for, and tokenizers with more
    words than an encoder."""
    check_tokenizer("CLIP", text.clip_tokenizer, text.clip)
    check_tokenizer("T5", text.t5_tokenizer, text.t5)
    check_width("CLIP", "--clip-l", text.clip.config.hidden_size, config.vec_in_dim)
    check_width("T5", "--t5", text.t5.config.d_model, config.context_in_dim)


def check_tokenizer(what: str, tokenizer: Any, encoder: Any) -> None:
    """Refuse a tokenizer with more words than its encoder."""
    if max(tokenizer.get_vocab().values(), default=0) >= encoder.config.vocab_size:
        raise EraseError(
            f"The tokenizer for {what} has more words than the encoder; choose the one that "
            "belongs to it with --tokenizers."
        )


def check_width(what: str, flag: str, has: int, wants: int) -> None:
    """Refuse an encoder of another width than the transformer reads."""
    if has != wants:
        raise EraseError(
            f"This {what} encoder is {has} wide, but the model reads {wants}; choose another "
            f"file with {flag}."
        )


def named(path: Path | None, flag: str) -> Path:
    """The file of a text encoder; EraseError, telling the ``flag``, where it is not named."""
    if path is None:
        raise EraseError(f"A model from a file needs its text encoders; name one with {flag}.")
    return path


def _text(files: Files) -> TextEncoders:
    clip_file, t5_file = named(files.clip_l, "--clip-l"), named(files.t5, "--t5")
    clip, t5 = find_tokenizer(files, CLIP), find_tokenizer(files, T5)
    return TextEncoders(
        clip=load_clip(clip_file, clip),
        clip_tokenizer=clip,
        t5=load_t5(t5_file),
        t5_tokenizer=t5,
        t5_length=files.t5_length,
    )


def find_tokenizer(files: Files, kind: Tokenizer) -> Any:
    """The first tokenizer there is: in a local folder, in a ComfyUI, on Hugging Face."""
    local = files.tokenizers or files.model
    for place in (local / name for name in kind.local):
        if not _lacks(place):
            return read_tokenizer(place)
    if files.tokenizers:
        folders = " or ".join(kind.local)
        raise EraseError(f"There is no whole {folders} in {local}; check --tokenizers.")
    host, lacks = os.environ.get(HOST), ""
    if host:
        place = Path(host) / kind.host
        lacks = _lacks(place)
        if not lacks:
            return read_tokenizer(place)
    return _download(kind, lacks)


def _download(kind: Tokenizer, lacks: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(kind.hub, local_files_only=not _hub_answers())
    except (OSError, ValueError) as error:
        there = f"{HOST} has no {kind.host}/{lacks}" if lacks else f"{HOST} names no ComfyUI"
        raise EraseError(
            f"The tokenizer {kind.hub} cannot be downloaded, and {there}; go online once, or name "
            "a folder that has it with --tokenizers."
        ) from error


def _hub_answers() -> bool:
    """Whether Hugging Face can be reached. Its own library tries for most of a minute, aloud, also
    where only its cache is of use."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=PATIENCE).close()
    except HTTPError:
        return True
    except URLError as error:
        return isinstance(error.reason, SSLError)  # the library may know its certificates
    except OSError:
        return False
    return True


def _lacks(folder: Path) -> str:
    """The file that a tokenizer's folder wants to be whole; "" when it is."""
    missing = [[n for n in row if not (folder / n).is_file()] for row in TOKENIZER_FILES]
    return (min(missing, key=len) or [""])[0]


def read_vae(path: Path) -> VAE:
    """The autoencoder in a file: Flux's own, or a tiny one in TAESD's layout."""
    if not any(name.startswith("taesd_decoder.") for name in read_weights(path)):
        return Autoencoder.load(path)
    return load_tiny(path)
