"""Methods on FLUX.2: a negative prompt, no mask, no pooled vector, no biases."""

from __future__ import annotations

from dataclasses import replace

from methods.test_bench_methods import NAMES, TIGER, erase, short  # noqa: F401
from tiny import CONCEPTS, make_flux2

from erase_core.methods.base import find_method, methods
from erase_core.models.flux2 import DISTILLED

OTHERS = [name for name in NAMES if methods()[name].families]


def test_its_presets_are_said_to_be_unmeasured() -> None:
    model = make_flux2()
    method = find_method("eraseanything")
    suited = method.suited(model, CONCEPTS)
    assert (suited.guidance_rollout, suited.shift_mu) == (4.0, 2.02)
    few = method.suited(replace(model, family=DISTILLED), CONCEPTS)
    assert (few.guidance_rollout, few.rollout_steps) == (1.0, 4)
    for family in (model.family, DISTILLED):
        assert not any(p["measured"] for p in family.presets["eraseanything"].values())
