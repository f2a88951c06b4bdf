"""Erasure Preview: the same seeds at several strengths of an eraser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import comfy.utils
import torch
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ..erase_core.erasers.effect import changes, effect, moved
from ..erase_core.errors import EraseError
from ..erase_core.pictures import Row, grid
from . import drawing, eraser, hosts, inputs
from .language import said

MOST = 8  # strengths


class ErasurePreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingPreview",
            display_name="Erasure Preview",
            category=inputs.CATEGORY,
            description="Draws prompts from the same seeds with an eraser at several strengths, on "
            "one labelled sheet.",
            inputs=[
                io.Model.Input("model", tooltip="The untouched model."),
                io.Clip.Input("clip", tooltip="Its text encoders."),
                io.Vae.Input("vae", tooltip="Its autoencoder."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="a tiger on a green background\na car on a yellow background",
                    tooltip="One prompt a line.",
                ),
                io.String.Input(
                    "strengths",
                    default="0, 1",
                    tooltip="Strengths of the eraser, side by side; 0 is the model without it.",
                ),
                inputs.seed(2**63 - 100, "Seed of the first picture."),
                io.Int.Input("seeds", default=2, min=1, max=16, tooltip="Pictures of each prompt."),
                inputs.pixels_input("width"),
                inputs.pixels_input("height"),
                inputs.steps_input(),
                inputs.guidance_input(),
                io.Boolean.Input(
                    "blur", default=False, tooltip="Blur the pictures, for explicit concepts."
                ),
                *eraser.inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The labelled sheet."),
                io.Image.Output(
                    display_name="images",
                    tooltip="The pictures alone: strength after strength, prompt after prompt.",
                ),
                io.String.Output(
                    display_name="effect",
                    tooltip="Whether the eraser took effect, in a line: how many weights it "
                    "patches, and how far the pictures moved.",
                ),
            ],
            is_output_node=True,
            **inputs.aliases("compare", "xy plot", "before after", "grid"),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        prompts: str,
        strengths: str,
        seed: int,
        seeds: int,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        blur: bool,
        lora: Mapping[str, Tensor] | None = None,
        lora_file: str = eraser.NONE,
    ) -> io.NodeOutput:
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        levels = _numbers(strengths)
        if not lines:
            raise EraseError("There is no prompt; write at least one line.")
        found = eraser.require(lora, lora_file)
        size = hosts.picture_size(model, width, height)
        cond = hosts.text_encoder(model, clip).encode(lines)
        rows = [row for row in range(len(lines)) for _ in range(seeds)]
        drawn = [seed + i % seeds for i in range(len(rows))]
        bar = comfy.utils.ProgressBar(len(levels) * len(rows) * steps)
        made: list[Tensor] = []
        sharp: list[Tensor] = []
        patched = 0
        for level in levels:
            done = len(made) * len(rows) * steps
            with_it = eraser.apply(model, found, level)
            patched = max(patched, eraser.taken(model, with_it))
            images = drawing.draw(
                with_it,
                vae,
                cond.select(rows),
                drawn,
                size,
                steps,
                guidance,
                partial(drawing.further, bar, done),
            )
            sharp.append(images)
            made.append(
                drawing.to_image(*drawing.blurred(drawing.to_pil(images))) if blur else images
            )
        line = _effect(found, patched, levels, sharp)
        pictures = [drawing.to_pil(images) for images in made]
        sheet = drawing.to_image(_sheet(lines, levels, seeds, pictures, line))
        line = said(line)
        shown = ui.PreviewImage(sheet).as_dict() | {"text": [line]}
        return io.NodeOutput(sheet, torch.cat(made), line, ui=shown)


def _numbers(text: str) -> list[float]:
    """Numbers with commas or spaces between them."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise EraseError(f'"{text}" are no strengths; write numbers such as 0, 0.5, 1.') from None
    if not 1 <= len(numbers) <= MOST or not all(abs(number) <= 100 for number in numbers):
        raise EraseError(f"Give 1 to {MOST} strengths from -100 to 100.")
    return numbers


def _effect(
    found: Mapping[str, Tensor], patched: int, levels: list[float], drawn: list[Tensor]
) -> str:
    """Whether the eraser took effect, at the strength that is farthest from 0."""
    told = changes(found) or patched
    if not any(levels):
        return "The eraser is at strength 0 everywhere; add 1 to the strengths."
    strongest = max(levels, key=abs)
    if 0 not in levels:
        return effect(patched, told)
    distance = moved(drawn[levels.index(0)], drawn[levels.index(strongest)])
    return effect(patched, told, distance, strongest)


def _sheet(
    prompts: list[str],
    levels: list[float],
    seeds: int,
    drawn: list[list[Image.Image]],
    line: str,
) -> Image.Image:
    rows = []
    for number, prompt in enumerate(prompts):
        part = slice(number * seeds, (number + 1) * seeds)
        section = "" if number else line
        rows.append(Row(prompt, [pictures[part] for pictures in drawn], section=section))
    headings = [f"strength {level:g}" if level else "without" for level in levels]
    cell = min(256, drawn[0][0].height)
    return grid(rows, headings, cell=cell, theme=drawing.theme())
