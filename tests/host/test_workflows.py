"""The workflows of ``workflows/`` fit the nodes and run; tests/test_layout.py looks at them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.host.client import Client, Graph, Run
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
    "EraseAnythingReport": {"steps": 2, "count": 2},
    "EraseAnythingAttentionMap": {"steps": 3},
    "KSampler": {"steps": 2},
}


ENDING = ".safetensors"
PICTURES = ("PreviewImage", "MaskPreview", "EraseAnythingPreview")


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
        "instant eraser, guard or NAG",
    )
    wanted = {f"{base} {what}" for base in ("MiniFlux", "Flux.1-dev") for what in first}
    others = {
        "MiniFlux style erasure",
        "MiniFlux count what went",
        SAVED,
        "Z-Image-Turbo guard any model",
        *KLEIN,
        *Z_IMAGE,
    }
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


@pytest.mark.parametrize("name", [name for name in MINIFLUX if name != SAVED])
def test_a_workflow_runs(name: str, server: Client, info: dict[str, Any]) -> None:
    leave_out_what_is_newer(name, info)
    check_pictures(server.run(quick(twin(name))), twin(name))


def check_pictures(run: Run, graph: Graph) -> None:
    assert run.ok, run.history["status"]
    kinds = {key: item["class_type"] for key, item in graph.items()}
    assert all(run.ui(key)["images"] for key, kind in kinds.items() if kind in PICTURES)
    assert {*PICTURES, "EraseAnythingReport"} & {*kinds.values()}


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
    check_pictures(toys.run(graph | {"toy": node(toy)}), graph)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MINIFLUX])
def test_a_workflow_names_the_files_to_fetch(name: str) -> None:
    """Each file that a loader names, where it is, and the folder it belongs to."""
    told: dict[str, set[str]] = {}
    for item in saved(name)["nodes"]:
        widgets = [text for text in item.get("widgets_values", []) if str(text).endswith(ENDING)]
        files = item["properties"].get("models", [])
        if "Load" in item["type"]:
            assert [file["name"] for file in files] == widgets and files
        for file in files:
            assert file["url"].startswith("https://huggingface.co/")
            assert file["url"].endswith(f"/{file['name']}")
            told.setdefault(file["directory"], set()).add(file["name"])
    parts = {"diffusion_models", "text_encoders", "vae"}
    assert {*told} == ({"checkpoints"} if name in SD3 else parts)


def test_a_saved_eraser_is_found_again(server: Client) -> None:
    file = server.base / "models" / "loras" / "eraser_tiger_00001.safetensors"
    if not file.exists():
        assert server.run(quick(twin("MiniFlux erase and compare"))).ok
    run = server.run(quick(twin(SAVED)))
    assert run.ok, run.history["status"]
