"""Writes the workflows of this folder, and their twins in API format, from the plans below.

    python workflows/make.py http://127.0.0.1:8188

A live ComfyUI tells the nodes' inputs, so that nothing but what a plan says differs from their
defaults. Run it again when a node has got another input; thumbnails stay as they are.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence
from typing import Any

from files import FOLDER, Node, Workflow
from layout import Box, Column, Row
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
    concept,
    draw,
    guard,
    instant,
    load,
    preview,
    train,
    wanted,
)


def erase_and_compare(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} erase and compare", info)
    text = (
        f"**Press Run.** {base.note}\n\nThe model forgets what **Concept Set** names. "
        "**Find words** there shows the words that go along and those that stay; change them as "
        "you like. While **Erase Concept** trains, its four curves move, and a picture compares "
        "before and after. The LoRA is saved to your LoRA list.\n\n"
        "Cancel at any time: what is done so far is kept.\n\n"
        "中文：点击运行即可。概念集列出要遗忘的词和要保留的词；训练时可看到四条曲线和前后对比，"
        "LoRA 会保存到列表中。随时可以取消，已有成果会保留。"
    )
    return _trained(flow, base, "tiger", "2 · What to forget", HALF[base.name], text)


def style_erasure(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} style erasure", info)
    text = (
        f"**Press Run.** {base.note}\n\nA style is erased like a thing: only the **Concept Set** "
        "differs. Here the words that stay are the other styles.\n\n"
        "中文：擦除风格与擦除物体的方法相同，只是概念集不同；其他风格会保留。"
    )
    prompts = (
        "a pencil sketch of a tiger",
        "a pencil sketch of a car",
        "a comic drawing of a tiger",
    )
    return _trained(flow, base, "sketch", "2 · The style to forget", prompts, text)


def _trained(
    flow: Workflow, base: Base, name: str, title: str, prompts: Sequence[str], text: str
) -> Workflow:
    """An eraser that is trained and compared with the untouched model."""
    model, loaded = load(flow, base)
    words = concept(flow, base, name)
    settings = flow.add("EraseAnythingSettings", 350, preset=base.preset)
    eraser = train(flow, model, words, settings=settings["settings"])
    sheet = preview(flow, base, model, prompts, lora=eraser["lora"])
    flow.arrange(
        Column([loaded, flow.note(text)]),
        Column(
            [flow.frame(title, "train", words), flow.frame("3 · How to train", "train", settings)]
        ),
        flow.frame("4 · Train the eraser", "train", eraser),
        flow.frame("5 · Side by side: what went, what stayed", "compare", sheet),
    )
    return flow


def erase_in_a_second(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} erase in a second", info)
    model, loaded = load(flow, base)
    words = concept(flow, base, "tiger")
    made = instant(flow, model, words)
    sheet = preview(flow, base, model, HALF[base.name], lora=made["lora"])
    note = flow.note(
        f"**Press Run.** {base.note}\n\n**Erase Concept (instant)** trains nothing: it solves for "
        "a change of the two layers where text enters the model. Its prompts are encoded once and "
        "kept; then every other method or strength takes a second. The eraser is saved to your "
        "LoRA list.\n\n"
        "**Erase Concept (train)** takes longer and keeps more of the rest.\n\n"
        "中文：点击运行即可。该节点不训练，而是直接求解文本入口两层的改动。"
        "提示词只编码一次，之后更换方法或强度只需一秒。擦除器会保存到 LoRA 列表中。"
    )
    flow.arrange(
        Column([loaded, note]),
        flow.frame("2 · What to forget", "train", words),
        flow.frame("3 · Solve for the eraser", "train", made),
        flow.frame("4 · Side by side: what went, what stayed", "compare", sheet),
    )
    return flow


def count_what_went(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} count what went", info)
    model, loaded = load(flow, base)
    words = concept(flow, base, "tiger")
    made = instant(flow, model, words)
    count = flow.add(
        "EraseAnythingReport",
        600,
        **model,
        concepts=words["concepts"],
        lora=made["lora"],
        count=8,
        steps=20,
    )
    note = flow.note(
        f"**Press Run.** {base.note}\n\n**Erasure Report** draws the concept, its synonyms and "
        "other things, without and with the eraser, and counts in how many pictures they are still "
        "recognised. Its first line is the verdict. That takes a few minutes.\n\n"
        "Connect the **lora** of **Erase Concept (train)** instead, or choose a file at "
        "**lora_file**, to count what another eraser does.\n\n"
        "中文：擦除报告会在有无擦除器的情况下各画一批图，统计概念、同义词和其他内容还能被识别出多少；"
        "第一行是结论。也可以连接训练节点的擦除器，或在 lora_file 中选择文件。",
    )
    flow.arrange(
        Column([loaded, note]),
        flow.frame("2 · What to forget", "train", words),
        flow.frame("3 · Solve for the eraser", "train", made),
        flow.frame("4 · Count what went and what stayed", "compare", count),
    )
    return flow


def guard_any_model(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} guard any model", info)
    model, loaded = load(flow, base)
    words = flow.frame("2 · What to keep out", "train", named := concept(flow, base, "tiger"))
    made = guard(flow, model, named)
    asked = wanted(flow, base, model, HALF[base.name][0])
    models = {"untouched": model["model"], "guarded": made["model"]}
    rows = [draw(flow, base, model, asked, label, source) for label, source in models.items()]
    note = flow.note(
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
        "中文：点击运行即可。防护无需训练，可用于 ComfyUI 的任何模型：把第 2、3 组复制到"
        "自己的工作流，接在 MODEL 与采样器之间，clip 接编码提示词的 CLIP。",
        rows[0].extent[0] + 40,
    )
    made_of = [
        Column([flow.frame("3 · Guard: no training", "train", made),
                flow.frame("4 · What to draw", "draw", *asked.nodes)]),
        Column([flow.frame("5 · Draw the same seeds without and with it", "draw", *rows), note]),
    ]  # fmt: skip
    few = not base.clip_type  # one node loads the model
    flow.arrange(*([Column([loaded, words])] if few else [loaded, words]), *made_of)
    return flow


def ways_to_forget(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} instant eraser, guard or NAG", info)
    model, loaded = load(flow, base)
    words = concept(flow, base, "tiger")
    solved = instant(flow, model, words)
    nag = flow.add("NAGuidance", 310, model=model["model"])
    asked = wanted(flow, base, model, HALF[base.name][0], "tiger")
    plain = guard(flow, model, words, "Guard: dve")
    gate = guard(flow, model, words, "Guard: word gate over the instant eraser",
                 method="word gate", lora=solved["lora"])  # fmt: skip
    models = {
        "untouched": model["model"],
        "instant eraser": solved["model"],
        "guard": plain["model"],
        "gated eraser": gate["model"],
        "NAG": nag["model"],
    }
    rows = [
        draw(flow, base, model, asked, label, source, small=True)
        for label, source in models.items()
    ]
    note = flow.note(
        f"**Press Run.** {base.note} The same prompt and seeds, untouched and in four ways. Write "
        "a prompt without the tiger, too: with the gated eraser such pictures stay bit for bit. "
        "**NAG** reads the negative prompt; on Z-Image, Qwen-Image and SD3.5 it does nothing, and "
        "guards act there, too. Which one for what: `docs/guards.md`.\n\n"
        "中文：同一提示词、同一种子，对比四种方法。NAG 在 Z-Image、Qwen-Image、SD3.5 上不起作用，"
        "防护则可以。",
        rows[0].extent[0] + 40,
    )
    flow.arrange(
        Column([loaded, flow.frame("2 · What to forget", "train", words)]),
        Column([flow.frame("3 · Instant eraser: solved for", "train", solved),
                flow.frame("4 · What to draw", "draw", *asked.nodes)]),
        Column([flow.frame("5 · Guards: while drawing", "train", plain, gate),
                flow.frame("6 · ComfyUI's NAG", "train", nag)]),
        Column([flow.frame("7 · Draw the same seeds with each", "draw", Column(rows, gap=12)),
                note]),
    )  # fmt: skip
    return flow


def attention_maps(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} attention maps", info)
    model, loaded = load(flow, base)
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
        460,
        **model,
        prompt=prompt,
        words="tiger, car, yellow",
        steps=20,
        **size,
    )
    shown: dict[str, Any] = {"grid": seen["grid"], "overlays": seen["overlays"]}
    images = [
        flow.add("PreviewImage", 480, title, images=shown[name])
        for name, title in (("grid", "Grid: block by step"), ("overlays", "Overlays"))
    ]
    masks = flow.add("MaskPreview", 480, "Masks", mask=seen["masks"])
    note = flow.note(
        "**Press Run**, then move over the words of the prompt on **Attention Map**. "
        f"{base.note}\n\n"
        "A word's heat is the share of attention that each place of the picture pays to it. "
        "Choose a block and a step to look closer. To see what an eraser does, put "
        "**Load LoRA** between Load Flux and Attention Map.\n\n"
        "中文：点击运行，然后把鼠标移到提示词的每个词上，查看它落在画面何处。"
    )
    flow.arrange(
        Column([loaded, note]),
        flow.frame("2 · Hover a word: where does it land?", "draw", seen),
        flow.frame("3 · The same as images", "compare", *images, masks),
    )
    return flow


def two_concepts(base: Base, info: dict[str, Any]) -> Workflow:
    flow = Workflow(f"{base.name} two concepts combined", info)
    model, loaded = load(flow, base)
    erasers: list[Node] = []
    frames: list[Box] = []
    for number, name in enumerate(("tiger", "car")):
        words = concept(flow, base, name, per_band=3)
        words.shown = 20
        erasers.append(instant(flow, model, words, rank=16))
        title = f"{2 + number} · Forget “{name}”"
        frames.append(flow.frame(title, "train", Row([words, erasers[-1]])))
    both = flow.add(
        "EraseAnythingCombine", 320, lora_1=erasers[0]["lora"], lora_2=erasers[1]["lora"]
    )
    kept = flow.add(
        "EraseAnythingSave", 370, lora=both["lora"], filename_prefix="eraser_tiger_and_car"
    )
    other = "a dog on a blue background" if base is MINI else "a photo of a dog on a beach"
    sheet = preview(flow, base, model, [*HALF[base.name], other], 370, lora=both["lora"])
    note = flow.note(
        f"**Press Run.** {base.note}\n\nTwo erasers are made in a second each, and "
        "**Combine Erasers** makes one file of them; `cat` adds their changes exactly. Erasers "
        "that you have already can be chosen there as files instead.\n\n"
        "中文：各用一秒制作两个擦除器，再合并为一个文件；`cat` 精确相加。"
    )
    flow.arrange(
        Column([loaded, note]),
        Column(frames),
        flow.frame("4 · One eraser of two", "train", both),
        Column([flow.frame("5 · Side by side", "compare", sheet),
                flow.frame("6 · Keep it", "train", kept)]),
    )  # fmt: skip
    return flow


def saved_eraser(base: Base, info: dict[str, Any], file: str) -> Workflow:
    flow = Workflow(f"{base.name} use a saved eraser", info)
    model, loaded = load(flow, base)
    lora = flow.add("LoraLoaderModelOnly", 310, model=model["model"], lora_name=file)
    asked = wanted(flow, base, model, HALF[base.name][0])
    drawn = draw(flow, base, model, asked, "erased", lora["model"])
    wide = drawn.extent[0]
    sheet = preview(flow, base, model, HALF[base.name], wide, strengths="0, 0.5, 1", lora_file=file)
    sheet.shown = 230
    note = flow.note(
        f"**First run “{base.name} erase and compare”**: it makes `{file}`. Or choose another "
        "eraser in **Load LoRA** and **Erasure Preview**. Then press Run.\n\n"
        "An eraser is an ordinary LoRA: use it wherever a LoRA goes, at any strength.\n\n"
        "中文：请先运行“erase and compare”工作流生成该文件，或选择其他擦除器，再点击运行。"
    )
    flow.arrange(
        Column([loaded, note]),
        Column([flow.frame("2 · Your eraser", "train", lora),
                flow.frame("3 · What to draw", "draw", *asked.nodes)]),
        Column([flow.frame("4 · Draw with it", "draw", drawn),
                flow.frame("5 · Half and full strength", "compare", sheet)]),
    )  # fmt: skip
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
    count_what_went(MINI, info).save()
    style_erasure(MINI, info).save()
    saved_eraser(MINI, info, "eraser_tiger_00001.safetensors").save()


if __name__ == "__main__":
    main()
