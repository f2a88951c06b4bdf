"""Erasure Report: what went, what stayed, counted."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.utils
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.evaluate.exam import Exam, Question
from ..erase_core.evaluate.marks import Marks, Role, verdict
from ..erase_core.pictures import Row, grid
from . import drawing, eraser, hosts, inputs, judging
from .language import said

# What a role counts; a score that is to go down or up, after the paper.
ROLES: dict[Role, str] = {
    "erased": "Acc_e \u2193 the concept",
    "held_out": "Acc_g \u2193 synonyms never trained on",
    "seen": "Acc_g \u2193 synonyms in training",
    "near": "Acc_ir \u2191 near neighbours",
    "other": "Acc_ir \u2191 everything else",
    "companion": "what stands beside the concept \u2191",
}
SHOWN = 3  # pictures of a role on the sheet


class Report(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingReport",
            display_name="Erasure Report",
            category=inputs.CATEGORY,
            description="Draws many prompts without and with an eraser and counts what is still "
            "recognised: the concept and its synonyms (should go), everything else (should stay). "
            "MiniFlux has its own recogniser; other models need CLIP vision or another judge.",
            inputs=_inputs(),
            outputs=[
                io.String.Output(display_name="table", tooltip="The scores for reading."),
                io.String.Output(display_name="json", tooltip="The scores for machines."),
                io.Image.Output(display_name="sheet", tooltip="Some of the pictures, with scores."),
            ],
            is_output_node=True,
            **inputs.aliases("evaluate", "score", "accuracy", "benchmark"),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        concepts: ConceptSet,
        count: int,
        seed: int,
        steps: int,
        guidance: float,
        strength: float,
        clip_vision: Any = None,
        lora: Mapping[str, Tensor] | None = None,
        lora_file: str = eraser.NONE,
        clip_l: Any = None,
        judge: str = judging.AUTO,
    ) -> io.NodeOutput:
        found = eraser.require(lora, lora_file)
        models = [model, eraser.apply(model, found, strength)]
        size = hosts.picture_size(model, 0, 0)
        text = hosts.text_encoder(model, clip)
        words = clip if clip_l is None else clip_l
        asked = judging.choose(judge, model, words, clip_vision)
        exams = [asked.exam(ConceptSet((c,)), count, seed) for c in concepts.concepts]
        bar = comfy.utils.ProgressBar(2 * steps * sum(len(exam.questions()) for exam in exams))
        results = []
        for exam in exams:
            cases = exam.questions()
            cond = text.encode([case.prompt for case in cases])
            seeds = [case.seed for case in cases]
            images = []
            for used in models:
                before = bar.current
                images.append(
                    drawing.draw(
                        used,
                        vae,
                        cond,
                        seeds,
                        size,
                        steps,
                        guidance,
                        partial(drawing.further, bar, before),
                    )
                )
            marks = [asked.mark(exam, drawing.to_bytes(i)) for i in images]
            results.append(_Result(exam, images, marks))
        return _output(results, asked.label)


@dataclass(frozen=True)
class _Result:
    """Pictures and marks without the eraser and with it."""

    exam: Exam[Question]
    images: list[Tensor]
    marks: list[Marks]


def _inputs() -> list[Any]:
    return [
        io.Model.Input("model", tooltip="The untouched model."),
        io.Clip.Input("clip", tooltip="Its text encoders."),
        io.Vae.Input("vae", tooltip="Its autoencoder."),
        io.Custom("ERASE_CONCEPTS").Input(
            "concepts", tooltip="What was to be erased, from a Concept Set."
        ),
        io.Int.Input(
            "count",
            default=16,
            min=2,
            max=1000,
            tooltip="Pictures for each score. More narrow the intervals.",
        ),
        inputs.seed(2**32 - 1, "Seed of prompts and pictures."),
        inputs.steps_input(),
        inputs.guidance_input(),
        io.Float.Input(
            "strength",
            default=1.0,
            min=-10.0,
            max=10.0,
            step=0.05,
            tooltip="Strength of the eraser.",
        ),
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip="CLIP-L's vision model (clip-vit-large-patch14), the judge for models "
            "other than MiniFlux.",
        ),
        *eraser.inputs(),
        io.Clip.Input(
            "clip_l",
            optional=True,
            tooltip="A CLIP with CLIP-L, which judges together with CLIP vision, for "
            "models that have none of their own (Chroma, FLUX.2 klein, Z-Image, Qwen-Image).",
        ),
        io.Combo.Input(
            "judge",
            options=judging.choices(),
            default=judging.AUTO,
            optional=True,
            tooltip="Who says what a picture shows: a folder in models/classifiers (image "
            "classifier or CLIP), or a vision model behind an endpoint. The environment "
            "names that one: ERASEANYTHING_VLM_URL, _MODEL and _KEY.",
        ),
    ]


def _output(results: list[_Result], judge: str) -> io.NodeOutput:
    report = {
        "version": 1,
        "judge": judge,
        "concepts": {
            result.exam.title: {
                "without": result.marks[0].to_dict(),
                "with": result.marks[1].to_dict(),
            }
            for result in results
        },
    }
    table = [["", "without", "with the eraser", "pictures"]]
    for result in results:
        table.append([f"“{result.exam.title}”", "", "", ""])
        table += _table(result)
    table = [[said(cell) for cell in line] for line in table]
    sheet = drawing.to_image(_sheet(results))
    verdicts = [said(verdict(result.exam.title, *result.marks)) for result in results]
    told = {"verdicts": verdicts, "table": table, "report": report}
    return io.NodeOutput(
        "\n".join([*verdicts, "", _plain(table)]),
        json.dumps(report, indent=2, ensure_ascii=False),
        sheet,
        ui=ui.PreviewImage(sheet).as_dict() | {"eraseanything_report": [told]},
    )


def _table(result: _Result) -> list[list[str]]:
    """Percent with 95 % intervals, a line for each role, and the harmonic mean."""
    lines = [
        [
            ROLES[role],
            *(str(marks.rates[role]).split(" of ")[0] for marks in result.marks),
            str(result.marks[0].rates[role].count),
        ]
        for role in result.exam.roles
    ]
    means = [f"{100 * marks.ho:.1f}" for marks in result.marks]
    return [*lines, ["Ho \u2191 harmonic mean", *means, ""]]


def _plain(table: list[list[str]]) -> str:
    """The table as text with columns."""
    widths = [max(_wide(line[column]) for line in table) for column in range(len(table[0]))]
    rows = (
        "  ".join(
            cell + " " * (width - _wide(cell)) for cell, width in zip(line, widths, strict=True)
        )
        for line in table
    )
    return "\n".join(row.rstrip() for row in rows)


def _wide(text: str) -> int:
    """Columns that a text takes; an East Asian letter takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _sheet(results: list[_Result]) -> Image.Image:
    """A few pictures of each role, without and with the eraser."""
    shown = min(SHOWN, *(len(cases) for r in results for cases in r.exam.roles.values()))
    rows = []
    for result in results:
        pictures = [drawing.to_pil(images) for images in result.images]
        start = 0
        for role, cases in result.exam.roles.items():
            groups = [drawn[start : start + shown] for drawn in pictures]
            start += len(cases)
            before, after = (marks.rates[role].value for marks in result.marks)
            section = f"“{result.exam.title}”  {ROLES[role]}    {before:.0%}, then {after:.0%}"
            note = "and other prompts" if shown > 1 else ""
            rows.append(Row(cases[0].prompt, groups, section=section, note=note))
    title = "Erasing " + ", ".join(f"“{result.exam.title}”" for result in results)
    cell = min(192, results[0].images[0].shape[1])
    return grid(rows, ("without", "with the eraser"), title=title, cell=cell, theme=drawing.theme())
