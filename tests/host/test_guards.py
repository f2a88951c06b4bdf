"""Erase Guard's DVE and Guard Prompt on the host's own model classes at toy size, through a live
server."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host.client import Client
from host.graphs import node
from host.toy_graphs import (
    CFG,
    FAMILIES,
    PROMPT,
    TWO,
    close,
    euler,
    graph,
    guard,
    run,
    sample,
    save,
    saved,
    together,
)

pytestmark = pytest.mark.usefixtures("offered")


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


@pytest.mark.parametrize("family", ["flux1", "sd3"])
def test_words_decide_and_a_direction_is_kept(toys: Client, family: str) -> None:
    cfg = CFG.get(family, 4.0)
    told = run(
        toys,
        graph(family, TWO, batch=2)
        | {
            "on": guard(["toy", 0], words=True, least=2.0, every=3),
            "plain": sample(["toy", 0], cfg),
            "guarded": sample(["on", 0], cfg),
            "book": euler(cfg, TWO, least=2.0, every=3),
        }
        | {f"save {name}": save(name) for name in ("plain", "guarded", "book")},
    )
    plain, guarded, book = (saved(toys, name) for name in ("plain", "guarded", "book"))
    close(guarded, book, 1e-4)
    assert torch.equal(guarded[1], plain[1])
    strength = [event["strength"]["tiger"] for event in told.events("eraseanything.guard")]
    assert len(strength) == 4 and all(row[0] >= 2 and row[1] == 0 for row in strength)


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


def safree(cond: str = "prompt", **more: Any) -> dict[str, Any]:
    told = {"strength": 1.0, "reach": 2.0, "prompt": PROMPT} | more
    return node(
        "EraseAnythingGuardPrompt",
        conditioning=[cond, 0],
        clip=["toy", 1],
        concepts=["tiger", 0],
        **told,
    )


def test_sparse_features_are_learned_once_and_shut(toys: Client) -> None:
    features = {"method": "sparse features"}
    told = run(
        toys,
        graph("flux1", TWO, batch=2)
        | {
            "clean": safree(prompt="", **features),
            "again": safree(prompt="", strength=0.5, **features),
            "plain": sample(["toy", 0]),
            "drawn": sample(["toy", 0], positive=["clean", 0]),
            "half": sample(["toy", 0], positive=["again", 0]),
        }
        | {f"save {name}": save(name) for name in ("plain", "drawn", "half")},
    )
    assert told.ui("clean")["eraseanything_guard_prompt"][0]["concept"] == "tiger"
    plain, drawn, half = (saved(toys, name) for name in ("plain", "drawn", "half"))
    assert torch.equal(drawn[1], plain[1]) and torch.equal(half[1], plain[1])
    assert not torch.allclose(drawn[0], plain[0], atol=1e-3)
    assert not torch.allclose(drawn[0], half[0], atol=1e-3)


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
