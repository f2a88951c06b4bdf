"""One run of Erase Concept: what the host gets to see and to keep of it."""

from __future__ import annotations

import atexit
import logging
import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management
from comfy_api.latest import io, ui

from ..erase_core import api
from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.erasers.metadata import final_losses, history_of
from ..erase_core.errors import EraseError
from ..erase_core.files import parse_json
from ..erase_core.methods.base import find_method
from ..erase_core.models.base import Model
from ..erase_core.models.offload import Weights
from ..erase_core.pictures import Row, grid, loss_chart
from ..erase_core.tensors import read_metadata, read_tensors
from ..erase_core.training.estimate import Run, peak_bytes
from ..erase_core.training.memory import USED, Kept
from ..erase_core.training.preview import Preview
from ..erase_core.training.progress import Progress
from ..erase_core.training.result import Result
from ..erase_core.training.run_folder import remove_checkpoints
from . import drawing, hosts, places
from .eraser import Eraser, apply
from .language import said
from .live import NAMES, POINTS, Live, PhaseBar

LAST_STEP = 120  # seconds that a server waits for it when it ends


@dataclass
class Job:
    """The run of one node; ``stopping`` is set when the server ends."""

    model: Any
    opened: Model
    vae: Any
    live: Live
    preview_every: int
    stopping: threading.Event
    blur: bool = False  # the previews
    notes: list[str] = field(default_factory=list)  # what the person should know beforehand
    sheet: Any = None  # the newest preview; it stays on the node

    def run(self, order: api.Order, path: Path) -> io.NodeOutput:
        """Erase, save, hand on. Whatever ends it early, the eraser made so far is saved."""
        self.bar = PhaseBar()
        self.runs: list[Run] = []
        self.preview: Preview | None = None
        self.before: list[Any] = []
        if not find_method(order.method).is_run:
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
        kept = order.folders.checkpoints or order.folders.resume
        if erased.result.stopped == "done" and kept is not None:
            remove_checkpoints(kept)
        if erased.result.stopped == "done":
            places.remove_partials(path)
        return self._output(erased)

    def use_again(self, concepts: ConceptSet, path: Path, made: str) -> io.NodeOutput:
        """Hand on what was ``made`` on that day."""
        about = read_metadata(path)
        result = Result(None, parse_json(about["erase.settings"]), history_of(about))
        self.live.resumed(list(result.history))
        return self._output(api.Erased(result, concepts, path), made)

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
        told = [f"{said(str(ready.expected))}{said(advice)}", *self.notes, *run.notices]
        self.live.expect(said(". ").join(said(part).rstrip(".\u3002") for part in told))
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
            kept = [f"Cancelled; the work so far is in {saved}."] if saved else []
            self.live.end("cancelled", saved, _together([*kept, *notices]) if notices else "")
            return error.cause
        tail = [f"The work so far is in {saved}."] if saved else []
        message = _together([f"{str(error.cause).rstrip('.')}.", *tail, *notices])
        self.live.end("error", saved, message)
        return EraseError(message) if isinstance(error.cause, EraseError) else error.cause

    def _output(self, erased: api.Erased, made: str = "") -> io.NodeOutput:
        """What the node hands on."""
        result, path = erased.result, erased.path
        if path is None:
            raise EraseError(
                "The losses diverged at once, so nothing was saved; try a lower lr_low."
            )
        tensors, metadata = read_tensors(path)
        eraser = Eraser({name: tensor.clone() for name, tensor in tensors.items()}, metadata)
        chart = drawing.to_image(
            loss_chart(result.history, title=self.live.title, theme=drawing.theme())
        )
        shown = chart if self.sheet is None else drawing.to_image(self.sheet)
        name = places.lora_name(path)
        self.live.end(result.stopped, name, _ending(result, name, made), made)
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
            "made": made,
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
        self.bar.update(progress, shown)
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
        return grid(rows, ("before", heading), theme=drawing.theme())

    def _draw(self, preview: Preview, eraser: Any) -> list[Any]:
        stopped = comfy.model_management.throw_exception_if_processing_interrupted
        latents = preview.latents(eraser, lambda done: stopped())
        pictures = drawing.to_pil(drawing.decode(self.model, self.vae, latents))
        return drawing.blurred(pictures) if self.blur else pictures


@contextmanager
def outlasted() -> Iterator[threading.Event]:
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


def _together(sentences: Iterable[str]) -> str:
    """Sentences for the person, one after another."""
    return " ".join(map(said, sentences)).replace("\u3002 ", "\u3002")


def _advice(memory: int, weights: int, model: Any) -> str:
    """What comes of a run that wants more memory, ``weights`` among it, than the device has."""
    device = model.load_device
    total = comfy.model_management.get_total_memory(device)
    if memory <= total:
        return ""
    if device.type != "cpu" and memory - weights <= USED * total:
        return "; ComfyUI keeps the part of the model that does not fit in RAM, which is slower"
    return "; that is more than there is: choose a smaller batch in Erase Settings"


def _ending(result: Result, name: str, made: str) -> str:
    steps = len(result.history)
    if made:
        return f"Used again: {name}, made on {made}."
    if result.stopped == "diverged":
        return result.diverged(name)
    return f"{name}: {steps} iterations." if steps else f"saved as {name}"


def _loss_map(result: Result) -> dict[str, list[float]]:
    """The weighted sum as "loss", which the host plots, and each loss under its own name."""
    weights = {name: result.settings.get(f"l_{name}", 1.0) for name in NAMES}
    total = [sum(weights[n] * loss for n, loss in row.items()) for row in result.history]
    single = {name: [row[name] for row in result.history if name in row] for name in NAMES}
    return {"loss": total} | single
