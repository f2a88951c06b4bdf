"""Writes the workflows of this folder, and their twins in API format, from the plans below.

    python workflows/make.py http://127.0.0.1:8188

A live ComfyUI tells the nodes' inputs, so that nothing but what a plan says differs from their
defaults. Run it again when a node has got another input; thumbnails stay as they are.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

from files import FOLDER, Node, Workflow
from parts import (
    CHROMA,
    DEV,
    HALF,
    KLEIN,
    MINI,
    QWEN_IMAGE,
    SD3,
    ZIMAGE,
    ZIMAGE_BASE,
    Base,
    Parts,
    concept,
    draw,
    load,
    preview,
    train,
)


def drawn_with(
    flow: Workflow, base: Base, model: Node | Parts, prompt: str, **changed: Any
) -> None:
    """The same seeds without and with the one changed MODEL."""
    models = {"untouched": model["model"], **changed}
    pictures = draw(flow, base, model, prompt, (1380, 0), models)
    flow.group("4 · Draw the same seeds without and with it", "draw", *pictures)


def side_by_side(flow: Workflow, base: Base, model: Node | Parts, lora: Any) -> None:
    """What is erased, and something else, in two columns."""
    sheet = preview(flow, base, model, list(HALF[base.name]), (2500, 0), lora=lora)
    flow.group("5 · Side by side: what went, what stayed", "compare", sheet)


def erase_and_compare(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} erase and compare", info)
    model = load(flow, base)
    words = concept(flow, base, "tiger", (400, 0))
    flow.group("2 · What to forget", "train", words)
    trained = train(flow, model, words, (880, 0))
    flow.group("3 · Train the eraser", "train", trained)
    drawn_with(flow, base, model, HALF[base.name][0], erased=trained["model"])
    side_by_side(flow, base, model, trained["lora"])
    flow.note(
        f"**Press Run.** {base.note}\n\nThe model forgets what **Concept Set** names. "
        "**Find words** there shows the words that go along and those that stay; change them as "
        "you like. While **Erase Concept** trains, its four curves move, and a picture compares "
        "before and after. The LoRA is saved to your LoRA list.\n\n"
        "Cancel at any time: what is done so far is kept.\n\n"
        "中文：点击运行即可。概念集列出要遗忘的词和要保留的词；训练时可看到四条曲线和前后对比，"
        "LoRA 会保存到列表中。随时可以取消，已有成果会保留。",
        (0, base.below),
        (340, 460),
    )
    return flow


def erase_in_a_second(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} erase in a second", info)
    model = load(flow, base)
    words = concept(flow, base, "tiger", (400, 0))
    flow.group("2 · What to forget", "train", words)
    made = flow.add(
        "EraseAnythingInstant",
        (880, 0),
        (440, 330),
        model=model["model"],
        clip=model["clip"],
        concepts=words["concepts"],
    )
    flow.group("3 · Solve for the eraser", "train", made)
    drawn_with(flow, base, model, HALF[base.name][0], erased=made["model"])
    side_by_side(flow, base, model, made["lora"])
    flow.note(
        f"**Press Run.** {base.note}\n\n**Erase Concept (instant)** trains nothing: it solves for "
        "a change of the two layers where text enters the model. Its prompts are encoded once and "
        "kept; then every other method or strength takes a second. The eraser is saved to your "
        "LoRA list.\n\n"
        "**Erase Concept (train)** takes longer and keeps more of the rest.\n\n"
        "中文：点击运行即可。该节点不训练，而是直接求解文本入口两层的改动。"
        "提示词只编码一次，之后更换方法或强度只需一秒。擦除器会保存到 LoRA 列表中。",
        (0, base.below),
        (340, 460),
    )
    return flow


def guard_any_model(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} guard any model", info)
    model = load(flow, base)
    words = concept(flow, base, "tiger", (400, 0))
    flow.group("2 · What to keep out", "train", words)
    guard = flow.add(
        "EraseAnythingGuard",
        (880, 0),
        (440, 420),
        model=model["model"],
        clip=model["clip"],
        concepts=words["concepts"],
    )
    flow.group("3 · Guard: no training", "train", guard)
    drawn_with(flow, base, model, HALF[base.name][0], guarded=guard["model"])
    flow.note(
        f"**Press Run.** {base.note}\n\n**Erase Guard** keeps out what **Concept Set** names while "
        "the picture is drawn. Its bars show how strongly it acts in each step. Strength 0 or a "
        "bypass (Ctrl+B) takes it off.\n\n"
        "**In your own workflow**, or one of ComfyUI's templates (Z-Image, Qwen-Image, FLUX.2, "
        "FLUX.1, ...): copy groups 2 and 3, paste them, and put the guard between the MODEL and "
        "the sampler. Its `clip` is the CLIP that encodes your prompt. In a template that is one "
        "large node, open that node first.\n\n"
        "It draws a relative in the concept's place, at half a pass more a step, and spoils some "
        "of what stands beside it. On FLUX.1 an instant eraser behind a **word gate** spoils far "
        "less, at no cost.\n\n"
        "中文：点击运行即可。守卫无需训练，可用于 ComfyUI 的任何模型：把第 2、3 组复制到"
        "自己的工作流，接在 MODEL 与采样器之间，clip 接编码提示词的 CLIP。",
        (0, base.below),
        (340, 560),
    )
    return flow


def ways_to_forget(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} eraser, instant eraser, guard or NAG", info)
    model = load(flow, base)
    words = concept(flow, base, "tiger", (400, 0))
    flow.group("2 · What to forget", "train", words)
    trained = train(flow, model, words, (880, 0))
    flow.group("3 · Eraser: trained", "train", trained)
    common: dict[str, Any] = {"clip": model["clip"], "concepts": words["concepts"]}
    instant = flow.add(
        "EraseAnythingInstant", (1380, 0), (440, 330), model=model["model"], **common
    )
    flow.group("4 · Instant eraser: solved for", "train", instant)
    size, source = (440, 420), {"model": model["model"]} | common
    guard = flow.add("EraseAnythingGuard", (1380, 480), size, "Guard: dve", **source)
    gate = flow.add(
        "EraseAnythingGuard", (1380, 960), size, "Guard: word gate over the instant eraser",
        method="word gate", lora=instant["lora"], **source,
    )  # fmt: skip
    flow.group("5 · Guards: while drawing", "train", guard, gate)
    nag = flow.add("NAGuidance", (1380, 1530), (440, 130), model=model["model"])
    flow.group("6 · ComfyUI's NAG: a negative prompt in the attention", "train", nag)
    models = {
        "untouched": model["model"],
        "instant eraser": instant["model"],
        "guard": guard["model"],
        "gated eraser": gate["model"],
        "NAG": nag["model"],
        "eraser": trained["model"],  # last: it takes longest
    }
    flow.group(
        "7 · Draw the same seeds with each",
        "draw",
        *draw(flow, base, model, HALF[base.name][0], (1880, 0), models, "tiger"),
    )
    flow.note(
        f"**Press Run.** {base.note}\n\nThe same prompt and seeds, untouched and in five ways. "
        "Write a prompt without the tiger to see what each does to other pictures: with the gated "
        "eraser they stay bit for bit.\n\n"
        "**NAG** reads the negative prompt. It acts on models whose attention ComfyUI lets it "
        "change, FLUX.1 among them. On Z-Image, Qwen-Image and SD3.5 it does nothing; guards "
        "act there, too.\n\n"
        "Which one for what: `docs/guards.md`.\n\n"
        "中文：同一提示词、同一种子，对比五种方法。NAG 在 Z-Image、Qwen-Image、SD3.5 上不起作用，"
        "守卫则可以。",
        (0, base.below),
        (340, 520),
    )
    return flow


def attention_maps(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} attention maps", info)
    model = load(flow, base)
    mini = base is MINI
    prompt = (
        "a tiger left of a car on a yellow background"
        if mini
        else "a photo of a tiger beside a red car in front of a yellow house"
    )
    size: dict[str, Any] = {} if mini else {"width": 768, "height": 512}
    if base.cfg > 1:
        size["guidance"] = base.cfg
    seen = flow.add(
        "EraseAnythingAttentionMap",
        (400, 0),
        (460, 830),
        model=model["model"],
        clip=model["clip"],
        vae=model["vae"],
        prompt=prompt,
        words="tiger, car, yellow",
        steps=20,
        **size,
    )
    flow.group("2 · Hover a word: where does it land?", "draw", seen)
    grid = flow.add(
        "PreviewImage", (920, 0), (640, 470), "Grid: block by step", images=seen["grid"]
    )
    laid = flow.add("PreviewImage", (920, 550), (300, 300), "Overlays", images=seen["overlays"])
    mask = flow.add("MaskToImage", (1260, 550), (300, 40), mask=seen["masks"])
    masks = flow.add("PreviewImage", (1260, 640), (300, 210), "Masks", images=mask["image"])
    flow.group("3 · The same as images", "compare", grid, laid, mask, masks)
    flow.note(
        "**Press Run**, then move over the words of the prompt on **Attention Map**. "
        f"{base.note}\n\n"
        "A word's heat is the share of attention that each place of the picture pays to it. "
        "Choose a block and a step to look closer. To see what an eraser does, put "
        "**LoraLoaderModelOnly** between Load Flux and Attention Map.\n\n"
        "中文：点击运行，然后把鼠标移到提示词的每个词上，查看它落在画面何处。",
        (0, base.below),
        (340, 380),
    )
    return flow


def two_concepts(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} two concepts combined", info)
    here, other = HALF[base.name]
    model = load(flow, base)
    trained = []
    for number, name in enumerate(("tiger", "car")):
        top = number * 1090
        words = concept(flow, base, name, (400, top))
        trained.append(train(flow, model, words, (860, top)))
        flow.group(f"{2 + number} · Forget “{name}”", "train", words, trained[-1])
    both = flow.add(
        "EraseAnythingCombine",
        (1380, 0),
        (340, 430),
        lora_1=trained[0]["lora"],
        lora_2=trained[1]["lora"],
    )
    kept = flow.add(
        "EraseAnythingSave",
        (1380, 480),
        (340, 110),
        lora=both["lora"],
        filename_prefix="eraser_tiger_and_car",
    )
    loaded = flow.add(
        "LoraModelLoader", (1380, 640), (340, 130), model=model["model"], lora=both["lora"]
    )
    flow.group("4 · One eraser of two", "train", both, kept, loaded)
    models = {"untouched": model["model"], "both erased": loaded["model"]}
    prompt = "a tiger left of a car" if base is MINI else "a photo of a tiger beside a car"
    flow.group(
        "5 · Draw without and with both",
        "draw",
        *draw(flow, base, model, prompt, (1800, 0), models),
    )
    kept_thing = "a dog on a blue background" if base is MINI else "a photo of a dog on a beach"
    sheet = preview(flow, base, model, [here, other, kept_thing], (2920, 0), lora=both["lora"])
    flow.group("6 · Side by side", "compare", sheet)
    flow.note(
        f"**Press Run.** {base.note}\n\nTwo erasers are trained, one after the other, and "
        "**Combine Erasers** makes one file of them; `cat` adds their changes exactly. Erasers "
        "that you have already can be chosen there as files instead.\n\n"
        "中文：依次训练两个擦除器，再合并为一个文件；`cat` 精确相加。",
        (0, base.below),
        (340, 340),
    )
    return flow


def style_erasure(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} style erasure", info)
    model = load(flow, base)
    words = concept(flow, base, "sketch", (400, 0))
    flow.group("2 · The style to forget", "train", words)
    trained = train(flow, model, words, (880, 0))
    flow.group("3 · Train the eraser", "train", trained)
    prompt = "a pencil sketch of a tiger"
    drawn_with(flow, base, model, prompt, erased=trained["model"])
    prompts = [prompt, "a pencil sketch of a car", "a comic drawing of a tiger"]
    sheet = preview(flow, base, model, prompts, (2500, 0), lora=trained["lora"])
    flow.group("5 · The style goes, things and other styles stay", "compare", sheet)
    flow.note(
        f"**Press Run.** {base.note}\n\nA style is erased like a thing: only the **Concept Set** "
        "differs. Here the words that stay are the other styles.\n\n"
        "中文：擦除风格与擦除物体的方法相同，只是概念集不同；其他风格会保留。",
        (0, base.below),
        (340, 280),
    )
    return flow


def saved_eraser(base: Base, info: dict[str, Any], file: str) -> Workflow:
    flow = Workflow(f"{base.name} use a saved eraser", info)
    here, other = HALF[base.name]
    model = load(flow, base)
    loaded = flow.add(
        "LoraLoaderModelOnly", (400, 0), (340, 110), model=model["model"], lora_name=file
    )
    flow.group("2 · Your eraser", "train", loaded)
    models = {"untouched": model["model"], "erased": loaded["model"]}
    flow.group(
        "3 · Draw the same seeds without and with it",
        "draw",
        *draw(flow, base, model, here, (820, 0), models),
    )
    sheet = preview(
        flow, base, model, [here, other], (1940, 0), strengths="0, 0.5, 1", lora_file=file
    )
    flow.group("4 · Half and full strength", "compare", sheet)
    flow.note(
        f"**First run “{base.name} erase and compare”**: it makes `{file}`. Or choose another "
        "eraser in **LoraLoaderModelOnly** and **Erasure Preview**. Then press Run.\n\n"
        "An eraser is an ordinary LoRA: use it wherever a LoRA goes, at any strength.\n\n"
        "中文：请先运行“erase and compare”工作流生成该文件，或选择其他擦除器，再点击运行。",
        (0, base.below),
        (340, 300),
    )
    return flow


def main() -> None:
    with urllib.request.urlopen(f"{sys.argv[1]}/object_info") as reply:
        info = json.load(reply)
    (FOLDER / "api").mkdir(exist_ok=True)
    for base in (MINI, DEV):
        for plan in (
            erase_and_compare,
            erase_in_a_second,
            attention_maps,
            two_concepts,
            guard_any_model,
            ways_to_forget,
        ):
            plan(base, info).save()
    for plan in (erase_and_compare, attention_maps):
        plan(KLEIN, info).save()
        plan(ZIMAGE_BASE, info).save()
        plan(SD3, info).save()
        plan(QWEN_IMAGE, info).save()
    guard_any_model(ZIMAGE, info).save()
    erase_in_a_second(CHROMA, info).save()
    style_erasure(MINI, info).save()
    saved_eraser(MINI, info, "eraser_tiger_00001.safetensors").save()


if __name__ == "__main__":
    main()
