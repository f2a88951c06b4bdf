"""Erase Each Concept (train): an eraser of its own for every concept of a list, unattended."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
from comfy_api.latest import io
from server import PromptServer
from torch import Tensor

from ..erase_core.concepts.sets import Concept, ConceptSet
from ..erase_core.erasers.load import AnyEraser, load
from ..erase_core.errors import EraseError
from ..erase_core.evaluate.judges.recogniser import RecogniserJudge
from ..erase_core.evaluate.marks import verdict
from ..erase_core.methods.base import Folders, find_method
from ..erase_core.settings import Settings
from ..erase_core.training.run_folder import (
    checkpoints,
    own_run_folder,
    run_concepts,
    run_settings,
)
from ..erase_core.writing import claim
from . import drawing, hosts, inputs, orders, places
from .concepts import AUTO, SOURCES, find
from .job import Job, outlasted
from .language import said
from .live import Live

EVENT = "eraseanything.each"
WORDS = 6  # found for each band of irrelevant words
Stopped = comfy.model_management.InterruptProcessingException


class EraseEach(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingEach",
            display_name="Erase Each Concept (train)",
            category=inputs.CATEGORY,
            description="Trains an eraser of its own for every name of a list, one after another. "
            "What is finished is used again and what was broken off goes on, so it can be "
            "cancelled and run again. A concept that fails does not stop the others.",
            inputs=_inputs(),
            outputs=[
                io.String.Output(display_name="table", tooltip="Concept, verdict, seconds, file."),
                io.String.Output(display_name="files", tooltip="The files, one a line."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,
            **inputs.aliases("batch", "many concepts", "list", "queue"),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        names: str,
        source: str,
        steps: int,
        seed: int,
        filename_prefix: str,
        folder: str,
        count: int,
        settings: Mapping[str, Any] | None = None,
        vae: Any = None,
        concepts: ConceptSet | None = None,
    ) -> io.NodeOutput:
        workflow = ((cls.hidden.extra_pnginfo or {}).get("workflow") or {}).get("id") or ""
        with outlasted() as stopping:
            each = _Each(
                model,
                clip,
                vae,
                settings or {},
                steps,
                seed,
                count,
                stopping,
                node=str(cls.hidden.unique_id),
                workflow=workflow,
                prefix=filename_prefix,
                folder=places.lora_folder(folder),
            )
            each.run(names, source, concepts)
        files = "\n".join(row.file for row in each.rows if row.file)
        told = {"rows": [row.told() for row in each.rows]}
        return io.NodeOutput(each.table(), files, ui={"eraseanything_each": [told]})


@dataclass
class _Row:
    """A concept, what became of it, and how long it took."""

    concept: str
    said: str = ""
    seconds: float = 0.0
    file: str = ""
    failed: bool = False

    def told(self) -> dict[str, Any]:
        """For the front end."""
        return asdict(self) | {"said": said(self.said)}


@dataclass
class _Each:
    """The run of the node."""

    model: Any
    clip: Any
    vae: Any
    settings: Mapping[str, Any]
    steps: int
    seed: int
    count: int
    stopping: threading.Event
    node: str
    workflow: str
    prefix: str
    folder: Path

    def run(self, names: str, source: str, concepts: ConceptSet | None) -> None:
        """One eraser after another, until all are there or the person stops it."""
        asked = list(_asked(names, concepts))
        if not asked:
            raise EraseError("There is no concept; write a name a line, or connect a set.")
        self.rows = [_Row(name) for name, _ in asked]
        for row, (name, concept) in zip(self.rows, asked, strict=True):
            self._tell(name)
            try:
                found = concept or find(name, None, source, "", WORDS, 0)[0]
                self._erase(row, ConceptSet((found,)))
            except Stopped:
                row.said = "cancelled"
                self._tell("")
                raise
            except Exception as error:
                row.said, row.failed = places.shortened(str(error)), True
                comfy.model_management.soft_empty_cache()
            if self.stopping.is_set():
                break
        self._tell("")

    def table(self) -> str:
        """All rows as text."""
        lines = (
            (row.concept, said(row.said), f"{row.seconds:.0f} s", row.file) for row in self.rows
        )
        return "\n".join("  ".join(line).rstrip() for line in lines)

    def _erase(self, row: _Row, concepts: ConceptSet) -> None:
        prefix = self.prefix.replace("%concept%", places.named_after(concepts))
        path = places.free_name(self.folder, prefix)
        live = Live(self.node, f"Erasing {orders.quoted(concepts)}", self.workflow)
        method = find_method(orders.DEFAULT)
        with (
            live.telling_errors(),
            claim(path),
            own_run_folder(orders.checkpoints(prefix)) as kept,
            hosts.training(),
        ):
            opened = hosts.open_model(self.model, self.clip)
            given = {"steps": self.steps}
            order = orders.order(opened, method, concepts, given, self.settings, self.seed)
            job = Job(self.model, opened, None, live, 0, self.stopping)
            made = orders.made(opened, method, order, places.made(self.folder, prefix))
            if made:
                output = job.use_again(concepts, *made)
            else:
                plan = method.suited(opened, concepts, order.preset, order.changes)
                begun = _begun(kept, concepts, plan.changed({"seed": self.seed}))
                folders = Folders(resume=kept) if begun else Folders(kept, replaces=True)
                output = job.run(replace(order, folders=folders), path)
            (told,) = output.ui["eraseanything_train"]
            row.file, row.seconds = told["file"], sum(told["seconds"].values())
            row.said = f"made on {told['made']}" if made else told["stopped"]
            if told["stopped"] == "done":
                row.said = self._verdict(concepts, Path(told["path"])) or row.said

    def _verdict(self, concepts: ConceptSet, path: Path) -> str:
        """An examination in a line; nothing where no judge is at hand."""
        miniature = hosts.is_miniature(hosts.sizes(self.model))
        if self.vae is None or not self.count or not miniature:
            return ""
        judge, opened = RecogniserJudge(), hosts.open_model(self.model, self.clip)
        exam = judge.exam(concepts, self.count)
        asked = exam.questions()
        prompts, seeds = [case.prompt for case in asked], [case.seed for case in asked]

        def draw(eraser: AnyEraser | None) -> Tensor:
            stopped = comfy.model_management.throw_exception_if_processing_interrupted
            return opened.draw(prompts, seeds, eraser, on_batch=lambda done: stopped())

        hosts.load(self.model)
        latents = [draw(None), draw(load(path, opened))]
        pictures = (drawing.to_bytes(drawing.decode(self.model, self.vae, x)) for x in latents)
        return verdict(exam.title, *(judge.mark(exam, shown) for shown in pictures))

    def _tell(self, now: str) -> None:
        """What there is, and the concept that is at work ("" when none is)."""
        server = PromptServer.instance
        rows = [row.told() for row in self.rows]
        prompt = str(getattr(server, "last_prompt_id", "") or "")
        told = {"node": self.node, "prompt_id": prompt, "workflow": self.workflow}
        server.send_sync(EVENT, told | {"now": now, "rows": rows}, server.client_id)


def _asked(names: str, concepts: ConceptSet | None) -> Iterator[tuple[str, Concept | None]]:
    """Each name once, and its concept where that is known."""
    lines = (" ".join(line.split()) for line in names.splitlines())
    known = {concept.name.casefold(): concept for concept in concepts.concepts} if concepts else {}
    for concept in known.values():
        yield concept.name, concept
    for name in dict.fromkeys(line for line in lines if line and not line.startswith("#")):
        if name.casefold() not in known:
            yield name, None


def _begun(folder: Path, concepts: ConceptSet, settings: Settings) -> bool:
    """Whether a run of this very order was broken off there."""
    if not checkpoints(folder):
        return False
    plain = settings.to_dict()
    matter = [name for name, about in settings.about().items() if about.matters]
    try:
        old = run_settings(folder)
        same = all(old.get(name) == plain[name] for name in matter)
        return same and run_concepts(folder) == concepts
    except EraseError:
        return False


def _inputs() -> list[Any]:
    model, clip, _ = inputs.erased_inputs()
    seed, _, folder = inputs.eraser_inputs()
    return [
        model,
        clip,
        io.String.Input(
            "names",
            multiline=True,
            default="",
            tooltip="What to erase, a name a line. Lines with # are left out. Their words are "
            "found as Concept Set finds them.",
        ),
        io.Combo.Input(
            "source",
            options=SOURCES[:-1],
            default=AUTO,
            tooltip="Where their words come from, as in Concept Set. MiniFlux: its own world, for "
            "the bundled model.",
        ),
        io.Int.Input(
            "steps",
            default=0,
            min=0,
            max=100_000,
            tooltip="Iterations of each. 0: what suits the model and the concept.",
        ),
        seed,
        inputs.name_input("each/%concept%", " %concept% is what is erased."),
        folder,
        io.Int.Input(
            "count",
            default=16,
            min=0,
            max=1000,
            tooltip="Pictures for each score of MiniFlux's verdict; it needs the VAE. 0: none.",
        ),
        io.Custom("ERASE_SETTINGS").Input(
            "settings", optional=True, tooltip="Everything else, from Erase Settings."
        ),
        io.Vae.Input("vae", optional=True, tooltip="For MiniFlux's verdict."),
        io.Custom("ERASE_CONCEPTS").Input(
            "concepts",
            optional=True,
            tooltip="A set; each of its concepts gets an eraser of its own, with the set's words.",
        ),
    ]
