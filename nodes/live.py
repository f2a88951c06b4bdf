"""What the nodes tell the front end: everything that ``web/`` may rely on.

While "Erase Concept (train)" runs, the websocket carries the event ``eraseanything.progress`` with
this JSON: at most some four times a second, always at the first and the last step of a phase. The
host's own ``progress`` (bar, before/after preview) and progress text (a line on the node) go on::

    {
      "node": "12", "prompt_id": "...",      # the node's id as in "executing"
      "workflow": "...",                     # the front end's id of the workflow, "" if it has none
      "title": "Erasing “tiger”",
      "estimate": "about 3 min, ...",        # "" until it is known
      "phase": "text" | "rollouts" | "training"           # running
               | "done" | "cancelled" | "diverged" | "error",  # over
      "step": 120, "total": 400, "seconds_left": 31.5,    # of this phase
      "losses": {"esd": 0.1, "attn": 0.02, "lora": 0.01, ...},  # the last, unweighted
      "first": 118,                          # iteration (from 1) of the first row below
      "history": [[0.1, 0.02, 0.01, 0.3, null]],  # rows since the last event: esd, attn, lora,
                                             # rsc, adv; null where a loss was not computed
      "file": "eraser_tiger_00001.safetensors",  # LoRA list name, once saved, else ""
      "made": "2026-11-29",                  # day of a file that is used again, else ""
      "message": ""                          # the sentence of an error
    }

``GET /eraseanything/state?node=12`` answers the same object for the newest run of that node, or
``null``; there ``history`` is the whole run, at most POINTS rows, with ``first`` 1 and ``stride``
the number of iterations between two rows. ``&prompt_id=...`` asks for that run alone. A page that
was reloaded starts from it and goes on with the events.

``eraseanything.guard`` is sent at every step at which an Erase Guard acts::

    {
      "node": "12", "prompt_id": "...",
      "method": "dve",                       # or "word gate", "velocity gate", "irece"
      "step": 3, "total": 28,
      "strength": {"tiger": [0.8, 0]},       # by concept, a number a picture; 0: left alone
      "mask": ""                             # data URL (PNG): what IRECE begins anew, else ""
    }

``eraseanything.each`` is sent whenever Erase Each Concept begins or ends one::

    {
      "node": "12", "prompt_id": "...", "workflow": "...",
      "now": "tiger",                        # the concept at work, "" at the end
      "rows": [{"concept", "said": verdict, "made on ...", or why it failed, "seconds", "file",
                "failed": bool}]             # "said" is "" until it is over
    }

``executed`` outputs (lists of one object, as all UI outputs of the host):

``eraseanything_train`` (Erase Concept)
    ``{"file", "path", "stopped": "done" | "diverged", "steps", "seconds": {phase: s}, "estimate",
    "losses": {name: mean of the last 20}, "history": [[esd, attn, lora, rsc, adv]], "stride",
    "made": as above}``
``eraseanything_each`` (Erase Each Concept)
    ``{"rows": as above}``
``eraseanything_instant`` (Erase Concept (instant))
    ``{"file", "path", "seconds": {phase: s}, "missed": {Linear: share of its change that a LoRA of
    the wanted rank lacks}}``
``eraseanything_concepts`` (the three Concept Set nodes)
    ``{"set": <concept-set JSON>, "own": [names made by this node], "source": "MiniFlux" | "lists" |
    "WordNet" | "by hand" | "file" | "LLM", "senses": [{"name", "definition", "examples"}],
    "file": saved or loaded name or ""}``
``eraseanything_attention`` (Attention Map)
    ``{"prompt", "width", "height", "picture": data URL (JPEG) or "", "words": [{"text", "spans":
    [[start, end]], "asked": bool, "top": highest share, "mean": mean share, "heat": data URL (grey
    PNG, rows x columns, white = top), "parts": data URL of such maps, a row for each of the blocks,
    a column for each of the steps, "parts_top": what white stands for there}], "blocks": [0, 1],
    "steps": [0, 5]}``
    ``words`` are all words of the prompt and those asked for; ``spans`` index the prompt.
``eraseanything_report`` (Erasure Report)
    ``{"table": [[...]], "report": <the JSON output>}``, the table's first row being its heading
``eraseanything_guard_prompt`` (Guard Prompt)
    ``{"concept", "words": changed, "share": of the steps}`` for each concept that was found
``eraseanything_save`` (Save Eraser)
    ``{"file", "path"}``
``images``
    the host's own preview: Train's last before/after sheet (its chart, where there is none),
    Preview's and Report's sheets
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from comfy.model_management import InterruptProcessingException
from comfy.utils import ProgressBar
from server import PromptServer

from ..erase_core.training.progress import Losses, Progress
from .language import said
from .places import shortened

EVENT, ROUTE = "eraseanything.progress", "/eraseanything/state"
OVER = ("done", "cancelled", "diverged", "error")
NAMES = ("esd", "attn", "lora", "rsc", "adv")
TOLD = (
    "node",
    "prompt_id",
    "workflow",
    "title",
    "estimate",
    "phase",
    "step",
    "total",
    "seconds_left",
    "file",
    "made",
    "message",
)
INTERVAL = 0.25  # seconds between two events
POINTS = 600  # rows of a history at most
RUNS = 32  # kept for the route

_runs: OrderedDict[tuple[str, str], Live] = OrderedDict()


class Live:
    """The state of one training run, told as it changes."""

    def __init__(self, node: str, title: str, workflow: str = "") -> None:
        self.node, self.workflow = str(node), workflow
        self.prompt_id = str(getattr(PromptServer.instance, "last_prompt_id", "") or "")
        self.title, self.estimate, self.file, self.made, self.message = title, "", "", "", ""
        self.phase, self.step, self.total, self.seconds_left = "text", 0, 0, 0.0
        self.history: list[Losses] = []
        self._sent, self._when = 0, -math.inf
        _runs[self.node, self.prompt_id] = self
        _runs.move_to_end((self.node, self.prompt_id))
        while len(_runs) > RUNS:
            _runs.popitem(last=False)
        self._tell(force=True)

    def resumed(self, history: list[Losses]) -> None:
        """The run goes on after these iterations."""
        self.history = list(history)

    def expect(self, estimate: str) -> None:
        """Say what the run will take, on the node too."""
        self.estimate = estimate
        self._text(f"{said(self.title)}{said(': ')}{estimate}")
        self._tell(force=True)

    def warn(self, sentence: str) -> None:
        """Say on the node what does not end the run."""
        self._text(sentence)

    def update(self, progress: Progress) -> None:
        """Tell a step of the run."""
        changed = progress.phase != self.phase
        self.phase, self.step, self.total = progress.phase, progress.step, progress.steps
        self.seconds_left = progress.seconds_left
        if progress.phase == "training" and progress.losses:
            self.history.append(dict(progress.losses))
        self._tell(force=changed or progress.step == progress.steps)

    def end(self, phase: str, file: str = "", message: str = "", made: str = "") -> None:
        """Tell that the run is over: "done", "cancelled", "diverged" or "error"; or that there was
        none, since the file was ``made`` on another day."""
        self.phase, self.file, self.made, self.seconds_left = phase, file, made, 0.0
        self.message = said(shortened(message))
        self._text(self.message or {"done": f"saved as {file}"}.get(phase, phase))
        self._tell(force=True)

    @contextmanager
    def telling_errors(self) -> Iterator[None]:
        """Tell what goes wrong inside, unless it was told already."""
        try:
            yield
        except (Exception, InterruptProcessingException) as error:
            stopped = isinstance(error, InterruptProcessingException)
            if self.phase not in OVER:
                self.end("cancelled" if stopped else "error", message=str(error))
            raise

    def rows(self, first: int = 0, stride: int = 1) -> list[list[float | None]]:
        """Losses of iterations ``first`` (from 0) on, every ``stride``-th, in the order of NAMES.

        What is not finite is told as null: JSON knows no other way.
        """
        picked = self.history[first::stride]
        return [[_finite(losses.get(name)) for name in NAMES] for losses in picked]

    def state(self) -> dict[str, Any]:
        """The answer of the route."""
        stride = max(1, math.ceil(len(self.history) / POINTS))
        return self._json() | {"first": 1, "stride": stride, "history": self.rows(0, stride)}

    def _json(self) -> dict[str, Any]:
        last = self.history[-1] if self.history else {}
        losses = {name: _finite(value) for name, value in last.items()}
        told = {name: getattr(self, name) for name in TOLD}
        return told | {"title": said(self.title), "losses": losses}

    def _tell(self, force: bool) -> None:
        now = time.monotonic()
        if not force and now - self._when < INTERVAL:
            return
        event = self._json() | {"first": self._sent + 1, "history": self.rows(self._sent)}
        self._sent, self._when = len(self.history), now
        PromptServer.instance.send_sync(EVENT, event, PromptServer.instance.client_id)

    def _text(self, text: str) -> None:
        say(self.node, text)


class PhaseBar:
    """The host's progress bar, begun anew by every phase: the host tells nothing of a bar whose
    value goes down."""

    def __init__(self) -> None:
        self._phase, self._bar = "", ProgressBar(1)

    def update(self, progress: Progress, preview: Any = None) -> None:
        """Tell a step, perhaps with a preview. Raises the host's own exception on a cancel."""
        if progress.phase != self._phase:
            self._phase, self._bar = progress.phase, ProgressBar(progress.steps)
        self._bar.update_absolute(progress.step, progress.steps, preview)


def say(node: str, text: str) -> None:
    """Put a line of text on a node, without the names of the machine's folders.

    The oldest host's front end shows it as HTML, so that a name must not hold any.
    """
    safe = said(shortened(text)).translate({ord("<"): "‹", ord(">"): "›"})
    server = PromptServer.instance
    if server.client_id:  # else no page queued the run, and every page would show the line
        server.send_progress_text(safe, node, server.client_id)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@PromptServer.instance.routes.get(ROUTE)
async def _state(request: web.Request) -> web.Response:
    node, prompt_id = request.query.get("node", ""), request.query.get("prompt_id")
    for key in reversed(_runs):
        if key[0] == node and prompt_id in (None, key[1]):
            return web.json_response(_runs[key].state())
    return web.json_response(None)
