"""A guard in the host: what a MODEL predicts, changed at every step while it draws.

Two wrappers of the sampler do it, on a clone of the MODEL: one hands the sampler the prompts that a
guard wants predicted beside the person's, one changes what each step makes of all of them. So
every guider, sampler and family works, and a step's own guidance is in what is changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import comfy.samplers
from comfy.patcher_extension import WrappersMP
from server import PromptServer
from torch import Tensor

from ..erase_core.erasers.guards.base import GuardSettings, inside
from ..erase_core.errors import EraseError

EVENT = "eraseanything.guard"
KEY = "eraseanything_guard"
# What a CONDITIONING says of its own text, and of where and when it holds: not taken over.
OWN = {
    "area", "attention_mask", "cross_attn", "default", "end_percent", "gligen", "mask",
    "mask_strength", "model_conds", "pooled_output", "set_area_to_bounds", "start_percent",
    "strength", "timestep_end", "timestep_start",
}  # fmt: skip


Conds = dict[str, list[dict[str, Any]]]  # the sampler's prompts, "positive" among them as a rule
Strengths = dict[str, list[float]]  # concept -> how strongly a guard acted on each picture


def asked(conds: Conds) -> list[dict[str, Any]]:
    """The prompts that pictures are drawn of: "positive", else the first that a guider has."""
    return conds.get("positive") or next(iter(conds.values()))


class Predict(Protocol):
    """One prediction a prompt; see :class:`Step`."""

    def __call__(self, names: Sequence[str], watched: Any = None) -> list[Tensor]: ...


class Step(NamedTuple):
    """A moment of sampling: ``x`` (B, ...) at noise level ``sigma`` (B,).

    ``again(x)`` predicts with the person's own prompts as the guards before left it, from these
    latents or others; ``predict(conds)`` gives one prediction a prompt of :func:`prompt`, perhaps
    with attention ``watched`` by what the host calls an override. All are ``x_0``.
    """

    x: Tensor
    sigma: Tensor
    again: Callable[[Tensor], Tensor]
    predict: Predict


class Acting(Protocol):
    """What a guard does in the host, for one picture or batch after another."""

    @property
    def settings(self) -> GuardSettings:
        """When it acts, and how much."""
        ...

    def prompts(self) -> dict[str, Any]:
        """CONDITIONINGs that it wants predicted, by names of its own."""
        ...

    def begin(self, conds: Conds, model: Any) -> None:
        """Hear of the sampler's prompts and its MODEL before the first step."""
        ...

    def act(self, step: Step) -> tuple[Tensor, Strengths]:
        """What the step predicts, guarded, and how strongly it acted: a number a picture for each
        concept."""
        ...


@dataclass(frozen=True)
class Told:
    """Who hears of a guard: its node, and what is said of it there."""

    node: str
    method: str
    prompt_id: str = ""

    def say(self, step: int, total: int, strength: Strengths, mask: str = "") -> None:
        """One step, to the page that ran the workflow; ``mask`` is a picture as a data URL."""
        server = PromptServer.instance
        event = {
            "node": self.node,
            "prompt_id": str(getattr(server, "last_prompt_id", "") or ""),
            "method": self.method,
            "step": step,
            "total": total,
            "strength": {name: [round(s, 4) for s in row] for name, row in strength.items()},
            "mask": mask,
        }
        server.send_sync(EVENT, event, server.client_id)


class Guards:
    """The guards of a MODEL in the order in which they act."""

    def __init__(self, guards: Sequence[tuple[Acting, Told]]) -> None:
        self.guards = tuple(guards)

    def sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Hand the sampler the guards' prompts; it prepares them as the person's own."""
        conds = executor.class_obj.conds
        given = dict(conds)
        first = asked(conds)[0]
        for index, (guard, _) in enumerate(self.guards):
            for name, cond in guard.prompts().items():
                conds[_name(index, name)] = [beside(first, cond[0])]
        for guard, _ in self.guards:
            guard.begin(given, executor.class_obj.model_patcher)
        return executor(*args, **kwargs)

    def predict(
        self, executor: Any, x: Tensor, sigma: Tensor, model_options: Any = None, seed: Any = None
    ) -> Tensor:
        """What the sampler's step predicts, changed by one guard after another."""
        guider, options = executor.class_obj, model_options or {}

        def inner(count: int, x: Tensor) -> Tensor:
            if count == 0:
                return executor(x, sigma, options, seed)
            guard, told = self.guards[count - 1]
            if not inside(window(guard.settings, guider.inner_model.model_sampling), sigma):
                return inner(count - 1, x)

            def predict(names: Sequence[str], watched: Any = None) -> list[Tensor]:
                conds = [guider.conds[_name(count - 1, name)] for name in names]
                own = options if watched is None else watching(options, watched)
                return comfy.samplers.calc_cond_batch(guider.inner_model, conds, x, sigma, own)

            guarded, strength = guard.act(Step(x, sigma, partial(inner, count - 1), predict))
            told.say(*_place(options, sigma), strength, getattr(guard, "mask", ""))
            return guarded

        return inner(len(self.guards), x)


def guarded(model: Any, guard: Acting, told: Told) -> Any:
    """A clone of ``model`` with one more guard, which acts after those that it has."""
    before = model.get_attachment(KEY)
    guards = Guards((*(before.guards if before else ()), (guard, told)))
    clone = model.clone()
    clone.set_attachments(KEY, guards)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, guards.sample),
        (WrappersMP.PREDICT_NOISE, guards.predict),
    ):
        clone.remove_wrappers_with_key(kind, KEY)
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    return clone


def watching(options: dict[str, Any], watched: Any) -> dict[str, Any]:
    """The sampler's options, with attention watched."""
    own = options.get("transformer_options", {})
    return options | {"transformer_options": own | {"optimized_attention_override": watched}}


def beside(first: dict[str, Any], cond: list[Any]) -> dict[str, Any]:
    """A CONDITIONING's entry as the sampler keeps it, with all else that the person's first one
    brings: guidance, ControlNet, reference latents, hooks.

    EraseError when it comes from another text encoder.
    """
    states, own = cond
    theirs, pooled = first.get("cross_attn"), first.get("pooled_output")
    fits = theirs is None or theirs.shape[-1] == states.shape[-1]
    if pooled is not None and own.get("pooled_output") is not None:
        fits = fits and pooled.shape[-1] == own["pooled_output"].shape[-1]
    if not fits:
        raise EraseError(
            "The guard's CLIP is not the one that encoded the prompt; connect that of the MODEL."
        )
    taken = {name: value for name, value in first.items() if name not in OWN}
    return taken | own | {"cross_attn": states, "model_conds": {}, "uuid": uuid.uuid4()}


def window(settings: GuardSettings, sampling: Any) -> tuple[float, float]:
    """A guard's window as noise levels, as the host counts shares of a schedule."""
    high, low = (float(sampling.percent_to_sigma(p)) for p in (settings.start, settings.end))
    return high, low


def prompt(clip: Any, text: str) -> Any:
    """The CONDITIONING of a text, taken as it stands: brackets are no weights."""
    tokens = clip.tokenize(text.replace("(", r"\(").replace(")", r"\)"))
    return clip.encode_from_tokens_scheduled(tokens)


def _name(guard: int, prompt: str) -> str:
    return f"{KEY} {guard} {prompt}"


def _place(options: dict[str, Any], sigma: Tensor) -> tuple[int, int]:
    """Which step of how many this is, from 1."""
    levels = options.get("transformer_options", {}).get("sample_sigmas")
    if levels is None:
        return 0, 0
    done = int((levels >= sigma.max()).sum())
    return done, len(levels) - 1
