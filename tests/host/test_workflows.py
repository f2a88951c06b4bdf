"""The workflows of ``workflows/``: they fit the nodes, read well and run."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.host.client import Client, Graph
from tests.host.graphs import SMALL, node

FOLDER = Path(__file__).parents[2] / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
MINIFLUX = [name for name in NAMES if name.startswith("MiniFlux")]
BOTH = ("attention maps", "erase and compare")
KLEIN = [f"FLUX.2-klein-4B {what}" for what in BOTH]
Z_IMAGE = [f"Z-Image {what}" for what in BOTH]
SD3 = [f"SD3.5-medium {what}" for what in BOTH]
QWEN_IMAGE = [f"Qwen-Image {what}" for what in BOTH]
TOYS = {"FLUX.2-klein-4B": "ToyKlein", "Z-Image": "ToyZImage", "SD3.5-medium": "ToySD3"}
TOYS |= {"Qwen-Image": "ToyQwenImage"}
SAVED = "MiniFlux use a saved eraser"
NEWER = ("bypass",)  # inputs of core's nodes that ComfyUI 0.3.64 has not and does without
QUICK: dict[str, dict[str, Any]] = {
    "EraseAnythingTrain": {"steps": 2, "width": 64, "height": 64, "preview_every": 2},
    "EraseAnythingPreview": {"steps": 2, "seeds": 1},
    "EraseAnythingAttentionMap": {"steps": 3},
    "KSampler": {"steps": 2},
}


def saved(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def twin(name: str) -> Graph:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text("utf-8"))


def quick(graph: Graph) -> Graph:
    """The same graph with few steps everywhere."""
    for item in graph.values():
        item["inputs"] |= QUICK.get(item["class_type"], {})
        if item["class_type"] == "EraseAnythingTrain":
            item["inputs"]["settings"] = ["settings", 0]
    return graph | {"settings": node("EraseAnythingSettings", **SMALL)}


@pytest.fixture(scope="module")
def info(server: Client) -> dict[str, Any]:
    return server.get("/object_info")


def test_all_that_was_promised_is_there() -> None:
    first = (
        "erase and compare",
        "erase in a second",
        "attention maps",
        "two concepts combined",
        "guard any model",
        "eraser, instant eraser, guard or NAG",
    )
    wanted = {f"{base} {what}" for base in ("MiniFlux", "Flux.1-dev") for what in first}
    others = {"MiniFlux style erasure", SAVED, "Z-Image-Turbo guard any model", *KLEIN, *Z_IMAGE}
    others |= {*SD3, *QWEN_IMAGE}
    others |= {"Chroma1-HD erase in a second"}
    assert wanted | others == set(NAMES)
    assert {path.stem for path in (FOLDER / "api").glob("*.json")} == set(NAMES)
    for name in NAMES:
        with Image.open(FOLDER / f"{name}.jpg") as picture:
            assert min(picture.size) >= 256 and max(picture.size) <= 1024


def leave_out_what_is_newer(name: str, info: dict[str, Any]) -> None:
    """ComfyUI 0.3.64 has no NAG and no FLUX.2."""
    lacking = {item["class_type"] for item in twin(name).values()} - set(info)
    assert lacking <= {"NAGuidance", "EmptyFlux2LatentImage"}
    if name in KLEIN and "EmptyFlux2LatentImage" not in info:
        pytest.skip("this ComfyUI has no FLUX.2")
    if lacking:
        pytest.skip(f"this ComfyUI has no {', '.join(lacking)}")


@pytest.mark.parametrize("name", NAMES)
def test_a_twin_gives_every_input(name: str, info: dict[str, Any]) -> None:
    leave_out_what_is_newer(name, info)
    for item in twin(name).values():
        known = info[item["class_type"]]["input"]
        specs = known.get("required", {}) | known.get("optional", {})
        inputs = {k: v for k, v in item["inputs"].items() if k in specs or k not in NEWER}
        assert set(known.get("required", {})) <= set(inputs) <= set(specs)
        for key, value in inputs.items():
            spec = specs[key]
            if isinstance(value, list):
                source = twin(name)[value[0]]["class_type"]
                assert info[source]["output"][value[1]] == spec[0]
            elif isinstance(spec[0], list) and ".safetensors" not in value:
                assert value in spec[0]
            elif spec[0] == "COMBO" and ".safetensors" not in value:
                assert value in spec[1]["options"]


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_can_be_read(name: str) -> None:
    """Nodes do not overlap, each lies in a titled group, a note says what to do."""
    graph = saved(name)
    frames = [_rectangle(group["bounding"]) for group in graph["groups"]]
    nodes = {item["id"]: _rectangle([*item["pos"], *item["size"]], 30) for item in graph["nodes"]}
    assert [item["type"] for item in graph["nodes"]].count("MarkdownNote") == 1
    assert not [pair for pair in combinations(nodes.values(), 2) if _touch(*pair)]
    assert not [pair for pair in combinations(frames, 2) if _touch(*pair)]
    for item in graph["nodes"]:
        inside = [frame for frame in frames if _touch(frame, nodes[item["id"]])]
        assert len(inside) == (item["type"] != "MarkdownNote")


@pytest.mark.parametrize("name", [name for name in MINIFLUX if name != SAVED])
def test_a_workflow_runs(name: str, server: Client, info: dict[str, Any]) -> None:
    leave_out_what_is_newer(name, info)
    run = server.run(quick(twin(name)))
    assert run.ok, run.history["status"]
    shown = [key for key, item in twin(name).items() if item["class_type"] == "PreviewImage"]
    assert shown and all(run.ui(key)["images"] for key in shown)


@pytest.mark.parametrize("name", [*KLEIN, *Z_IMAGE, *SD3, *QWEN_IMAGE])
def test_a_workflow_of_a_newer_family_runs_with_a_toy(name: str, toys: Client) -> None:
    if name in (*KLEIN, *Z_IMAGE) and "EmptyFlux2LatentImage" not in toys.get("/object_info"):
        pytest.skip("this ComfyUI has neither FLUX.2 nor Z-Image")
    graph = quick(twin(name))
    first = {"UNETLoader": 0, "CLIPLoader": 1, "VAELoader": 2, "CheckpointLoaderSimple": 0}
    outputs = {key: first[item["class_type"]] for key, item in graph.items()
               if item["class_type"] in first}  # fmt: skip
    graph = {key: item for key, item in graph.items() if key not in outputs}
    for item in graph.values():
        for given, value in item["inputs"].items():
            if isinstance(value, list) and value[0] in outputs:
                item["inputs"][given] = ["toy", outputs[value[0]] + value[1]]
        item["inputs"] |= {side: 64 for side in ("width", "height") if side in item["inputs"]}
    toy = next(toy for base, toy in TOYS.items() if name.startswith(base))
    run = toys.run(graph | {"toy": node(toy)})
    assert run.ok, run.history["status"]
    shown = [key for key, item in graph.items() if item["class_type"] == "PreviewImage"]
    assert shown and all(run.ui(key)["images"] for key in shown)


def test_newer_families_name_the_files_to_fetch() -> None:
    for name in [*KLEIN, *Z_IMAGE, *SD3, *QWEN_IMAGE]:
        told = {
            item["type"]: (item["properties"]["models"], item["widgets_values"])
            for item in saved(name)["nodes"]
            if "models" in item["properties"]
        }
        folders = {}
        for kind, ([file], widgets) in told.items():
            assert file["name"] == widgets[0] == file["url"].rpartition("/")[2]
            whose = {
                "FLUX": "flux2-", "Z-Im": "z_image", "SD3.": "stable-diffusion-3.5",
                "Qwen": "Qwen-Image_ComfyUI",
            }[name[:4]]  # fmt: skip
            assert file["url"].startswith(f"https://huggingface.co/Comfy-Org/{whose}")
            folders[kind] = file["directory"]
        whole = {"CheckpointLoaderSimple": "checkpoints"}
        parts = {"UNETLoader": "diffusion_models", "CLIPLoader": "text_encoders"}
        assert folders == (whole if name in SD3 else parts | {"VAELoader": "vae"})


def test_a_saved_eraser_is_found_again(server: Client) -> None:
    file = server.base / "models" / "loras" / "eraser_tiger_00001.safetensors"
    if not file.exists():
        assert server.run(quick(twin("MiniFlux erase and compare"))).ok
    run = server.run(quick(twin(SAVED)))
    assert run.ok, run.history["status"]


def _rectangle(box: list[float], above: float = 0) -> tuple[float, float, float, float]:
    """Left, top, right, bottom; a node's title lies above its position."""
    return box[0], box[1] - above, box[0] + box[2], box[1] + box[3]


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
