"""Guards on the host's own model classes at toy size, through a live server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from host.client import Client, Graph, Run
from host.conftest import running
from host.graphs import node
from torch import Tensor

from erase_core.tensors import read_tensors, save_tensors

TOYS = Path(__file__).parent / "toys"
FAMILIES = ["flux1", "chroma", "flux2", "sd3", "qwen_image", "z_image", "aura_flow"]
CFG = {"flux1": 1.0, "flux2": 1.0, "z_image": 1.0}  # else 4: FLUX.1 has its input, two have none
PROMPT, TWO = "a tiger in the snow", "a tiger in the snow\na car and a rose"


@pytest.fixture(scope="module")
def toys(base: Path, environment: dict[str, str]) -> Iterator[Client]:
    """A server of its own, which has the toys too."""
    link = base / "custom_nodes" / "toys"
    link.symlink_to(TOYS)
    try:
        with running(base, environment) as client:
            yield client
    finally:
        link.unlink()


@pytest.fixture(autouse=True)
def offered(request: pytest.FixtureRequest, toys: Client) -> None:
    """Leave out the families that an older host lacks."""
    family = getattr(request.node, "callspec", None) and request.node.callspec.params.get("family")
    known = toys.get("/object_info")["ToyModel"]["input"]["required"]["family"]
    names = known[0] if isinstance(known[0], list) else known[1]["options"]
    if family and family not in names:
        pytest.skip(f"this ComfyUI has no {family}")


def concepts(*names: str) -> Graph:
    inputs = {"kind": "entity", "source": "by hand", "sense": ""}
    words = {"synonyms": "", "none": "", "far": "", "mid": "", "near": ""}
    return {
        name: node("EraseAnythingConceptSet", concept=name, **inputs, **words) for name in names
    }


def guard(model: list[Any], name: str = "tiger", **more: Any) -> dict[str, Any]:
    told = {"method": "dve", "strength": 1.0, "start": 0.0, "end": 1.0, "anchor": "lion"} | more
    return node("EraseAnythingGuard", model=model, clip=["toy", 1], concepts=[name, 0], **told)


def graph(family: str, prompt: str = PROMPT, batch: int = 1, **latent: Any) -> Graph:
    """Nodes "toy", "tiger", "rose", "prompt", "nothing", "latent" and "sample" of a plain MODEL."""
    return {
        "toy": node("ToyModel", family=family),
        **concepts("tiger", "rose"),
        "prompt": node("ToyPrompts", clip=["toy", 1], text=prompt),
        "nothing": node("ToyPrompts", clip=["toy", 1], text=""),
        "latent": node("ToyLatent", model=["toy", 0], batch=batch, **{"seed": -1} | latent),
    }


def sample(model: list[Any], cfg: float = 1.0, **more: Any) -> dict[str, Any]:
    told = {
        "positive": ["prompt", 0], "negative": ["nothing", 0], "latent_image": ["latent", 0],
        "seed": 7, "steps": 4, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
    }  # fmt: skip
    return node("KSampler", model=model, cfg=cfg, **told | more)


def euler(cfg: float = 1.0, prompt: str = PROMPT, concept: str = "tiger") -> dict[str, Any]:
    return node(
        "ToyEuler", model=["toy", 0], clip=["toy", 1], latent=["latent", 0], prompt=prompt,
        negative="", cfg=cfg, seed=7, steps=4, concept=concept, anchor="lion", strength=1.0,
    )  # fmt: skip


def save(latent: str, model: str = "toy") -> dict[str, Any]:
    return node("ToySave", model=[model, 0], latent=[latent, 0], name=latent)


def run(server: Client, graph: Graph) -> Run:
    done = server.run(graph)
    assert done.ok, done.error
    return done


def saved(server: Client, name: str) -> Tensor:
    return read_tensors(server.base / "output" / f"{name}.safetensors")[0]["samples"]


def close(a: Tensor, b: Tensor, most: float = 1e-5) -> None:
    assert (a - b).abs().max() <= most * b.abs().max(), (a - b).abs().max() / b.abs().max()


@pytest.fixture(scope="module", params=[*FAMILIES, "sd15"])
def drawn(request: Any, toys: Client) -> dict[str, Any]:
    """One run a family: plain, at strength 0, guarded, and by the book."""
    family = request.param
    known = toys.get("/object_info/ToyModel")["ToyModel"]["input"]["required"]["family"][0]
    if family not in known:
        pytest.skip(f"this host has no {family}")
    cfg = CFG.get(family, 4.0)
    graph_ = graph(family, TWO, batch=2) | {
        "plain": sample(["toy", 0], cfg),
        "zero": sample(["off", 0], cfg),
        "guarded": sample(["on", 0], cfg),
        "book": euler(cfg, TWO),
        "plain_book": euler(cfg, TWO, ""),
        "again": sample(["toy", 0], cfg),
        "off": guard(["toy", 0], strength=0.0),
        "on": guard(["toy", 0]),
    }
    kept = {"plain", "zero", "guarded", "book", "plain_book"}
    told = run(toys, graph_ | {f"save {name}": save(name) for name in kept})
    found: dict[str, Any] = {name: saved(toys, name) for name in kept}
    found["hashes"] = {told.ui(f"save {name}")["hash"][0] for name in kept}
    found["events"] = told.events("eraseanything.guard")
    return found


def test_strength_0_is_bit_identical(drawn: dict[str, Any]) -> None:
    assert torch.equal(drawn["zero"], drawn["plain"])


def test_strength_1_is_the_formula_of_plain_forwards(
    drawn: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if "sd15" in request.node.name:
        pytest.skip("the book's Euler knows flow models")
    close(drawn["plain"], drawn["plain_book"])
    assert (drawn["guarded"] - drawn["plain"]).abs().max() > 1e-3 * drawn["plain"].abs().max()
    close(drawn["guarded"], drawn["book"], 1e-4)


def test_the_model_stays_as_it_is(drawn: dict[str, Any]) -> None:
    assert len(drawn["hashes"]) == 1


def test_the_node_says_how_strongly_it_acts(drawn: dict[str, Any]) -> None:
    events = [event for event in drawn["events"] if event["node"] == "on"]
    assert [(event["step"], event["total"]) for event in events] == [(i, 4) for i in (1, 2, 3, 4)]
    assert all(len(event["strength"]["tiger"]) == 2 for event in events)
    assert max(event["strength"]["tiger"][0] for event in events) > 0


def together(server: Client, family: str, **samples: dict[str, Any]) -> dict[str, Tensor]:
    """Latents of several nodes in one run."""
    saves = {f"save {name}": save(name) for name in samples if name.startswith("drawn")}
    run(server, graph(family) | samples | saves)
    return {name: saved(server, name) for name in samples if name.startswith("drawn")}


def test_eight_prompts_at_once_are_eight_pictures(toys: Client) -> None:
    lines = [f"a {word} and a tiger" for word in ("car", "rose", "fish", "house")]
    lines += ["a car", "a rose", "two tigers", "tiger"]
    eight = graph("flux1", "\n".join(lines), batch=8) | {
        "on": guard(["toy", 0]),
        "all": sample(["on", 0]),
        "book": euler(prompt="\n".join(lines)),
    }
    run(toys, eight | {"save all": save("all"), "save book": save("book")})
    close(saved(toys, "all"), saved(toys, "book"), 1e-4)


def test_guards_in_a_row_act_from_first_to_last(toys: Client) -> None:
    """The second one's direction is taken out of what the first one leaves: nothing of it stays."""
    one_step = {"steps": 1}
    drawn = together(
        toys,
        "flux1",
        tiger_first=guard(["toy", 0]),
        tiger_rose=guard(["tiger_first", 0], "rose"),
        rose_first=guard(["toy", 0], "rose"),
        rose_tiger=guard(["rose_first", 0]),
        drawn_tiger=sample(["tiger_first", 0], **one_step),
        drawn_tiger_rose=sample(["tiger_rose", 0], **one_step),
        drawn_rose_tiger=sample(["rose_tiger", 0], **one_step),
        words=node("ToyPrompts", clip=["toy", 1], text="rose"),
        other=node("ToyPrompts", clip=["toy", 1], text="lion"),
        drawn_rose=sample(["toy", 0], positive=["words", 0], **one_step),
        drawn_lion=sample(["toy", 0], positive=["other", 0], **one_step),
    )
    d = drawn["drawn_rose"] - drawn["drawn_lion"]  # x_0 after one step, up to the latent's scale
    share = ((drawn["drawn_tiger"] - drawn["drawn_lion"]) * d).sum() / (d * d).sum()
    close(drawn["drawn_tiger_rose"], drawn["drawn_tiger"] - share.clamp_min(0) * d, 1e-4)
    assert not torch.allclose(drawn["drawn_tiger_rose"], drawn["drawn_rose_tiger"], atol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_pictures_are_redrawn_under_guard(toys: Client, masked: bool) -> None:
    latent = node("ToyLatent", model=["toy", 0], batch=1, seed=3, masked=masked)
    drawn = together(
        toys,
        "sd3",
        start=latent,
        on=guard(["toy", 0], threshold=-10.0),
        drawn_plain=sample(["toy", 0], 4.0, latent_image=["start", 0], denoise=0.6),
        drawn_on=sample(["on", 0], 4.0, latent_image=["start", 0], denoise=0.6),
    )
    change = (drawn["drawn_on"] - drawn["drawn_plain"]).abs()
    assert change[..., 3:].max() > 1e-3
    assert (change[..., :3].max() < 1e-5) == masked


def test_the_advanced_sampler_draws_as_the_simple_one(toys: Client) -> None:
    drawn = together(
        toys,
        "sd3",
        on=guard(["toy", 0], end=0.5),
        drawn_simple=sample(["on", 0], 4.0),
        noise=node("RandomNoise", noise_seed=7),
        guider=node(
            "CFGGuider", model=["on", 0], positive=["prompt", 0], negative=["nothing", 0], cfg=4.0
        ),
        sampler=node("KSamplerSelect", sampler_name="euler"),
        sigmas=node("BasicScheduler", model=["on", 0], scheduler="simple", steps=4, denoise=1.0),
        drawn_advanced=node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0],
            sampler=["sampler", 0], sigmas=["sigmas", 0], latent_image=["latent", 0],
        ),
    )  # fmt: skip
    assert torch.equal(drawn["drawn_simple"], drawn["drawn_advanced"])


def test_the_window_ends_the_guard(toys: Client) -> None:
    told = run(
        toys,
        graph("flux1")
        | {"on": guard(["toy", 0], start=0.2, end=0.6), "drawn": sample(["on", 0], steps=5)}
        | {"save": save("drawn")},
    )
    assert [event["step"] for event in told.events("eraseanything.guard")] == [2, 3, 4]


def test_another_models_clip_is_refused_in_a_sentence(toys: Client) -> None:
    wrong = guard(["toy", 0]) | {}
    wrong["inputs"] = wrong["inputs"] | {"clip": ["other", 0]}
    done = toys.run(
        graph("flux1")
        | {"other": node("ToyClip", width=8), "on": wrong, "drawn": sample(["on", 0])}
        | {"save": save("drawn")}
    )
    assert not done.ok and "is not the one that encoded the prompt" in done.error
    assert done.error.endswith(".")


LAYERS = {  # family -> a Linear that reads text, with its (out, in)
    "flux1": ("double_blocks.0.txt_attn.qkv", 768, 256),
    "chroma": ("double_blocks.0.txt_attn.qkv", 768, 256),
    "flux2": ("double_blocks.0.txt_attn.qkv", 768, 256),
    "sd3": ("joint_blocks.0.context_block.attn.qkv", 384, 128),
    "qwen_image": ("transformer_blocks.0.attn.add_q_proj", 256, 256),
    "z_image": ("layers.0.attention.qkv", 768, 256),
    "aura_flow": ("cond_seq_linear", 256, 32),
    "sd15": ("middle_block.1.transformer_blocks.0.attn2.to_k", 64, 32),
}


def eraser(server: Client, family: str) -> str:
    """A file that changes one layer of a family, as the LoRA list calls it."""
    name, out, into = LAYERS[family]
    generator = torch.Generator().manual_seed(1)
    layer = f"diffusion_model.{name}"
    tensors = {
        f"{layer}.lora_A.weight": torch.randn(4, into, generator=generator) / into**0.5,
        f"{layer}.lora_B.weight": torch.randn(out, 4, generator=generator),
    }
    save_tensors(server.base / "models" / "loras" / f"{family}.safetensors", tensors)
    return f"{family}.safetensors"


@pytest.mark.parametrize("family", LAYERS)
def test_a_word_gate_is_the_lora_where_the_concept_is_named_and_nothing_elsewhere(
    toys: Client, family: str
) -> None:
    file, cfg = eraser(toys, family), CFG.get(family, 4.0)
    two = graph(family, TWO, batch=2) | {
        "gate": guard(["toy", 0], method="word gate", lora_file=file),
        "lora": node("LoraLoaderModelOnly", model=["toy", 0], lora_name=file, strength_model=1.0),
        "gated": sample(["gate", 0], cfg),
        "patched": sample(["lora", 0], cfg),
        "plain": sample(["toy", 0], cfg),
    }
    saves = {f"save {name}": save(name) for name in ("gated", "patched", "plain")}
    told = run(toys, two | saves)
    gated, patched, plain = (saved(toys, name) for name in ("gated", "patched", "plain"))
    assert (patched - plain)[0].abs().max() > 1e-3 * plain.abs().max()
    close(gated[:1], patched[:1], 1e-4)
    assert torch.equal(gated[1:], plain[1:])
    assert told.ui("save plain")["hooks"] == [0]
    events = told.events("eraseanything.guard")
    assert [event["strength"]["tiger"] for event in events] == [[1.0, 0.0]] * 4


def test_a_velocity_gate_opens_for_its_concept(toys: Client) -> None:
    file = eraser(toys, "flux1")
    drawn = graph("flux1", "tiger\na car and a rose", batch=2) | {
        "gate": guard(["toy", 0], method="velocity gate", lora_file=file),
        "lora": node("LoraLoaderModelOnly", model=["toy", 0], lora_name=file, strength_model=1.0),
        "gated": sample(["gate", 0]),
        "patched": sample(["lora", 0]),
    }
    told = run(toys, drawn | {f"save {name}": save(name) for name in ("gated", "patched")})
    close(saved(toys, "gated")[:1], saved(toys, "patched")[:1], 1e-4)
    first, *others = [event["strength"]["tiger"] for event in told.events("eraseanything.guard")]
    assert first[0] == 1 and all(other == first for other in others)


def test_an_eraser_for_another_model_is_refused_in_a_sentence(toys: Client) -> None:
    wrong = guard(["toy", 0], method="word gate", lora_file=eraser(toys, "sd3"))
    done = toys.run(graph("flux1") | {"on": wrong, "d": sample(["on", 0]), "save": save("d")})
    assert not done.ok and "changes nothing of this MODEL" in done.error
    wrong = guard(["toy", 0], method="word gate")
    done = toys.run(graph("flux1") | {"on": wrong, "d": sample(["on", 0]), "save": save("d")})
    assert not done.ok and "There is no eraser" in done.error


def safree(cond: str = "prompt", **more: Any) -> dict[str, Any]:
    told = {"strength": 1.0, "reach": 2.0, "prompt": PROMPT} | more
    return node(
        "EraseAnythingGuardPrompt",
        conditioning=[cond, 0],
        clip=["toy", 1],
        concepts=["tiger", 0],
        **told,
    )


@pytest.mark.parametrize("family", ["flux1", "qwen_image"])
def test_a_guarded_prompt_says_what_changed_and_leaves_other_prompts_alone(
    toys: Client, family: str
) -> None:
    told = run(
        toys,
        graph(family)
        | {
            "clean": safree(),
            "partly": safree(reach=1.0),
            "other": node("ToyPrompts", clip=["toy", 1], text="a car and a rose"),
            "same": safree("other"),
            "off": safree(strength=0.0),
            "plain": sample(["toy", 0]),
            "drawn": sample(["toy", 0], positive=["clean", 0]),
            "drawn_partly": sample(["toy", 0], positive=["partly", 0]),
            "drawn_off": sample(["toy", 0], positive=["off", 0]),
            "drawn_other": sample(["toy", 0], positive=["other", 0]),
            "drawn_same": sample(["toy", 0], positive=["same", 0]),
        }
        | {f"save {name}": save(name) for name in (
            "plain", "drawn", "drawn_partly", "drawn_off", "drawn_other", "drawn_same")},
    )  # fmt: skip
    (said,) = told.ui("clean")["eraseanything_guard_prompt"]
    assert said["concept"] == "tiger" and said["words"] == ["tiger"] and said["share"] == 1
    (said,) = told.ui("partly")["eraseanything_guard_prompt"]
    assert 0.5 <= said["share"] < 0.6  # a mean of twelve tokens hardly moves
    drawn = {name: saved(toys, name) for name in ("plain", "drawn", "drawn_partly")}
    assert not torch.allclose(drawn["drawn"], drawn["plain"], atol=1e-3)
    assert not torch.allclose(drawn["drawn_partly"], drawn["plain"], atol=1e-3)
    assert not torch.allclose(drawn["drawn_partly"], drawn["drawn"], atol=1e-5)
    assert torch.equal(saved(toys, "drawn_off"), drawn["plain"])
    assert torch.equal(saved(toys, "drawn_same"), saved(toys, "drawn_other"))
