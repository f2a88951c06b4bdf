"""Erase Guard's gates, and what each of its methods meets in a workflow, on the host's own model
classes at toy size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host.client import Client
from host.graphs import node
from host.toy_graphs import (
    CFG,
    LAYERS,
    METHODS,
    PROMPT,
    TWO,
    close,
    eraser,
    euler,
    graph,
    guard,
    run,
    sample,
    save,
    saved,
    together,
    told_of,
)

pytestmark = pytest.mark.usefixtures("offered")


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


@pytest.mark.parametrize("family", ["sd3", "qwen_image"])
def test_a_word_gate_listens_to_the_prompt_and_not_to_the_negative_one(
    toys: Client, family: str
) -> None:
    """Where it opens the eraser acts in the negative pass, too, as a LoRA would."""
    file = eraser(toys, family)
    two = graph(family, TWO, batch=2) | {
        "against": node("ToyPrompts", clip=["toy", 1], text="a tiger"),
        "gate": guard(["toy", 0], method="word gate", lora_file=file),
        "lora": node("LoraLoaderModelOnly", model=["toy", 0], lora_name=file, strength_model=1.0),
        "gated": sample(["gate", 0], 4.0, negative=["against", 0]),
        "patched": sample(["lora", 0], 4.0, negative=["against", 0]),
        "plain": sample(["toy", 0], 4.0, negative=["against", 0]),
    }
    run(toys, two | {f"save {name}": save(name) for name in ("gated", "patched", "plain")})
    gated, patched, plain = (saved(toys, name) for name in ("gated", "patched", "plain"))
    close(gated[:1], patched[:1], 1e-4)
    assert not torch.allclose(gated[:1], plain[:1], atol=1e-3)
    assert torch.equal(gated[1:], plain[1:])


def test_a_gates_eraser_adds_to_loras_on_either_side(toys: Client) -> None:
    own = eraser(toys, "flux1")
    first, second = (eraser(toys, "flux1", seed) for seed in (2, 3))

    def lora(model: str, file: str, strength: float) -> dict[str, Any]:
        told = {"lora_name": file, "strength_model": strength}
        return node("LoraLoaderModelOnly", model=[model, 0], **told)

    chain = graph("flux1", TWO, batch=2) | {
        "one": lora("toy", first, 0.5),
        "gate": guard(["one", 0], method="word gate", lora_file=own),
        "two": lora("gate", second, 0.8),
        "plain two": lora("one", second, 0.8),
        "all": lora("plain two", own, 1.0),
        "gated": sample(["two", 0]),
        "plain": sample(["plain two", 0]),
        "patched": sample(["all", 0]),
    }
    run(toys, chain | {f"save {name}": save(name) for name in ("gated", "plain", "patched")})
    gated, plain, patched = (saved(toys, name) for name in ("gated", "plain", "patched"))
    assert not torch.allclose(patched[0], plain[0], atol=1e-3)
    close(gated[:1], patched[:1], 1e-4)
    assert torch.equal(gated[1:], plain[1:])


def test_an_eraser_for_another_model_is_refused_in_a_sentence(toys: Client) -> None:
    wrong = guard(["toy", 0], method="word gate", lora_file=eraser(toys, "sd3"))
    done = toys.run(graph("flux1") | {"on": wrong, "d": sample(["on", 0]), "save": save("d")})
    assert not done.ok and "changes nothing of this MODEL" in done.error
    wrong = guard(["toy", 0], method="word gate")
    done = toys.run(graph("flux1") | {"on": wrong, "d": sample(["on", 0]), "save": save("d")})
    assert not done.ok and "There is no eraser" in done.error


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_pictures_are_redrawn_under_guard(toys: Client, method: str, masked: bool) -> None:
    told = told_of(toys, method, "sd3") | {"threshold": -10.0}
    redrawn = {"latent_image": ["start", 0], "denoise": 0.6}
    drawn = together(
        toys,
        "sd3",
        start=node("ToyLatent", model=["toy", 0], batch=1, seed=3, masked=masked),
        on=guard(["toy", 0], **told),
        lora=node("LoraLoaderModelOnly", model=["toy", 0], strength_model=1.0,
                  lora_name=eraser(toys, "sd3")),
        drawn_plain=sample(["toy", 0], 4.0, **redrawn),
        drawn_on=sample(["on", 0], 4.0, **redrawn),
        drawn_erased=sample(["lora", 0], 4.0, **redrawn),
    )  # fmt: skip
    change = (drawn["drawn_on"] - drawn["drawn_plain"]).abs()
    assert change[..., 3:].max() > 1e-3
    assert (change[..., :3].max() < 1e-5) == masked
    if method == "word gate":
        close(drawn["drawn_on"], drawn["drawn_erased"], 1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_advanced_sampler_draws_as_the_simple_one(toys: Client, method: str) -> None:
    drawn = together(
        toys,
        "sd3",
        on=guard(["toy", 0], end=0.5, **told_of(toys, method, "sd3")),
        drawn_simple=sample(["on", 0], 4.0),
        drawn_plain=sample(["toy", 0], 4.0),
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
    assert not torch.allclose(drawn["drawn_simple"], drawn["drawn_plain"], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_after_a_guard_the_model_draws_what_it_drew(toys: Client, method: str) -> None:
    """The same object in one run: the later picture waits for the guarded one."""
    drawn = graph("flux1", TWO, batch=2) | {
        "on": guard(["toy", 0], **told_of(toys, method, "flux1")),
        "plain": sample(["toy", 0]),
        "guarded": sample(["on", 0]),
        "late": node("ToyLatent", model=["toy", 0], batch=2, seed=-1, after=["guarded", 0]),
        "again": sample(["toy", 0], latent_image=["late", 0]),
    }
    names = ("plain", "guarded", "again")
    told = run(toys, drawn | {f"save {name}": save(name) for name in names})
    plain, guarded, again = (saved(toys, name) for name in names)
    assert not torch.allclose(guarded, plain, atol=1e-3) and torch.equal(again, plain)
    assert told.ui("save again") == told.ui("save plain") and told.ui("save again")["hooks"] == [0]


def test_loras_come_before_a_guard_or_after_it(toys: Client) -> None:
    """DVE of a MODEL with a LoRA is the formula of that MODEL, on whichever side the LoRA is."""
    file = eraser(toys, "flux1")
    lora = {"lora_name": file, "strength_model": 0.7}
    drawn = together(
        toys,
        "flux1",
        lora=node("LoraLoaderModelOnly", model=["toy", 0], **lora),
        after=guard(["lora", 0]),
        on=guard(["toy", 0]),
        before=node("LoraLoaderModelOnly", model=["on", 0], **lora),
        drawn_after=sample(["after", 0]),
        drawn_before=sample(["before", 0]),
        drawn_plain=sample(["lora", 0]),
        drawn_book=euler(model="lora"),
    )
    assert torch.equal(drawn["drawn_after"], drawn["drawn_before"])
    assert not torch.allclose(drawn["drawn_after"], drawn["drawn_plain"], atol=1e-3)
    close(drawn["drawn_after"], drawn["drawn_book"], 1e-4)


@pytest.mark.parametrize("method", METHODS[:2])
def test_a_controlnet_holds_in_all_that_a_guard_predicts(toys: Client, method: str) -> None:
    held, lora = {}, {"lora_name": eraser(toys, "flux1"), "strength_model": 1.0}
    for text in (PROMPT, "tiger", "lion"):
        held[f"words {text}"] = node("ToyPrompts", clip=["toy", 1], text=text)
        held[f"held {text}"] = node(
            "ControlNetApplyAdvanced", positive=[f"words {text}", 0], negative=["nothing", 0],
            control_net=["control", 0], image=["image", 0], strength=0.8, start_percent=0.0,
            end_percent=1.0,
        )  # fmt: skip

    def one_step(model: str, text: str) -> dict[str, Any]:
        return sample([model, 0], steps=1, positive=[f"held {text}", 0])

    drawn = together(
        toys,
        "flux1",
        **held,
        control=node("ToyControl"),
        image=node("EmptyImage", width=96, height=128, batch_size=1, color=0x3070A0),
        on=guard(["toy", 0], **told_of(toys, method, "flux1")),
        lora=node("LoraLoaderModelOnly", model=["toy", 0], **lora),
        drawn_free=sample(["toy", 0], steps=1),
        drawn_held=one_step("toy", PROMPT),
        drawn_tiger=one_step("toy", "tiger"),
        drawn_lion=one_step("toy", "lion"),
        drawn_erased=one_step("lora", PROMPT),
        drawn_guarded=one_step("on", PROMPT),
    )
    free, plain, tiger, lion, erased, guarded = (
        drawn[f"drawn_{n}"] for n in ("free", "held", "tiger", "lion", "erased", "guarded")
    )
    assert not torch.allclose(plain, free, atol=1e-3)
    assert not torch.allclose(guarded, plain, atol=1e-3)
    d = tiger - lion  # x_0 after one step, up to the latent's scale
    share = ((plain - lion) * d).sum() / (d * d).sum()
    close(guarded, plain - share.clamp_min(0) * d if method == "dve" else erased, 1e-4)
