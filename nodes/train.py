"""Erase Concept (train)."""

from __future__ import annotations

import atexit
import logging
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io, ui
from torch import Tensor

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.errors import EraseError
from ..erase_core.flux.config import FluxConfig
from ..erase_core.flux.offload import Weights
from ..erase_core.pictures import Row, grid, loss_chart
from ..erase_core.training import (
    KeepPictures,
    Losses,
    Preview,
    Progress,
    Trainer,
    TrainResult,
    TrainSettings,
    estimate,
    lora_metadata,
    rescue,
    save_result,
)
from ..erase_core.training.memory import USED
from ..erase_core.training.metadata import final_losses
from ..erase_core.training.run_folder import checkpoints, own_run_folder, remove_checkpoints
from ..erase_core.writing import claim
from . import host
from .eraser import Eraser, apply
from .live import NAMES, POINTS, Live
from .settings import plan_for

NEW, RESUME = "start anew", "resume"
LAST_STEP = 120  # seconds that a server waits for it when it ends


class Train(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingTrain",
            display_name="Erase Concept (train)",
            category=host.CATEGORY,
            description=(
                "Trains a LoRA that makes a Flux model forget what the concept set names and keep "
                "the rest. It is saved to the LoRA list; cancelling keeps the work done so far."
            ),
            inputs=_inputs(),
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,
            **host.aliases("train lora", "unlearn", "erase", "forget concept", "concept ablation"),
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
    ) -> io.NodeOutput:
        config = host.flux_config(model)
        given = {"steps": steps, "width": width, "height": height, "seed": seed}
        plan = plan_for(model, config, concepts, given, settings or {})
        prefix = filename_prefix.replace("%concept%", _names(concepts))
        path = host.free_name(host.lora_folder(folder), prefix)
        workflow = ((cls.hidden.extra_pnginfo or {}).get("workflow") or {}).get("id") or ""
        live = Live(cls.hidden.unique_id, f"Erasing {_quoted(concepts)}", workflow)
        with (
            live.telling_errors(),
            claim(path),
            own_run_folder(_checkpoints(prefix)) as kept,
            host.training(),
        ):
            pictures = _keep_pictures(model, vae, images, image_prompts, plan)
            task = _Task(model, clip, vae, path, live, preview_every)
            task.start(config, concepts, plan, pictures, kept, run == RESUME)
            with _outlasted(task.trainer):
                return task.output(task.run())


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
        host.seed(2**63 - 1, "Seed of every draw. The same seed gives the same file."),
        host.name_input("eraser_%concept%", " %concept% is what is erased."),
        host.folder_input(),
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
    model: Any, vae: Any, images: Tensor | None, prompts: str, settings: TrainSettings
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
        images.clone().movedim(-1, 1), settings.width, settings.height, "area", "center"
    )
    latents = host.encode(model, vae, fitted.movedim(1, -1))
    return KeepPictures(latents, tuple(lines * (len(images) if len(lines) == 1 else 1)))


@dataclass
class _Task:
    """One run: the trainer, and what the host gets to see and to keep of it."""

    model: Any
    clip: Any
    vae: Any
    path: Path
    live: Live
    preview_every: int

    def start(
        self,
        config: FluxConfig,
        concepts: ConceptSet,
        settings: TrainSettings,
        pictures: KeepPictures | None,
        folder: Path,
        resume: bool,
    ) -> None:
        """Make the trainer: a new one, or one that goes on from a checkpoint in ``folder``."""
        tree, text = host.flux_tree(self.model), host.Text(self.clip, config)
        self.bar = comfy.utils.ProgressBar(1)
        self.preview: Preview | None = None
        self.before: list[Any] = []
        self.sheet: Any = None  # the newest preview; it stays on the node
        self.notes: list[str] = []  # what the person should know beforehand
        if resume and checkpoints(folder):
            self.trainer = Trainer.resume(
                folder, tree, config, text, steps=settings.steps, on_step=self._on_step
            )
            self._check_resumed(concepts, pictures)
            self.live.resumed(self.trainer.history)
            self.notes = list(self.trainer.notices)
            return
        if resume:
            self.notes = ["There is nothing to resume under this name, so the run starts anew."]
        self.trainer = Trainer(
            tree,
            config,
            text,
            concepts,
            settings,
            pictures=pictures,
            checkpoint_dir=folder,
            replace=True,
            on_step=self._on_step,
        )

    def _check_resumed(self, concepts: ConceptSet, pictures: KeepPictures | None) -> None:
        old = self.trainer.concepts
        if old != concepts:
            raise EraseError(
                f"The checkpoint erases {_quoted(old)} with other words than the concept set has "
                f"now; set run to {NEW}, or connect the set it was started with."
            )
        self.trainer.pictures = pictures

    def run(self) -> TrainResult:
        """Encode, load, train. Whatever ends it early, the LoRA made so far is saved."""
        try:
            self.trainer.encode()
            self._load()
            weights = self.model.model_size()
            expected = estimate(self.trainer, Weights(weights))
            told = f"{expected}{_advice(expected.memory, weights, self.model)}"
            self.live.expect(". ".join([told, *self.notes]))
            self.trainer.notices.clear()
            if self.preview_every and self.vae is not None:
                self.preview = Preview.of(self.trainer)
                with self._previewing():
                    self.before = self._draw(self.preview, None)
            return self.trainer.run()
        except comfy.model_management.InterruptProcessingException:
            saved, notices = self._rescued(), " ".join(self.trainer.notices)
            kept = f"Cancelled; the work so far is in {saved}. " if saved else ""
            self.live.end("cancelled", saved, kept + notices if notices else "")
            raise
        except Exception as error:
            saved = self._rescued()
            tail = f" The work so far is in {saved}." if saved else ""
            message = " ".join([f"{str(error).rstrip('.')}.{tail}", *self.trainer.notices])
            self.live.end("error", saved, message)
            if isinstance(error, EraseError):
                raise EraseError(message) from error
            raise

    def output(self, result: TrainResult) -> io.NodeOutput:
        """Save the eraser and hand it on."""
        trainer = self.trainer
        path = save_result(result, trainer, self.path, *self._base())
        if path is None:
            raise EraseError(
                "The losses diverged at once, so nothing was saved; try a lower lr_low."
            )
        if result.stopped == "done" and trainer.checkpoint_dir is not None:
            remove_checkpoints(trainer.checkpoint_dir)
        tensors = {name: tensor.cpu() for name, tensor in result.lora.tensors().items()}
        metadata = lora_metadata(result, trainer.concepts, trainer.settings, *self._base())
        erased = apply(self.model, tensors, 1.0)
        title = f"Erasing {_quoted(trainer.concepts)}"
        chart = host.to_image(loss_chart(result.history, title=title))
        shown = chart if self.sheet is None else host.to_image(self.sheet)
        name = host.lora_name(path)
        self.live.end(result.stopped, name, _ending(result, name))
        stride = max(1, math.ceil(len(result.history) / POINTS))
        told = {
            "file": name,
            "path": str(path),
            "stopped": result.stopped,
            "steps": len(result.history),
            "seconds": {phase: round(value, 2) for phase, value in result.seconds.items()},
            "estimate": self.live.estimate,
            "losses": final_losses(result),
            "history": self.live.rows(0, stride),
            "stride": stride,
        }
        return io.NodeOutput(
            erased,
            Eraser(tensors, metadata),
            _loss_map(result.history, trainer.settings),
            name,
            chart,
            ui=ui.PreviewImage(shown).as_dict() | {"eraseanything_train": [told]},
        )

    def _load(self) -> None:
        settings = self.trainer.settings
        host.load(self.model, settings.batch, (settings.height, settings.width))

    def _on_step(self, progress: Progress) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.live.update(progress)
        due = self.preview_every and progress.step % self.preview_every == 0
        shown = None
        if progress.phase == "training" and self.preview is not None and due:
            with self._previewing():
                self.sheet = self._compared(self.preview, f"after {progress.step}")
                shown = ("JPEG", self.sheet, 1024)
        self.bar.update_absolute(progress.step, progress.steps, shown)

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
        after = self._draw(preview, self.trainer.lora)
        pairs = zip(preview.prompts, self.before, after, strict=True)
        rows = [Row(prompt, [[old], [new]]) for prompt, old, new in pairs]
        return grid(rows, ("before", heading))

    def _draw(self, preview: Preview, lora: Any) -> list[Any]:
        stopped = comfy.model_management.throw_exception_if_processing_interrupted
        latents = preview.latents(lora, lambda done: stopped())
        return host.to_pil(host.decode(self.model, self.vae, latents))

    def _rescued(self) -> str:
        """The name of the file with what a run has that ended early, "" if there is nothing."""
        if not self.trainer.history:
            return ""  # without reading all of the model's file for its hash
        path = rescue(self.trainer, self.path, *self._base())
        return "" if path is None else host.lora_name(path)

    def _base(self) -> tuple[str, str]:
        return host.base_name(self.model), host.base_hash(self.model)


@contextmanager
def _outlasted(trainer: Trainer) -> Iterator[None]:
    """When the server ends by Ctrl-C, let the run end after its current step, and be saved."""
    over = threading.Event()

    def end() -> None:
        trainer.stop()
        over.wait(LAST_STEP)

    atexit.register(end)
    try:
        yield
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


def _ending(result: TrainResult, name: str) -> str:
    steps = len(result.history)
    if result.stopped == "diverged":
        return (
            f"The losses diverged after {steps} iterations; the last good weights are in {name}. "
            "Try a lower lr_low."
        )
    return f"{name}: {steps} iterations."


def _loss_map(history: list[Losses], settings: TrainSettings) -> dict[str, list[float]]:
    """The weighted sum as "loss", which the host plots, and each loss under its own name."""
    total = [sum(getattr(settings, f"l_{k}") * loss for k, loss in row.items()) for row in history]
    single = {name: [row[name] for row in history if name in row] for name in NAMES}
    return {"loss": total} | single


def _checkpoints(prefix: str) -> Path:
    """Where a run of this name keeps what it can be resumed from."""
    root = Path(folder_paths.get_output_directory()) / "eraseanything" / "checkpoints"
    return host.inside(root, f"{prefix}.steps")


def _names(concepts: ConceptSet) -> str:
    """The concepts in a file name."""
    text = "_".join(concept.name for concept in concepts.concepts)
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in text)[:60]


def _quoted(concepts: ConceptSet) -> str:
    return ", ".join(f"“{concept.name}”" for concept in concepts.concepts)
