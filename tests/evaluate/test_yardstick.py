"""What is measured of pictures: detections with intervals, FID by the field's own network."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from statistics import variance
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from erase_core.cli.main import main
from erase_core.errors import EraseError
from erase_core.evaluate.judges.inception import Inception
from erase_core.evaluate.judges.nudenet import CLASSES, CONFIDENCE, NudeNet
from erase_core.evaluate.suites.gallery import Gallery, kept
from erase_core.evaluate.suites.prompts import Prompt
from erase_core.evaluate.suites.yardstick import Fidelity, Yardstick, detections

Capture = pytest.CaptureFixture[str]


def test_detections_and_pictures_with_any_are_told_apart() -> None:
    """Three parts in one picture are three detections, and one picture."""
    found = [Counter(feet=2, belly=1), Counter[str](), Counter(feet=1), Counter[str]()]
    row = detections(found)
    assert (row["exposed"], row["pictures"], row["by_class"]) == (4, 4, {"belly": 1, "feet": 3})
    assert (row["any"]["hits"], row["any"]["count"]) == (2, 4)
    half = 1.96 * sqrt(4 * variance([3, 0, 1, 0]))  # of a sum over pictures
    assert row["exposed_interval"] == pytest.approx([max(0, 4 - half), 4 + half], abs=0.1)


def test_nudenet_says_what_it_is_and_counts_what_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nudenet")
    from nudenet.nudenet import __dict__ as module

    exposed = {name for name in module["__labels"] if name.endswith("_EXPOSED")}
    assert set(CLASSES) == exposed  # of the version that is installed
    judge = NudeNet()
    assert judge.told()["threshold"] == 0.6 and judge.told()["classes"] == list(CLASSES)
    seen = [
        {"class": "FEET_EXPOSED", "score": CONFIDENCE},
        {"class": "FEET_EXPOSED", "score": 0.59},
        {"class": "FEET_COVERED", "score": 0.9},
    ]
    asked: list[Any] = []
    monkeypatch.setattr(judge._detector, "detect", lambda picture: asked.append(picture) or seen)
    picture = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    picture[..., 0] = 200  # red
    assert judge.found(picture) == [Counter(FEET_EXPOSED=1)]
    assert asked[0][0, 0].tolist() == [0, 0, 200]  # BGR


def means(parts: Any) -> Tensor:
    return torch.cat([part.float().mean((1, 2)) for part in parts])


def pictures(shift: int) -> Tensor:
    generator = torch.Generator().manual_seed(shift)
    return torch.randint(50, 150, (40, 6, 6, 3), generator=generator, dtype=torch.uint8) + shift


def test_fid_is_taken_against_real_pictures_or_the_untouched_model(tmp_path: Path) -> None:
    before, after = pictures(0), pictures(60)
    own = Yardstick([], fidelity=Fidelity(means))
    row = own.measure(lambda: after.split(16), lambda: before.split(16))
    assert row["fid_to_untouched"] == pytest.approx(3 * 60**2, rel=0.05)  # of a shift of the mean
    assert own.measure(lambda: [before], lambda: [before]) == {"fid_to_untouched": 0.0}
    for number, picture in enumerate(after):
        Image.fromarray(picture.numpy()).save(tmp_path / f"{number}.png")
    real = Yardstick([], fidelity=Fidelity(means, tmp_path))
    assert real.measure(lambda: [after], lambda: [before])["fid"] == pytest.approx(0, abs=1e-3)
    assert real.measure(lambda: [before], lambda: [before])["fid"] > 3000
    with pytest.raises(EraseError, match="no pictures in"):
        Fidelity(means, tmp_path / "none")


def test_fid_without_its_network_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    name = "torch_fidelity.feature_extractor_inceptionv3"
    monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "prompts.txt").write_text("a rose\na cat\n")
    argv = ["bench", "--suite", "coco", "--prompts", str(tmp_path / "prompts.txt")]
    argv += ["--out", str(tmp_path / "out")]
    assert main([*argv, "--inception", str(tmp_path / "inception.safetensors")]) == 1
    assert "FID needs torch-fidelity; run: pip install torch-fidelity." in capsys.readouterr().err
    assert main([*argv, "--clip", str(tmp_path), "--real", str(tmp_path)]) == 1


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of torch-fidelity's Inception, as safetensors."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *a, **more: {})
        network = module.FeatureExtractorInceptionV3
        patch.setattr(network, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        state = network("fid", ["2048"]).state_dict()
    save_file({name: t.clone() for name, t in state.items()}, tmp_path / "inception.safetensors")
    return tmp_path / "inception.safetensors"


def test_fid_is_that_of_torch_fidelity(weights: Path) -> None:
    """torch-fidelity's own formula over its own network's features."""
    metric = pytest.importorskip("torch_fidelity.metric_fid")
    before, after = pictures(0)[:6], pictures(60)[:6]
    inception = Inception(weights)
    features = [inception.features(p.split(4)) for p in (before, after)]
    network = inception._network
    direct = network(after.permute(0, 3, 1, 2).contiguous())[0]
    torch.testing.assert_close(features[1], direct.double(), atol=1e-4, rtol=1e-4)
    told = [metric.fid_features_to_statistics(each) for each in features]
    theirs = metric.fid_statistics_to_metric(*told, False)["frechet_inception_distance"]
    ours = Yardstick([], fidelity=Fidelity(inception.features))
    row = ours.measure(lambda: [after], lambda: [before])
    assert row["fid_to_untouched"] == pytest.approx(float(theirs), rel=1e-3, abs=1e-2)


def test_other_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(EraseError, match="no weights of torch-fidelity's Inception"):
        Inception(tmp_path / "other.safetensors")


class Drawer:
    """Draws flat pictures, and counts them."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        self.drawn += len(prompts)
        return torch.stack([torch.full((4, 6, 3), seed, dtype=torch.uint8) for seed in seeds])


def gallery(folder: Path, **how: Any) -> Gallery:
    return Gallery(folder, [Prompt(f"a cat {n}", n) for n in range(5)], how)


def test_a_gallery_draws_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    draw, told = Drawer(), list[int]()
    first = gallery(tmp_path, steps=2)
    first.fill(draw, 2, told.append)
    assert draw.drawn == 5 and told == [0, 2, 4, 5]
    assert [int(p[0, 0, 0]) for p in first.whole()] == [0, 1, 2, 3, 4]
    first.file(3).unlink()
    again = gallery(tmp_path, steps=2)
    assert again.missing() == [3]
    again.fill(draw, 2, told.append)
    assert draw.drawn == 6 and torch.equal(again.whole(), first.whole())
    with pytest.raises(EraseError, match=r"pictures of another order \(steps\)"):
        gallery(tmp_path, steps=3).fill(draw, 2, told.append)
    assert draw.drawn == 6


def test_what_is_kept_is_measured_once_for_a_key(tmp_path: Path) -> None:
    made: Iterator[int] = iter(range(9))
    path = tmp_path / "row.json"

    def make() -> dict[str, int]:
        return {"a": next(made)}

    assert [kept(path, {"k": k}, make)["a"] for k in (1, 1, 2, 2)] == [0, 0, 1, 1]
