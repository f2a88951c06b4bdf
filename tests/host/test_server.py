"""Graphs through a live ComfyUI, over HTTP and websocket."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from host import graphs
from host.client import Client, Graph, Run
from host.conftest import HOST, command, running
from host.graphs import draw, load, node, train
from host.pictures import difference, loras, picture
from PIL import Image

from erase_core.evaluate.report.workflow import workflow
from erase_core.tensors import read_tensors

IDS = {
    "LoadFlux", "ConceptSet", "ConceptSetLLM", "ConceptSetIO", "AttentionMap", "Train", "Settings",
    "Preview", "Report", "Save", "Combine", "Guard", "GuardPrompt", "Instant", "Each",
}  # fmt: skip
LOSSES = ("esd", "attn", "lora", "rsc", "adv")
# The host's own; the last says why a backend is not there ("ImportError").
OWN_WARNINGS = (
    r"User settings have been changed|multi-user CLI argument|Found comfy_kitchen backend"
)


def lora_list(server: Client) -> list[str]:
    """The LoRA list as a page gets it."""
    info = server.get("/object_info/LoraLoaderModelOnly")["LoraLoaderModelOnly"]
    options = info["input"]["required"]["lora_name"]
    return options[0] if isinstance(options[0], list) else options[1]["options"]


@pytest.fixture(scope="module")
def trained(server: Client) -> Run:
    """The first training run, as a user's first graph."""
    graph = train(steps=4, preview_every=2, vae=["load", 2], filename_prefix="first/tiger")
    run = server.run(graph)
    assert run.ok, run.history["status"]
    return run


def test_the_host_loads_the_package_without_a_warning(
    base: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        command(base, "--quick-test-for-ci"),
        cwd=HOST,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    assert re.search(r"seconds: .*eraseanything", log) and "IMPORT FAILED" not in log
    loud = re.findall(r".*(?:warning|error|traceback).*", log, re.IGNORECASE)
    assert [line for line in loud if not re.search(OWN_WARNINGS, line)] == []


def test_every_node_explains_itself(server: Client) -> None:
    info = server.get("/object_info")
    ours = {name: value for name, value in info.items() if name.startswith("EraseAnything")}
    assert set(ours) == {f"EraseAnything{name}" for name in IDS}
    for name, value in ours.items():
        assert value["category"] == "EraseAnything" and value["description"], name
        inputs = {**value["input"].get("required", {}), **value["input"].get("optional", {})}
        assert all(options[1].get("tooltip") for options in inputs.values()), name
        assert all(value["output_tooltips"]), name


def test_a_training_run_tells_its_state_as_it_goes(trained: Run, server: Client) -> None:
    events = trained.events("eraseanything.progress")
    assert {event["node"] for event in events} == {"train"}
    assert {event["prompt_id"] for event in events} == {trained.prompt_id}
    phases = list(dict.fromkeys(event["phase"] for event in events))
    assert phases == ["text", "rollouts", "training", "done"]
    rows: list[Any] = []
    for event in events:
        assert event["first"] == len(rows) + 1
        rows += event["history"]
    assert len(rows) == 4 and all(len(row) == len(LOSSES) for row in rows)
    assert all(value > 0 for row in rows for value in row)
    assert re.match(r"about \d+ (s|min), .* of memory .* on disk$", events[-1]["estimate"])
    assert any(len(message) > 1000 for message in trained.binaries), "no preview picture came"
    bars = [(b["value"], b["max"]) for b in trained.events("progress") if b["node"] == "train"]
    assert (1, 4) in bars and bars[-1] == (4, 4)  # the training's bar begins anew
    state = server.get(f"/eraseanything/state?node=train&prompt_id={trained.prompt_id}")
    assert state["phase"] == "done" and state["history"] == rows
    assert server.get("/eraseanything/state?node=nobody") is None
    (told,) = trained.ui("train")["eraseanything_train"]
    assert told["history"] == rows and told["steps"] == 4 and told["stopped"] == "done"


def test_the_lora_is_in_the_list_with_its_metadata(trained: Run, server: Client) -> None:
    name = "first/tiger_00001.safetensors"
    assert trained.ui("train")["eraseanything_train"][0]["file"] == name
    assert name in lora_list(server)
    tensors, metadata = read_tensors(loras(server) / name)
    assert set(tensors) == {
        f"transformer.transformer_blocks.{block}.attn.{part}.lora_{side}.weight"
        for block in range(2)
        for part in ("add_q_proj", "add_k_proj")
        for side in "AB"
    }
    assert json.loads(metadata["erase.concepts"])["concepts"][0]["name"] == "tiger"
    assert metadata["erase.base"] == "transformer" and len(metadata["erase.base_sha256"]) == 64
    assert metadata["erase.steps"] == "4" and metadata["ss_network_dim"] == "4"


def test_the_saved_file_draws_what_the_trainers_model_draws(trained: Run, server: Client) -> None:
    graph = train(steps=4, preview_every=2, vae=["load", 2], filename_prefix="first/tiger")
    direct = server.run(graph | draw(["train", 0]))
    plain = server.run(load() | draw(["load", 0]))
    stored = server.run(
        load()
        | draw(["lora", 0])
        | {
            "lora": node(
                "LoraLoaderModelOnly",
                model=["load", 0],
                lora_name="first/tiger_00001.safetensors",
                strength_model=1.0,
            )
        }
    )
    assert direct.ok and plain.ok and stored.ok
    assert "train" in direct.events("execution_cached")[0]["nodes"]  # nothing trained anew
    assert difference(picture(server, direct), picture(server, stored)) <= 1
    assert difference(picture(server, direct), picture(server, plain)) > 1


def test_two_runs_with_one_seed_write_the_same_bytes_and_another_seed_others(
    server: Client,
) -> None:
    runs = {("one", 5): b"", ("two", 5): b"", ("three", 6): b""}
    for name, seed in runs:
        assert server.run(train(steps=2, seed=seed, filename_prefix=name)).ok
        runs[name, seed] = (loras(server) / f"{name}_00001.safetensors").read_bytes()
    one, two, three = runs.values()
    assert one == two != three


def test_three_concepts_in_a_row_finish_each_with_its_file_and_memory_stays_flat(
    server: Client,
) -> None:
    def memory() -> float:
        status = Path(f"/proc/{server.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+)", status)
        assert match
        return int(match[1]) / 1024  # MB

    queued = [server.queue(train(name, steps=2)) for name in ("cat", "red", "hugging")]
    sizes = []
    for prompt_id in queued:
        assert server.finished(prompt_id)["status"]["status_str"] == "success"
        sizes.append(memory())
    for name in ("cat", "red", "hugging"):
        _, metadata = read_tensors(loras(server) / f"eraser_{name}_00001.safetensors")
        concepts = json.loads(metadata["erase.concepts"])["concepts"]
        assert [concept["name"] for concept in concepts] == [name]
    assert sizes[-1] - sizes[0] < 60, sizes


def test_a_changed_input_starts_from_nothing_stale(server: Client) -> None:
    before = server.run(train("lion", steps=2, filename_prefix="stale"))
    again = server.run(train("lion", steps=2, filename_prefix="stale"))
    changed = server.run(train("lion", steps=3, filename_prefix="stale"))
    assert before.ok and again.ok and changed.ok
    assert again.events("eraseanything.progress") == []  # the host's cache answered
    (told,) = changed.ui("train")["eraseanything_train"]
    assert told["steps"] == 3 and told["file"] == "stale_00002.safetensors"
    first = before.ui("train")["eraseanything_train"][0]["history"]
    assert told["history"][:2] == first  # the same draws, from the start


def test_a_cancelled_run_keeps_its_lora_and_can_be_resumed(server: Client) -> None:
    long = {"filename_prefix": "long", "checkpoint_every": 1000}  # it has the one of the cancel
    run = server.run(train("dog", steps=2000, **long), cancel_at=2)
    assert run.events("execution_interrupted")
    state = server.get("/eraseanything/state?node=train")
    assert state["phase"] == "cancelled" and state["file"].startswith("long_00001.partial-")
    assert state["file"] in lora_list(server)
    other = loras(server) / "long_00001.partial-9.safetensors"  # of another run
    other.write_text("mine")
    done = len(state["history"])
    bad = server.run(train("dog", steps=2000, targets="add_x_proj", **long))  # starts anew, fails
    assert "Unknown LoRA target" in bad.error
    resumed = server.run(train("dog", steps=done + 2, run="resume", **long))
    assert resumed.ok, resumed.history["status"]
    (told,) = resumed.ui("train")["eraseanything_train"]
    assert told["steps"] == done + 2 and told["history"][:done] == state["history"]
    first = next(e for e in resumed.events("eraseanything.progress") if e["phase"] == "training")
    assert first["step"] == done + 1
    whole = server.run(train("dog", steps=done + 2, filename_prefix="whole"))
    assert whole.ok
    ours, _ = read_tensors(loras(server) / told["file"])
    theirs, _ = read_tensors(loras(server) / "whole_00001.safetensors")
    assert all(ours[key].equal(theirs[key]) for key in theirs)  # as if it had never stopped
    assert not list((server.base / "output").rglob("long.steps"))
    assert told["file"] == "long_00001.safetensors"  # as the next graph expects
    assert {p.name for p in loras(server).glob("long*")} == {told["file"], other.name}


def test_ctrl_c_on_the_server_keeps_the_work(
    tmp_path: Path, base: Path, environment: dict[str, str]
) -> None:
    for name in ("custom_nodes", "user", "input", "output", "temp", "models/loras"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "custom_nodes" / "eraseanything").symlink_to(
        (base / "custom_nodes" / "eraseanything").resolve()
    )
    with running(tmp_path, environment) as own:
        own.queue(train(steps=2000, checkpoint_every=1000, filename_prefix="stopped"))
        while (own.get("/eraseanything/state?node=train") or {"phase": ""})["phase"] != "training":
            time.sleep(0.1)
        os.kill(own.pid, signal.SIGINT)
        os.waitpid(own.pid, 0)
    (partial,) = (tmp_path / "models" / "loras").iterdir()
    assert partial.name.startswith("stopped_00001.partial-")
    kept = tmp_path / "output" / "eraseanything" / "checkpoints" / "stopped.steps"
    assert [path.name.split("-")[0] for path in kept.iterdir()] == ["step"]


def test_words_that_miniflux_cannot_draw_are_told(server: Client) -> None:
    graph = train(steps=1, filename_prefix="words")
    graph["concept"]["inputs"] |= {"irrelevant_far": "car, castle, glacier, apple"}
    run = server.run(graph)
    (told,) = run.ui("train")["eraseanything_train"]
    wanted = "MiniFlux cannot draw “castle” and 1 more: set the Concept Set's source to MiniFlux"
    assert wanted in told["estimate"]


def test_a_resume_that_finds_nothing_says_so(server: Client) -> None:
    run = server.run(train(filename_prefix="fresh", run="resume"))
    assert run.ok
    assert any("nothing to resume" in e["estimate"] for e in run.events("eraseanything.progress"))


def test_attention_maps_show_every_word(server: Client) -> None:
    prompt = "a tiger left of a car"
    look = {
        "model": ["load", 0], "clip": ["load", 1], "vae": ["load", 2], "prompt": prompt,
        "words": "tiger, car", "blocks": "1", "at_steps": "0-2", "steps": 4, "width": 192,
        "height": 128, "seed": 1, "guidance": 3.5,
    }  # fmt: skip
    graph = load() | {
        "map": node("EraseAnythingAttentionMap", **look),
        "save": node("SaveImage", images=["map", 1], filename_prefix="grid"),
        "mask": node("MaskToImage", mask=["map", 2]),
        "save2": node("SaveImage", images=["mask", 0], filename_prefix="mask"),
    }
    run = server.run(graph)
    assert run.ok, run.history["status"]
    (told,) = run.ui("map")["eraseanything_attention"]
    assert [word["text"] for word in told["words"]] == ["tiger", "car", "a", "left", "of"]
    assert [word["asked"] for word in told["words"]] == [True, True, False, False, False]
    for word in told["words"]:
        assert all(prompt[a:b].lower() == word["text"] for a, b in word["spans"])
        assert word["heat"].startswith("data:image/png;base64,") and 0 < word["top"] <= 1
    assert len(run.ui("save")["images"]) == len(run.ui("save2")["images"]) == 2
    mask = Image.open(server.base / "output" / run.ui("save2")["images"][0]["filename"])
    assert mask.size == (192, 128) and mask.convert("L").getextrema()[1] > 230
    graph["map"]["inputs"]["words"] = "zebra"
    assert '"zebra" is not in the prompt' in server.run(graph).error


def test_preview_combine_and_save(trained: Run, server: Client) -> None:
    file = {"lora_file": "first/tiger_00001.safetensors"}
    graph = load() | {
        "both": node(
            "EraseAnythingCombine",
            method="cat",
            lora_file_1=file["lora_file"],
            weight_1=0.5,
            lora_file_2=file["lora_file"],
            weight_2=0.5,
        ),
        "keep": node(
            "EraseAnythingSave", lora=["both", 0], filename_prefix="both", folder="output/loras"
        ),
        "look": node(
            "EraseAnythingPreview", model=["load", 0], clip=["load", 1], vae=["load", 2],
            prompts="a tiger\na car", strengths="0, 1", seed=0, seeds=1, width=64, height=64,
            steps=2, guidance=3.5, blur=True, **file,
        ),
        "save": node("SaveImage", images=["look", 1], filename_prefix="look"),
    }  # fmt: skip
    run = server.run(graph)
    assert run.ok, run.history["status"]
    assert run.ui("keep")["eraseanything_save"][0]["file"] == "both_00001.safetensors"
    tensors, metadata = read_tensors(server.base / "output" / "loras" / "both_00001.safetensors")
    single, _ = read_tensors(loras(server) / file["lora_file"])
    for key, down in single.items():
        if ".lora_A." in key:
            up = key.replace(".lora_A.", ".lora_B.")
            change = tensors[up] @ tensors[key]
            assert (change - single[up] @ down).abs().max() < 1e-6
    assert "tiger" in metadata["erase.combined"]
    assert "both_00001.safetensors" in lora_list(server)
    assert len(run.ui("look")["images"]) == 1 and len(run.ui("save")["images"]) == 4
    assert "4 of the file's 4 weights are patched" in run.ui("look")["text"][0]


def test_the_cards_workflow_draws_without_and_with_the_lora(trained: Run, server: Client) -> None:
    how = {"size": "128x128", "steps": 2, "guidance": 3.5}
    lora, prompt = "first/tiger_00001.safetensors", "a tiger on a green background"
    made = workflow({}, lora, prompt, how)
    assert made is not None
    run = server.run(made)
    assert run.ok and len(run.ui("102")["images"]) == len(run.ui("202")["images"]) == 1
    known = server.get("/object_info")
    whole = dict.fromkeys(("model", "clip_l", "t5", "vae"), "a.safetensors")
    for item in (workflow(whole, lora, prompt, how) or {}).values():  # every input is the host's
        told = known[item["class_type"]]["input"]
        required = {*told["required"]}
        assert required <= item["inputs"].keys() <= required | {*told.get("optional", {})}


def test_the_report_counts_what_is_recognised(trained: Run, server: Client) -> None:
    graph = load() | graphs.concept() | {
        "report": node(
            "EraseAnythingReport", model=["load", 0], clip=["load", 1], vae=["load", 2],
            concepts=["concept", 0], count=2, seed=0, steps=2, guidance=3.5, strength=1.0,
            lora_file="first/tiger_00001.safetensors",
        ),
        "text": node("PreviewAny", source=["report", 0]),
    }  # fmt: skip
    run = server.run(graph)
    assert run.ok, run.history["status"]
    (told,) = run.ui("report")["eraseanything_report"]
    scores = told["report"]["concepts"]["tiger"]
    for side in ("without", "with"):
        assert scores[side]["acc_e"]["count"] == scores[side]["acc_g"]["count"] == 2
        assert scores[side]["acc_ir"]["count"] == 5 and 0 <= scores[side]["ho"] <= 1
    assert told["table"][0] == ["", "without", "with the eraser", "pictures"]
    (verdict,) = told["verdicts"]
    rates = [f"{100 * scores[s][r]['value']:.0f} %" for r in ("acc_e", "acc_ir") for s in scores]
    assert re.findall(r"\d+ %", verdict) == rates and verdict.startswith("tiger ")
    assert run.ui("text")["text"][0].startswith(verdict)
    assert "Acc_e" in run.ui("text")["text"][0] and len(run.ui("report")["images"]) == 1


def test_pictures_of_the_users_stand_for_what_must_stay(server: Client) -> None:
    more = {
        "picture": node("EmptyImage", width=96, height=80, batch_size=2, color=3377032),
        "noisy": node("ImageScale", image=["picture", 0], upscale_method="area", width=100,
                      height=80, crop="disabled"),
    }  # fmt: skip
    own = {"vae": ["load", 2], "images": ["noisy", 0], "filename_prefix": "kept"}
    run = server.run(train(steps=2, image_prompts="a green wall", **own) | more)
    assert run.ok, run.history["status"]
    (told,) = run.ui("train")["eraseanything_train"]
    assert all(row[LOSSES.index("lora")] > 0 for row in told["history"])
    lines = server.run(train(steps=2, image_prompts="one\ntwo\nthree", **own) | more)
    assert "2 pictures and 3 lines" in lines.error
    blind = {key: value for key, value in own.items() if key != "vae"}
    assert "need the VAE" in server.run(train(steps=2, image_prompts="a", **blind) | more).error


def test_a_name_reaches_the_page_without_markup(server: Client) -> None:
    named = graphs.concept("<b>tiger", source="by hand", irrelevant_near="lion")
    run = server.run(train(steps=1) | named)
    told = b"".join(run.binaries)
    assert "‹b›tiger".encode() in told and b"<b>" not in told


def test_what_no_list_knows_takes_the_words_of_the_person(server: Client) -> None:
    alone = server.run(graphs.concept("Pikachu", source="auto"))
    assert 'the source "by hand"' in alone.error
    run = server.run(graphs.concept("Pikachu", source="auto", irrelevant_near="Meowth, Snorlax"))
    (told,) = run.ui("concept")["eraseanything_concepts"]
    assert told["source"] == "by hand"
    assert told["set"]["concepts"][0]["irrelevant"]["near"] == ["Meowth", "Snorlax"]


def test_concept_sets_are_filled_edited_merged_saved_and_loaded(server: Client) -> None:
    def graph(**more: Any) -> Graph:
        found = graphs.concept("oak", source="auto", irrelevant_near="maple, birch", **more)
        lists = node("EraseAnythingConceptSet", concept="Elon Musk", kind="auto", source="auto",
                     sense="", concepts=["concept", 0])  # fmt: skip
        keep = node("EraseAnythingConceptSetIO", folder="user", name="sets/two", overwrite=True,
                    concepts=["second", 0])  # fmt: skip
        return {**found, "second": lists, "keep": keep}

    run = server.run(graph(synonyms="quercus\noak tree"))
    assert run.ok, run.history["status"]
    (first,) = run.ui("concept")["eraseanything_concepts"]
    (oak,) = first["set"]["concepts"]
    assert oak["synonyms"] == ["quercus", "oak tree"] and first["own"] == ["oak"]
    assert oak["irrelevant"]["near"] == ["maple", "birch"] and oak["irrelevant"]["none"]
    (second,) = run.ui("second")["eraseanything_concepts"]
    names = [concept["name"] for concept in second["set"]["concepts"]]
    assert names == ["oak", "Elon Musk"] and second["source"] == "lists"
    again = server.run(graph(synonyms="quercus\noak tree"))
    assert "keep" in again.events("execution_cached")[0]["nodes"]  # saving changes nothing
    path = server.base / "user" / "eraseanything" / "concepts" / "sets" / "two.json"
    assert json.loads(path.read_text())["concepts"] == second["set"]["concepts"]
    loads = {"load": node("EraseAnythingConceptSetIO", folder="user", name="sets/two.json",
                          overwrite=False)}  # fmt: skip
    (loaded,) = server.run(loads).ui("load")["eraseanything_concepts"]
    assert loaded["set"] == second["set"]
    value = json.loads(path.read_text())
    value["concepts"] = value["concepts"][:1]
    time.sleep(0.01)
    path.write_text(json.dumps(value))
    (changed,) = server.run(loads).ui("load")["eraseanything_concepts"]
    assert len(changed["set"]["concepts"]) == 1  # a file that changed is read again


def test_words_are_found_without_a_run(server: Client) -> None:
    inputs = dict(graphs.concept()["concept"]["inputs"], concept="Tigers", sense="", seed=0)
    inputs = dict.fromkeys(("synonyms", "sentences"), "") | {"per_band": 3} | inputs
    inputs |= {f"irrelevant_{band}": "" for band in ("none", "far", "mid", "near")}
    told = server.post("/eraseanything/words", inputs)
    assert told["own"] == ["tiger"] and told["source"] == "MiniFlux"
    run = server.run({"concept": node("EraseAnythingConceptSet", **inputs)})
    (shown,) = run.ui("concept")["eraseanything_concepts"]
    assert told == shown
    unknown = server.post("/eraseanything/words", inputs | {"concept": "tigre"})
    assert unknown["error"].startswith('MiniFlux does not know "tigre". Did you mean "tiger"?')


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"concept": {"concept": " "}}, "There is no concept"),
        ({"concept": {"concept": "zebra"}}, "MiniFlux does not know"),
        ({"concept": {"sentences": "a cat"}}, "does not contain it"),
        ({"train": {"filename_prefix": "../out"}}, "without .."),
        ({"train": {"width": 72}}, "multiple of 16"),
        ({"settings": {"targets": "add_x_proj"}}, "Unknown LoRA target"),
        ({"settings": {"attention_blocks": "7"}}, "attention_blocks must be among 0 to 1"),
    ],
)
def test_bad_inputs_get_a_sentence_on_the_node(
    server: Client, change: dict[str, dict[str, Any]], sentence: str
) -> None:
    graph = train(steps=2, filename_prefix="bad")
    for name, inputs in change.items():
        graph[name]["inputs"] |= inputs
    run = server.run(graph)
    message = run.error
    assert sentence in message and "\n" not in message, message
    assert run.error_type == "EraseAnything"  # and no module's path
    assert not list(server.base.rglob("bad*")), "something was written"


def test_a_lora_folder_that_cannot_be_written_is_one_sentence(server: Client) -> None:
    sealed = server.base / "models" / "loras" / "sealed"
    sealed.symlink_to("/proc/sys/debug")  # not even root may write there
    try:
        message = server.run(train(steps=2, filename_prefix="sealed/tiger")).error
    finally:
        sealed.unlink()
    assert "Cannot write" in message and "\n" not in message
    assert "models/loras/sealed" in message and str(server.base) not in message


def test_the_llm_node_without_an_endpoint_says_what_to_set(server: Client) -> None:
    graph = {
        "llm": node("EraseAnythingConceptSetLLM", concept="tiger", kind="entity", meaning="",
                    per_band=2, seed=0),
        "keep": node("EraseAnythingConceptSetIO", folder="user", name="llm", overwrite=True,
                     concepts=["llm", 0]),
    }  # fmt: skip
    assert "set ERASEANYTHING_LLM_URL in the environment" in server.run(graph).error
