"""Erase Concept (train)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ..erase_core import api
from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.errors import EraseError
from ..erase_core.methods.base import Folders, Method, find_method, methods
from ..erase_core.training.run_folder import checkpoints, own_run_folder, run_concepts
from ..erase_core.training.states import KeepPictures
from ..erase_core.writing import claim
from . import drawing, eraser, hosts, inputs, orders, places
from .job import Job, outlasted
from .live import Live
from .orders import DEFAULT

NEEDED, NEW, RESUME = "as needed", "start anew", "resume"
ADVANCED = ("width", "height", "folder", "image_prompts", "method", "blur", "extend_file")


class Train(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingTrain",
            display_name="Erase Concept (train)",
            category=inputs.CATEGORY,
            description=(
                "Trains a LoRA that makes a FLUX.1, FLUX.2 klein, Z-Image, Qwen-Image, SD3.5 or "
                "Chroma model forget what the concept set names and keep the rest. It is saved to "
                "the LoRA list; cancelling keeps the work done so far."
            ),
            inputs=inputs.advanced(_inputs(), *ADVANCED),
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,
            **inputs.aliases(
                "train lora", "unlearn", "erase", "forget concept", "concept ablation"
            ),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        concepts: ConceptSet,
        steps: int,
        width: int,
        height: int,
        seed: int,
        filename_prefix: str,
        folder: str,
        preview_every: int,
        run: str,
        settings: Mapping[str, Any] | None = None,
        vae: Any = None,
        images: Tensor | None = None,
        image_prompts: str = "",
        method: str = DEFAULT,
        blur: bool = False,
        extend: Mapping[str, Tensor] | None = None,
        extend_file: str = eraser.NONE,
    ) -> io.NodeOutput:
        prefix = filename_prefix.replace("%concept%", places.named_after(concepts))
        path = places.free_name(places.lora_folder(folder), prefix)
        workflow = ((cls.hidden.extra_pnginfo or {}).get("workflow") or {}).get("id") or ""
        live = Live(cls.hidden.unique_id, f"Erasing {orders.quoted(concepts)}", workflow)
        chosen = find_method(method)
        given = {"steps": steps, "width": width, "height": height}
        with (
            outlasted() as stopping,
            live.telling_errors(),
            claim(path),
            own_run_folder(orders.checkpoints(prefix)) as kept,
            hosts.training(),
        ):
            opened = hosts.open_model(model, clip)
            earlier = orders.earlier(eraser.choose(extend, extend_file), opened, method)
            concepts = earlier.growing_by(concepts) if earlier else concepts
            order = orders.order(opened, chosen, concepts, given, settings or {}, seed, earlier)
            job = Job(model, opened, vae, live, preview_every, stopping, blur)
            files = places.made(places.lora_folder(folder), prefix) if run == NEEDED else []
            if images is None and (made := orders.made(opened, chosen, order, files)):
                return job.use_again(concepts, *made)
            if chosen.is_run:  # a training run; a closed form has neither
                plan = chosen.suited(opened, concepts, order.preset, order.changes, earlier)
                size = (plan.height, plan.width)
                pictures = _keep_pictures(model, vae, images, image_prompts, size)
                order = replace(order, pictures=pictures, folders=Folders(kept, replaces=True))
            elif images is not None:
                raise EraseError(f"{chosen.label} takes no pictures of your own; disconnect them.")
            job.notes += orders.notes(model, opened, concepts)
            return job.run(_resumed(order, job) if run == RESUME else order, path)


def _resumed(order: api.Order, job: Job) -> api.Order:
    """The order for a run that goes on, or the same where there is nothing to resume."""
    folder = order.folders.checkpoints
    if folder is None or not checkpoints(folder):
        job.notes.append("There is nothing to resume under this name, so the run starts anew.")
        return order
    old = run_concepts(folder)
    if old != order.concepts:
        raise EraseError(
            f"The checkpoint erases {orders.quoted(old)} with other words than the concept set has "
            f"now; set run to {NEW}, or connect the set it was started with."
        )
    steps = {n: value for n, value in order.changes.items() if n == "steps"}
    return replace(order, changes=steps, folders=Folders(resume=folder), earlier=None)


def _inputs() -> list[Any]:
    return [
        *inputs.erased_inputs(),
        io.Int.Input(
            "steps",
            default=0,
            min=0,
            max=100_000,
            tooltip="Iterations, each erases and preserves once. 0: what suits the model and "
            "the concepts (400 for one thing).",
        ),
        _pixels("width"),
        _pixels("height"),
        *inputs.eraser_inputs(),
        io.Int.Input(
            "preview_every",
            default=50,
            min=0,
            max=100_000,
            tooltip="Iterations between two previews, the same seeds before and after. "
            "Needs the VAE. 0: none.",
        ),
        io.Combo.Input(
            "run",
            options=[NEEDED, NEW, RESUME],
            default=NEEDED,
            tooltip="as needed: a finished file of this name, made from the same model, concepts, "
            "settings and seed, is used again; else the node trains. It always trains a model with "
            "LoRAs, and with pictures of your own. start anew: what an unfinished run of this name "
            "left to resume from stays until this run has a checkpoint of its own. resume: go on "
            "from its newest checkpoint, with its concepts and settings; where there is none, the "
            "node says so and starts anew.",
        ),
        *_optional(),
    ]


def _optional() -> list[Any]:
    return [
        io.Custom("ERASE_SETTINGS").Input(
            "settings", optional=True, tooltip="Everything else, from Erase Settings."
        ),
        io.Vae.Input("vae", optional=True, tooltip="For previews, and for pictures of your own."),
        io.Image.Input(
            "images",
            optional=True,
            tooltip="Pictures of your own that must stay as they are. They take the place "
            "of the irrelevant words; needs the VAE.",
        ),
        io.String.Input(
            "image_prompts",
            optional=True,
            multiline=True,
            default="",
            tooltip="What your pictures show: one line for all, or one line for each.",
        ),
        io.Combo.Input(
            "method",
            options=[entry.name for entry in _products()],
            default=DEFAULT,
            optional=True,
            tooltip=" ".join(["How to erase.", *map(_told, _products())]),
        ),
        io.Boolean.Input(
            "blur",
            default=False,
            optional=True,
            tooltip="Blur the previews, for explicit concepts.",
        ),
        *eraser.older(),
    ]


def _outputs() -> list[Any]:
    return [
        io.Model.Output(display_name="model", tooltip="The model with the eraser applied."),
        io.Custom("LORA_MODEL").Output(
            display_name="lora",
            tooltip="The eraser, for Load LoRA Model, Erasure Preview and Combine Erasers.",
        ),
        io.Custom("LOSS_MAP").Output(
            display_name="loss", tooltip="The losses, for Plot Loss Graph."
        ),
        io.String.Output(display_name="file", tooltip="The file as the LoRA list names it."),
        io.Image.Output(display_name="chart", tooltip="The losses as curves."),
    ]


def _products() -> list[Method]:
    """The methods that people are offered."""
    return [method for method in methods().values() if method.product]


def _told(method: Method) -> str:
    """How a method's eraser comes about, and how long that takes."""
    taken = f", {method.cost.seconds:.0f} s for one thing on MiniFlux" if method.cost else ""
    return f"{method.name}: {method.made}{taken}."


def _pixels(name: str) -> Any:
    tooltip = (
        f"{name.capitalize()} of the pictures in training, in pixels. 0: what suits the model "
        "(512; 128 for MiniFlux)."
    )
    return io.Int.Input(name, default=0, min=0, max=4096, step=16, tooltip=tooltip)


def _keep_pictures(
    model: Any, vae: Any, images: Tensor | None, prompts: str, size: tuple[int, int]
) -> KeepPictures | None:
    """The user's pictures, cut and scaled to the training size, as latents."""
    if images is None:
        return None
    if vae is None:
        raise EraseError("Pictures of your own need the VAE; connect it.")
    lines = [line.strip() for line in prompts.splitlines() if line.strip()]
    if len(lines) not in (1, len(images)):
        raise EraseError(
            f"There are {len(images)} pictures and {len(lines)} lines in image_prompts; "
            "write one line for all, or one for each."
        )
    fitted = comfy.utils.common_upscale(
        images.clone().movedim(-1, 1), size[1], size[0], "area", "center"
    )
    latents = drawing.encode(model, vae, fitted.movedim(1, -1))
    return KeepPictures(latents, tuple(lines * (len(images) if len(lines) == 1 else 1)))
