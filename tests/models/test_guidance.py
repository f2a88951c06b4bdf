"""Models that draw with a negative prompt, and their distilled siblings, which draw without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from klein import save_pipeline
from models.kinds import FLUX2, QWEN_IMAGE, SD3, ZIMAGE, Kind
from torch import Tensor

PROMPT = "a photo of a tiger"


@pytest.mark.parametrize(
    "kind", [FLUX2, ZIMAGE, SD3, QWEN_IMAGE], ids=lambda kind: kind.family.name
)
def test_sampling_is_guided_eulers(kind: Kind) -> None:
    """By diffusers' velocities."""
    model = kind.make()
    cond, x = model.text.encode([PROMPT]), model.noise([5])
    drawn = model.sample(cond, x, steps=3)
    assert cond.negative is not None
    for high, low in zip(model.sigmas(3), model.sigmas(3)[1:], strict=False):
        v, v_n = (
            kind.family.witness(model.tree, model.config, x, high, c, None)
            for c in (cond, cond.negative)
        )
        x = x + (low - high) * (v_n + kind.family.guidance * (v - v_n))
    torch.testing.assert_close(drawn, x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (FLUX2, "a pipeline's folder"),
        (FLUX2, "flux-2-klein-4b.safetensors"),
        (QWEN_IMAGE, "qwen_image_distill_full_fp8_e4m3fn.safetensors"),
        (QWEN_IMAGE, "Qwen-Image-Lightning"),
        (SD3, "sd3.5_large_turbo.safetensors"),
        (SD3, "stable-diffusion-3.5-large-turbo"),
        (ZIMAGE, "z_image_turbo_bf16.safetensors"),
        (ZIMAGE, "Z-Image-Turbo"),
        (ZIMAGE, "models--Z-Image-Turbo/snapshots/0123"),
    ],
)
def test_the_distilled_model_draws_in_few_steps_without_guidance(
    kind: Kind, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if "pipeline" in name:
        save_pipeline(path, distilled=True)
    elif path.suffix != ".safetensors":
        path.mkdir(parents=True)
    family = kind.family.of(path)
    assert (family.steps, family.guidance) == (kind.few, 1.0)
    assert family.name == kind.family.name and "train on the base model" in family.notice
    model, calls = kind.make(family=family), list[int]()
    cond, x = model.text.encode([PROMPT]), model.noise([5])

    def note(name: str, x: Tensor, y: Tensor) -> Tensor:
        calls.extend([1] if name == kind.reads else [])
        return y

    model.sample(cond, x, note)
    assert len(calls) == kind.few


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (FLUX2, "flux-2-klein-base-4b.safetensors"),
        (FLUX2, "mine.safetensors"),
        (QWEN_IMAGE, "qwen_image_fp8_e4m3fn.safetensors"),
        (SD3, "sd3.5_large_fp8_scaled.safetensors"),
        (ZIMAGE, "z_image_bf16.safetensors"),
        (ZIMAGE, "mine.safetensors"),
    ],
)
def test_other_names_are_the_base_model(kind: Kind, name: str, tmp_path: Path) -> None:
    assert kind.family.of(tmp_path / name) is kind.family
    assert kind.family.of(None) is kind.family and not kind.family.notice
