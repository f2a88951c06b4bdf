"""Attention Map: where the words of a prompt land in the picture."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import comfy.utils
import torch
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ..erase_core.concepts.spans import word_spans
from ..erase_core.errors import EraseError
from ..erase_core.models.attention import WordMaps, word_maps
from ..erase_core.pictures import overlay
from ..erase_core.pictures.words import enlarged, grey, highest, spread, tiled, word_grid
from . import drawing, hosts, inputs

WORDS = 40  # probed at most


class AttentionMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingAttentionMap",
            display_name="Attention Map",
            category=inputs.CATEGORY,
            description="Draws a prompt and shows, for each word, the share of attention that each "
            "place of the picture pays to it. Hover a word on the node to see where it lands.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A FLUX.1, FLUX.2 klein, Z-Image, Qwen-Image, SD3.5 or Chroma model, "
                    "with LoRAs or without.",
                ),
                io.Clip.Input("clip", tooltip=inputs.ENCODERS),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="a tiger on a green background",
                    tooltip="What to draw.",
                ),
                io.String.Input(
                    "words",
                    default="tiger",
                    tooltip="Words of the prompt with commas between them; several together count "
                    "as one. Empty: every word.",
                ),
                io.String.Input(
                    "blocks",
                    default="",
                    tooltip="Double blocks to look at, such as 0, 5-8. Empty: all.",
                ),
                io.String.Input(
                    "at_steps",
                    default="",
                    tooltip="Steps to look at, counted from 0, such as 0, 5-8. Empty: all.",
                ),
                inputs.steps_input(),
                inputs.pixels_input("width"),
                inputs.pixels_input("height"),
                inputs.seed(2**63 - 1, "Seed of the noise."),
                inputs.guidance_input(),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Shows the picture below the maps; without it they stand alone.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="overlays", tooltip="The picture with the heat, one a word."
                ),
                io.Image.Output(
                    display_name="grid", tooltip="Block by step, one sheet for each word."
                ),
                io.Mask.Output(
                    display_name="masks", tooltip="The heat, 1 at its highest, one a word."
                ),
            ],
            is_output_node=True,
            **inputs.aliases("attention", "heatmap", "daam", "explain"),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        prompt: str,
        words: str,
        blocks: str,
        at_steps: str,
        steps: int,
        width: int,
        height: int,
        seed: int,
        guidance: float,
        vae: Any = None,
    ) -> io.NodeOutput:
        if not prompt.strip():
            raise EraseError("The prompt is empty; write what to draw.")
        opened = hosts.open_model(model, clip)
        named = [word.strip() for word in words.split(",") if word.strip()]
        asked = list(dict.fromkeys(named or _words(prompt)))[:WORDS]
        every = list(dict.fromkeys([*asked, *_words(prompt)]))[:WORDS]
        tokens = torch.stack([opened.text.token_mask(prompt, word) for word in every])
        cond = opened.text.encode([prompt])
        size = hosts.picture_size(model, width, height)
        hosts.load(model, 1, size)
        bar = comfy.utils.ProgressBar(steps)  # which also hears of Cancel
        maps = word_maps(
            opened,
            opened.noise([seed], size),
            opened.sigmas(steps),
            cond,
            tokens,
            guidance,
            blocks=_indices("blocks", blocks),
            steps=_indices("at_steps", at_steps),
            on_step=bar.update_absolute,
        )
        picture = _picture(model, vae, maps, size)
        heats = dict(zip(every, maps.raw, strict=True))
        overlays = drawing.to_image(*(overlay(picture, heats[w], highest(heats[w])) for w in asked))
        labels = _labels(opened.config.depth, blocks, steps, at_steps)
        sheets = drawing.to_image(
            *(
                word_grid(picture, w, maps.parts[:, :, i], *labels, theme=drawing.theme())
                for i, w in enumerate(asked)
            )
        )
        masks = enlarged(maps.scaled()[: len(asked)], size)
        told = _viewer(prompt, picture if vae is not None else None, size, heats, asked)
        told |= _parts(maps, told["words"], labels)
        return io.NodeOutput(overlays, sheets, masks, ui={"eraseanything_attention": [told]})


def _words(prompt: str) -> list[str]:
    """The different words of a prompt, in order."""
    return list({word.casefold(): word for word in re.findall(r"\w[\w'’-]*", prompt)}.values())


def _indices(what: str, text: str) -> list[int] | None:
    """Numbers and ranges such as "0, 5-8"; None for an empty text."""
    found: list[int] = []
    for part in re.split(r"[,\s]+", text.strip()):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if part and not match:
            raise EraseError(f'{what} holds "{part}"; write numbers and ranges such as 0, 5-8.')
        if match:
            found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found)) or None


def _labels(depth: int, blocks: str, steps: int, at_steps: str) -> tuple[list[int], list[int]]:
    """Which blocks and steps were looked at, in the order of the maps."""
    watched = sorted(set(_indices("at_steps", at_steps) or range(steps)))
    return _indices("blocks", blocks) or list(range(depth)), watched


def _picture(model: Any, vae: Any, maps: WordMaps, size: tuple[int, int]) -> Image.Image:
    """What was drawn; a plain ground without a VAE."""
    if vae is None:
        return Image.new("RGB", (size[1], size[0]), (128, 128, 128))
    return drawing.to_pil(drawing.decode(model, vae, maps.latents))[0]


def _viewer(
    prompt: str,
    picture: Image.Image | None,
    size: tuple[int, int],
    heats: dict[str, Tensor],
    asked: Sequence[str],
) -> dict[str, Any]:
    """What the interactive viewer shows; see :mod:`.live`."""
    words = [
        {
            "text": word,
            "spans": [list(span) for span in word_spans(prompt, word)],
            "asked": word in asked,
            "top": float(heat.max()),
            "mean": float(heat.mean()),
            "heat": _url(grey(heat), "PNG"),
        }
        for word, heat in heats.items()
    ]
    shown = "" if picture is None else _url(picture, "JPEG")
    return {
        "prompt": prompt,
        "width": size[1],
        "height": size[0],
        "picture": shown,
        "words": words,
    }


def _parts(
    maps: WordMaps, words: list[dict[str, Any]], labels: tuple[list[int], list[int]]
) -> dict[str, Any]:
    """Blocks and steps for the viewer; gives each word its map at every one of them."""
    blocks, steps = labels
    picked = spread(len(steps))
    for index, word in enumerate(words):
        whole = tiled(maps.parts[picked, :, index])
        word |= {"parts": _url(grey(whole), "PNG"), "parts_top": float(whole.max())}
    return {"blocks": blocks, "steps": [steps[i] for i in picked]}


def _url(picture: Image.Image, kind: str) -> str:
    """A picture as a data URL."""
    buffer = BytesIO()
    picture.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
