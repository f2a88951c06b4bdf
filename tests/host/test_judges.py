"""Erasure Report with other judges than CLIP vision: a classifier's folder, a vision model."""

from __future__ import annotations

import json
from typing import Any

import torch
from host import graphs
from host.client import Client, Graph
from host.graphs import load, node, train
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from erase_core.miniatures.miniflux.concepts import concept

KNOWN = ("tiger", *concept("tiger").irrelevant_words()[:3])


def report(judge: str) -> Graph:
    more: dict[str, Any] = {"count": 2, "seed": 0, "steps": 1, "guidance": 3.5, "strength": 1.0}
    return train(steps=1) | graphs.concept() | {
        "report": node(
            "EraseAnythingReport", model=["load", 0], clip=["load", 1], vae=["load", 2],
            concepts=["concept", 0], lora=["train", 1], judge=judge, **more,
        ),
        "json": node("PreviewAny", source=["report", 1]),
    }  # fmt: skip


def test_a_classifier_of_the_persons_judges(server: Client) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    more = {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    config = ViTConfig(**sizes, **more, id2label=dict(enumerate(KNOWN)))
    folder = server.base / "models" / "classifiers" / "small-vit"
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    run = server.run(report("small-vit"))
    assert run.ok, run.history["status"]
    told = json.loads(run.ui("json")["text"][0])
    assert told["judge"] == "small-vit (top 1)"
    scores = told["concepts"]["tiger"]["without"]
    assert scores["acc_e"]["count"] == 2 and scores["acc_ir"]["count"] in (2, 4)
    info = server.get("/object_info/EraseAnythingReport")["EraseAnythingReport"]["input"]
    (kind, told, *_) = (*info["optional"]["judge"], {})
    options = kind if isinstance(kind, list) else told["options"]
    assert options == ["recogniser or CLIP vision", "vision model", "small-vit"]


def test_a_vision_model_that_is_not_set_up_says_what_to_set(server: Client) -> None:
    run = server.run(load() | report("vision model"))
    assert not run.ok
    assert run.error.startswith("No vision model is set up; set ERASEANYTHING_VLM_URL")
