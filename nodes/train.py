"""Erase Concept (train)."""

from __future__ import annotations

import atexit
import logging
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io, ui
from torch import Tensor

from ..erase_core import api
from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.erasers.metadata import final_losses
from ..erase_core.errors import EraseError
from ..erase_core.methods.base import Method, find_method, methods
from ..erase_core.models.base import Model
from ..erase_core.models.offload import Weights
from ..erase_core.pictures import Row, grid, loss_chart
from ..erase_core.tensors import read_tensors
from ..erase_core.training.estimate import Run, peak_bytes
from ..erase_core.training.memory import USED, Kept
from ..erase_core.training.preview import Preview
from ..erase_core.training.progress import Progress
from ..erase_core.training.result import Result
from ..erase_core.training.run_folder import (
    checkpoints,
    own_run_folder,
    remove_checkpoints,
    run_concepts,
)
from ..erase_core.training.states import KeepPictures
from ..erase_core.writing import claim
from . import drawing, hosts, inputs, places
from .eraser import Eraser, apply
from .live import NAMES, POINTS, Live
from .settings import changes

NEW, RESUME = "start anew", "resume"
DEFAULT = "eraseanything"
LAST_STEP = 120  # seconds that a server waits for it when it ends


class Train(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingTrain",
            display_name="Erase Concept (train)",
            category=inputs.CATEGORY,
            description=(
                "Trains a LoRA that makes a Flux model forget what the concept set names and keep "
                "the rest. It is saved to the LoRA list; cancelling keeps the work done so far."
            ),
            inputs=_inputs(),
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
    ) -> io.NodeOutput:
        prefix = filename_prefix.replace("%concept%", places.named_after(concepts))
        path = places.free_name(places.lora_folder(folder), prefix)
        workflow = ((cls.hidden.extra_pnginfo or {}).get("workflow") or {}).get("id") or ""
        live = Live(cls.hidden.unique_id, f"Erasing {_quoted(concepts)}", workflow)
        chosen = find_method(method)
        given = {"steps": steps, "width": width, "height": height}
        with (
            _outlasted() as stopping,
            live.telling_errors(),
            claim(path),
            own_run_folder(_checkpoints(prefix)) as kept,
            hosts.training(),
        ):
            opened = hosts.open_model(model, clip)
            order = _order(opened, chosen, concepts, given, settings or {}, seed)
            if chosen.finds_room:  # a training run; a closed form has neither
                size = _size(opened, order, chosen)
                pictures = _keep_pictures(model, vae, images, image_prompts, size)
                order = replace(order, pictures=pictures, checkpoints=kept, replaces=True)
            elif images is not None:
                raise EraseError(f"{chosen.label} takes no pictures of your own; disconnect them.")
            job = _Job(model, opened, vae, live, preview_every, stopping)
            return job.run(_resumed(order, job) if run == RESUME else order, path)


def _order(
    model: Model,
    method: Method,
    concepts: ConceptSet,
    given: Mapping[str, int],
    settings: Mapping[str, Any],
    seed: int,
) -> api.Order:
    """What the node's own inputs (0: unsaid) and Erase Settings ask for.

    EraseError for what cannot be.
    """
    own = {n: value for n, value in given.items() if value and n in method.settings.about()}
    said = changes(settings, len(concepts.concepts))
    if said and method.name != DEFAULT:
        raise EraseError(
            f"Erase Settings are those of {DEFAULT}; disconnect them for {method.name}."
        )
    preset = settings.get("preset", "")
    method.suited(model, concepts, preset, said | own)
    return api.Order(concepts, method.name, preset, said | own, seed)


def _size(model: Model, order: api.Order, method: Method) -> tuple[int, int]:
    """(height, width) of the pictures in training."""
    assert order.concepts is not None
    own = model.trained or model.size
    plan = method.suited(model, order.concepts, order.preset, order.changes).to_dict()
    return plan.get("height", own[0]), plan.get("width", own[1])


def _resumed(order: api.Order, job: _Job) -> api.Order:
    """The order for a run that goes on, or the same where there is nothing to resume."""
    folder = order.checkpoints
    if folder is None or not checkpoints(folder):
        job.notes.append("There is nothing to resume under this name, so the run starts anew.")
        return order
    old = run_concepts(folder)
    if old != order.concepts:
        raise EraseError(
            f"The checkpoint erases {_quoted(old)} with other words than the concept set has "
            f"now; set run to {NEW}, or connect the set it was started with."
        )
    steps = {n: value for n, value in order.changes.items() if n == "steps"}
    return replace(order, changes=steps, resume=folder)


def _inputs() -> list[Any]:
    return [
        io.Model.Input(
            "model",
            tooltip="The Flux model that is to forget. It may carry "
            "LoRAs, and comes back exactly as it was.",
        ),
        io.Clip.Input("clip", tooltip="Its text encoders, CLIP-L and T5."),
        io.Custom("ERASE_CONCEPTS").Input(
            "concepts", tooltip="What to forget and what to keep, from a Concept Set."
        ),
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
        inputs.seed(2**63 - 1, "Seed of every draw. The same seed gives the same file."),
        inputs.name_input("eraser_%concept%", " %concept% is what is erased."),
        inputs.folder_input(),
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
            options=[NEW, RESUME],
            default=NEW,
            tooltip="start anew: what an unfinished run of this name left to resume from "
            "stays until this run has a checkpoint of its own. resume: go on from its newest "
            "checkpoint, with its concepts and settings; where there is none, the node says so "
            "and starts anew.",
        ),
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
            options=[name for name, entry in methods().items() if entry.product],
            default=DEFAULT,
            optional=True,
            tooltip="How to erase. eraseanything trains; uce solves in a second and keeps less.",
        ),
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


@dataclass
class _Job:
    """One run: what the host gets to see and to keep of it."""

    model: Any
    opened: Model
    vae: Any
    live: Live
    preview_every: int
    stopping: threading.Event  # the server ends
    notes: list[str] = field(default_factory=list)  # what the person should know beforehand

    def run(self, order: api.Order, path: Path) -> io.NodeOutput:
        """Erase, save, hand on. Whatever ends it early, the eraser made so far is saved."""
        self.bar = comfy.utils.ProgressBar(1)
        self.runs: list[Run] = []
        self.preview: Preview | None = None
        self.before: list[Any] = []
        self.sheet: Any = None  # the newest preview; it stays on the node
        if not find_method(order.method).finds_room:
            hosts.load(self.model)
        try:
            erased = api.erase(
                self.opened,
                order,
                path,
                place=self._place,
                on_ready=self._ready,
                on_encode=lambda work: self.live.expect(str(work)),
                on_step=self._on_step,
            )
        except api.UnfinishedError as error:
            raise self._unfinished(error) from error.cause
        if erased.result.stopped == "done" and order.checkpoints is not None:
            remove_checkpoints(order.checkpoints)
        return self._output(erased)

    def _place(self, run: Run) -> Kept:
        """Load the MODEL; where its activations would not fit, they are recomputed."""
        weights = Weights(self.model.model_size())
        total = comfy.model_management.get_total_memory(self.model.load_device)
        if peak_bytes(run.model, run.workload(), weights) > USED * total:
            run.checkpointing = True
        self.runs.append(run)
        self._load()
        return Kept("the base as ComfyUI keeps it", weights)

    def _ready(self, ready: api.Ready) -> None:
        """Tell what the run will take, and draw its preview without the eraser."""
        run, weights = ready.run, self.model.model_size()
        self.live.resumed(run.history)
        advice = _advice(ready.expected.memory, weights, self.model)
        self.live.expect(". ".join([f"{ready.expected}{advice}", *self.notes, *run.notices]))
        run.notices.clear()
        if self.preview_every and self.vae is not None:
            self.preview = run.preview()
            with self._previewing():
                self.before = self._draw(self.preview, None)

    def _unfinished(self, error: api.UnfinishedError) -> BaseException:
        """Tell how the run ended; the error that the host is to hear of."""
        saved = "" if error.path is None else places.lora_name(error.path)
        told = [notice for run in self.runs for notice in run.notices]
        notices = [notice for notice in told if notice != str(error.cause)]
        if isinstance(error.cause, comfy.model_management.InterruptProcessingException):
            kept = f"Cancelled; the work so far is in {saved}. " if saved else ""
            self.live.end("cancelled", saved, kept + " ".join(notices) if notices else "")
            return error.cause
        tail = f" The work so far is in {saved}." if saved else ""
        message = " ".join([f"{str(error.cause).rstrip('.')}.{tail}", *notices])
        self.live.end("error", saved, message)
        return EraseError(message) if isinstance(error.cause, EraseError) else error.cause

    def _output(self, erased: api.Erased) -> io.NodeOutput:
        """What the node hands on."""
        result, path = erased.result, erased.path
        if path is None or result.eraser is None:
            raise EraseError(
                "The losses diverged at once, so nothing was saved; try a lower lr_low."
            )
        tensors, metadata = read_tensors(path)
        eraser = Eraser({name: tensor.clone() for name, tensor in tensors.items()}, metadata)
        chart = drawing.to_image(loss_chart(result.history, title=self.live.title))
        shown = chart if self.sheet is None else drawing.to_image(self.sheet)
        name = places.lora_name(path)
        self.live.end(result.stopped, name, _ending(result, name))
        stride = max(1, math.ceil(len(result.history) / POINTS))
        told = {
            "file": name,
            "path": str(path),
            "stopped": result.stopped,
            "steps": len(result.history),
            "seconds": {phase: round(value, 2) for phase, value in result.seconds.items()},
            "estimate": self.live.estimate,
            "losses": final_losses(result.history),
            "history": self.live.rows(0, stride),
            "stride": stride,
        }
        return io.NodeOutput(
            apply(self.model, eraser, 1.0),
            eraser,
            _loss_map(result),
            name,
            chart,
            ui=ui.PreviewImage(shown).as_dict() | {"eraseanything_train": [told]},
        )

    def _load(self) -> None:
        load = self.runs[-1].workload()
        hosts.load(self.model, load.batch, (load.height, load.width))

    def _on_step(self, progress: Progress) -> None:
        self.live.update(progress)  # a step that is done is told, also when a cancel follows it
        comfy.model_management.throw_exception_if_processing_interrupted()
        due = self.preview_every and progress.step % self.preview_every == 0
        shown = None
        if progress.phase == "training" and self.preview is not None and due:
            with self._previewing():
                self.sheet = self._compared(self.preview, f"after {progress.step}")
                shown = ("JPEG", self.sheet, 1024)
        self.bar.update_absolute(progress.step, progress.steps, shown)
        if self.stopping.is_set() and progress.step < progress.steps:
            raise KeyboardInterrupt

    @contextmanager
    def _previewing(self) -> Iterator[None]:
        """A preview may fail: it is the last one then, and the training goes on."""
        try:
            yield
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:
            self.preview = None
            logging.getLogger(__name__).warning("No more previews", exc_info=error)
            self.live.warn(f"No more previews: {str(error).rstrip('.')}. The training goes on.")
        self._load()  # the VAE may have pushed the model out

    def _compared(self, preview: Preview, heading: str) -> Any:
        """The preview's pictures without the eraser and with it as it is now."""
        after = self._draw(preview, self.runs[-1].eraser)
        pairs = zip(preview.prompts, self.before, after, strict=True)
        rows = [Row(prompt, [[old], [new]]) for prompt, old, new in pairs]
        return grid(rows, ("before", heading))

    def _draw(self, preview: Preview, eraser: Any) -> list[Any]:
        stopped = comfy.model_management.throw_exception_if_processing_interrupted
        latents = preview.latents(eraser, lambda done: stopped())
        return drawing.to_pil(drawing.decode(self.model, self.vae, latents))


@contextmanager
def _outlasted() -> Iterator[threading.Event]:
    """When the server ends by Ctrl-C, let the run end after its current step, and be saved."""
    stopping, over = threading.Event(), threading.Event()

    def end() -> None:
        stopping.set()
        over.wait(LAST_STEP)

    atexit.register(end)
    try:
        yield stopping
    finally:
        over.set()
        atexit.unregister(end)


def _advice(memory: int, weights: int, model: Any) -> str:
    """What comes of a run that wants more memory, ``weights`` among it, than the device has."""
    device = model.load_device
    total = comfy.model_management.get_total_memory(device)
    if memory <= total:
        return ""
    if device.type != "cpu" and memory - weights <= USED * total:
        return "; ComfyUI keeps the part of the model that does not fit in RAM, which is slower"
    return "; that is more than there is: choose a smaller batch in Erase Settings"


def _ending(result: Result, name: str) -> str:
    steps = len(result.history)
    if result.stopped == "diverged":
        return (
            f"The losses diverged after {steps} iterations; the last good weights are in {name}. "
            "Try a lower lr_low."
        )
    return f"{name}: {steps} iterations." if steps else f"saved as {name}"


def _loss_map(result: Result) -> dict[str, list[float]]:
    """The weighted sum as "loss", which the host plots, and each loss under its own name."""
    weights = {name: result.settings.get(f"l_{name}", 1.0) for name in NAMES}
    total = [sum(weights[n] * loss for n, loss in row.items()) for row in result.history]
    single = {name: [row[name] for row in result.history if name in row] for name in NAMES}
    return {"loss": total} | single


def _checkpoints(prefix: str) -> Path:
    """Where a run of this name keeps what it can be resumed from."""
    root = Path(folder_paths.get_output_directory()) / "eraseanything" / "checkpoints"
    return places.inside(root, f"{prefix}.steps")


def _quoted(concepts: ConceptSet) -> str:
    return ", ".join(f"“{concept.name}”" for concept in concepts.concepts)
