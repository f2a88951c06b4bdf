"""What MiniFlux and FLUX.1 do inside the host's own process; see inside.py.

python measures.py measure|slow HOST PACKAGE BASE OUT
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import inside  # the host's process

# isort: split
import comfy.clip_vision
import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from eraseanything.erase_core.concepts.sets import Bands, Concept, ConceptSet
from eraseanything.erase_core.erasers.edit import WeightEdit
from eraseanything.erase_core.methods import hirm
from eraseanything.erase_core.methods.base import Task, find_method
from eraseanything.erase_core.methods.eraseanything.settings import TrainSettings
from eraseanything.erase_core.methods.eraseanything.trainer import Trainer
from eraseanything.erase_core.models.base import Conditioning
from eraseanything.erase_core.models.flux1.config import FluxConfig
from eraseanything.erase_core.models.flux1.forward import velocity
from eraseanything.erase_core.models.flux1.names import file_keys
from eraseanything.erase_core.models.flux1.tree import Flux
from eraseanything.erase_core.tensors import save_tensors
from eraseanything.nodes import (
    concepts_file,
    drawing,
    eraser,
    hosts,
    judging,
    live,
    load,
    orders,
    places,
    settings,
)
from eraseanything.nodes.hosts import flux1
from inside import (
    ANY_WIDTH,
    BASE,
    FLUX,
    HELD,
    OUT,
    PROMPTS,
    SERVER,
    SIGMA,
    digest,
    execute,
    failure,
    gradients,
    host_nodes,
    know_our_nodes,
    latents,
    random_lora,
    relative,
    said,
    sampled,
    shaken,
    small_vision,
    standalone,
    tree_of,
    unet,
)


def measure_t5_tokens() -> dict[str, Any]:
    """Words found among the tokens of the host's own T5 tokenizer."""
    pair = comfy.text_encoders.flux.FluxTokenizer()
    clip = SimpleNamespace(tokenizer=pair, tokenize=pair.tokenize_with_weights)
    text = flux1.Text(clip, FluxConfig())
    prompt = "two tigers (striped) and a lion's den, category tiger"
    escaped = prompt.replace("(", r"\(").replace(")", r"\)")
    ids = [token for token, _ in clip.tokenize(escaped)["t5xxl"][0]]
    spelled = {}
    for word in ("tiger", "lion", "striped"):
        mask = text.token_mask(prompt, word)
        picked = [ids[row] for row in mask.nonzero().flatten().tolist()]
        spelled[word] = text.tokenizer.decode(picked)
    return {"length": text.length, "spelled": spelled}


def slow_full_width() -> dict[str, Any]:
    """FLUX.1's width, a block of each kind, random weights, through the host's own loaders."""
    config = FluxConfig(depth=1, depth_single_blocks=1)
    torch.manual_seed(0)
    tree = Flux(config).to(torch.bfloat16)
    path = FLUX.with_name("full.safetensors")
    save_tensors(path, file_keys(tree.state_dict()))
    del tree
    model = unet("default", path)
    made = ConceptSet((Concept("tiger", irrelevant=Bands(near=("lion",), none=("car",))),))
    wanted = TrainSettings(
        steps=2, batch=1, rank=8, rollout_steps=2, erase_rollouts=2, keep_rollouts=2, k=1,
        height=64, width=64, activation_checkpointing=True,
    )  # fmt: skip
    hosts.load(model, 1, (64, 64))
    with torch.inference_mode(), hosts.training():
        text = _Words(config)
        opened = replace(hosts.open_model(model, load.load_miniflux_clip()), text=text)
        result = Trainer(opened, made, wanted).run()
    shaken(result.eraser, 0.1)  # two steps change too little to see
    file = BASE / "models" / "loras" / "full.safetensors"
    result.eraser.save(file)
    x, cond = latents()[:, :, :8, :8], text.encode(PROMPTS)
    with torch.no_grad():
        plain = velocity(opened.tree, x, SIGMA, cond, 3.5)
        changed = velocity(opened.tree, x, SIGMA, cond, 3.5, eraser=result.eraser)
    with torch.inference_mode():
        erased = host_nodes.LoraLoaderModelOnly().load_lora_model_only(model, file.name, 1.0)[0]
    return {
        "keys": sorted(result.eraser.tensors()),
        "stopped": result.stopped,
        "esd": [row["esd"] for row in result.history],
        "change": relative(changed, plain),
        "difference": relative(sampled(erased, x, cond), changed),
    }


class _Words:
    """Random vectors of FLUX.1's widths, 16 tokens, one a word."""

    length = 16

    def __init__(self, config: Any) -> None:
        self.config = config

    def encode(self, prompts: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        context = torch.randn(len(prompts), 16, self.config.context_in_dim, generator=generator)
        pooled = torch.randn(len(prompts), self.config.vec_in_dim, generator=generator)
        return Conditioning(context, pooled)

    def release(self) -> None:
        pass

    def token_mask(self, prompt: str, word: str) -> Any:
        mask = torch.zeros(16)
        mask[prompt.count(" ") % 16] = 1
        return mask


def measure_clip_vision() -> dict[str, Any]:
    """Words and pictures in CLIP's joint space."""
    vision, clip = small_vision(), load.load_miniflux_clip()
    with torch.inference_mode():
        words = judging.clip_words(clip, PROMPTS)
        pictures = judging.clip_pictures(vision, torch.rand(3, 64, 64, 3), words.shape[1])
        refused = said(lambda: judging.clip_pictures(vision, torch.rand(1, 64, 64, 3), 768))
    pooled = flux1.Text(clip, standalone().config).encode(PROMPTS).pooled
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.data.zero_()  # not in the file
    return {
        "words": relative(words, pooled),  # MiniFlux's projection is the identity
        "pictures": list(pictures.shape),
        "refused": refused,
        "unprojected": said(lambda: judging.clip_words(clip, PROMPTS)),
    }


def measure_text() -> dict[str, float]:
    """MiniFlux's encoders in the host against transformers'."""
    bundle, clip = standalone(), load.load_miniflux_clip()
    text = flux1.Text(clip, bundle.config)
    ours, theirs = text.encode([*PROMPTS, ""]), bundle.text.encode([*PROMPTS, ""])
    edit = hirm.first_layer(bundle.text)
    shaken(edit, 0.05)
    edit.save(BASE / "models" / "loras" / "clip.safetensors")
    with torch.inference_mode():
        changed = host_nodes.LoraLoader().load_lora(None, clip, "clip.safetensors", 1.0, 1.0)[1]
    with bundle.text.under(edit):
        wanted = bundle.text.encode(PROMPTS).pooled
    masks = [
        bool((text.token_mask(p, w) == bundle.text.token_mask(p, w)).all())
        for p, w in ((PROMPTS[0], "tiger"), (PROMPTS[1], "cat"), (PROMPTS[1], "left of"))
    ]
    return {
        "context": relative(ours.context, theirs.context),
        "pooled": relative(ours.pooled, theirs.pooled),
        "masks_equal": float(all(masks)),
        "length": text.length,
        "edit": relative(flux1.Text(changed, bundle.config).encode(PROMPTS).pooled, wanted),
        "edit_change": relative(wanted, theirs.pooled[: len(PROMPTS)]),
        "weights_are_literal": relative(
            text.encode(["a (tiger:1.5)"]).context, bundle.text.encode(["a (tiger:1.5)"]).context
        ),
    }


def measure_velocity() -> dict[str, float]:
    """Host + our LoRA file in the host's loader, against the trainer's own adapter."""
    bundle = standalone()
    lora = random_lora(bundle.config)
    path = BASE / "models" / "loras" / "measured.safetensors"
    lora.save(path)
    x, cond = latents(), bundle.text.encode(PROMPTS)
    with torch.no_grad():
        plain = velocity(bundle.tree, x, SIGMA, cond, 3.5)
        changed = velocity(bundle.tree, x, SIGMA, cond, 3.5, eraser=lora)
    model = unet()
    with torch.inference_mode():
        loader = host_nodes.LoraLoaderModelOnly()
        erased = loader.load_lora_model_only(model, path.name, 1.0)[0]
        half = loader.load_lora_model_only(model, path.name, 0.5)[0]
    with torch.no_grad():
        halved = velocity(bundle.tree, x, SIGMA, cond, 3.5, eraser=lora.scaled(0.5))
    found = {
        "plain": (sampled(model, x, cond) - plain).abs().max().item(),
        "lora": (sampled(erased, x, cond) - changed).abs().max().item(),
        "half": (sampled(half, x, cond) - halved).abs().max().item(),
        "change": (changed - plain).abs().max().item(),
    }
    edit = WeightEdit.zeros(bundle.tree, ["txt_in", "double_blocks.1.txt_attn.qkv"])
    shaken(edit, 0.02)
    edit.save(path.with_name("edit.safetensors"))
    with torch.inference_mode():
        edited = loader.load_lora_model_only(model, "edit.safetensors", 1.0)[0]
    with torch.no_grad():
        wanted = velocity(bundle.tree, x, SIGMA, cond, 3.5, eraser=edit)
    found |= {
        "edit": (sampled(edited, x, cond) - wanted).abs().max().item(),
        "edit_change": (wanted - plain).abs().max().item(),
    }
    hosts.load(erased)
    with torch.no_grad():  # a MODEL that carries a LoRA, seen through the trainer's tree
        carried = velocity(tree_of(erased), x, SIGMA, cond, 3.5)
    return found | {"carried": (carried - changed).abs().max().item()}


def measure_gradients() -> dict[str, float]:
    """Through UNETLoader's inference tensors: fp32, fp8, scaled fp8; ours in bf16 beside."""
    bundle = standalone()
    cond = bundle.text.encode(PROMPTS)
    wanted = gradients(bundle.tree, bundle.config, cond)
    model = unet()
    hosts.load(model)
    found = {"inference_tensors": float(all(p.is_inference() for p in model.model.parameters()))}
    with torch.inference_mode(), hosts.training():
        found["fp32"] = relative(gradients(tree_of(model), bundle.config, cond), wanted)
    with torch.inference_mode(), hosts.training():
        half = standalone(torch.bfloat16).tree
        found["bf16"] = relative(gradients(half, bundle.config, cond), wanted)
    for name, path, dtype in (
        ("fp8", FLUX, "fp8_e4m3fn"),
        ("fp8_scaled", scaled_fp8_file(), "default"),
    ):
        if path != FLUX and not ANY_WIDTH:
            continue
        small = unet(dtype, path)
        hosts.load(small)
        with torch.inference_mode(), hosts.training():
            tree = tree_of(small)
            found[name] = relative(gradients(tree, bundle.config, cond), wanted)
            with torch.no_grad():
                ours = velocity(tree, latents(), SIGMA, cond, 3.5)
                exact = velocity(bundle.tree, latents(), SIGMA, cond, 3.5)
        found[f"{name}_solved"] = relative(solved(small), solved(unet()))
        found[f"{name}_to_host"] = relative(ours, sampled(small, latents(), cond))
        found[f"{name}_velocity"] = relative(ours, exact)
    return found


def solved(model: Any) -> Any:
    """An instant eraser's change of ``txt_in``, of a MODEL in the host."""
    hosts.load(model)
    with torch.inference_mode():
        opened = hosts.open_model(model, load.load_miniflux_clip())
        made = ConceptSet((Concept("tiger", irrelevant=Bands(near=("lion",), none=("car",))),))
        result = find_method("uce prompts=8 kept=1").erase(Task(opened, made))
    return result.eraser.tensors()["diffusion_model.txt_in.diff"]


def scaled_fp8_file() -> Path:
    """MiniFlux's transformer in the host's scaled fp8 layout: a scale a matrix."""
    path = FLUX.with_name("miniflux_scaled.safetensors")
    state = comfy.utils.load_torch_file(str(FLUX))
    out: dict[str, Any] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for key, tensor in state.items():
        if tensor.ndim == 2 and "_blocks." in key:
            scale = tensor.float().abs().max() / 448
            out[key] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            out[key.replace(".weight", ".scale_weight")] = scale
        else:
            out[key] = tensor
    save_tensors(path, out)
    return path


def measure_pictures() -> dict[str, float]:
    """UNETLoader and VAELoader with MiniFlux's files, and KSampler, against our own loader."""
    bundle = standalone()
    with torch.inference_mode():
        vae = host_nodes.VAELoader().load_vae("miniflux_vae.safetensors")[0]
        images = drawing.draw(unet(), vae, bundle.text.encode(PROMPTS), [5, 6], (128, 96), 5, 3.5)
    ours = bundle.generate(PROMPTS, [5, 6], size=(128, 96), steps=5).float() / 255
    return {"mean": float((images - ours).abs().mean()), "contrast": float(ours.std())}


def measure_untouched() -> dict[str, Any]:
    """Hash of a MODEL's weights around success, error and cancel of Erase Concept."""
    know_our_nodes()
    graph = json.loads((OUT.parent / "train.json").read_text())
    model, clip = unet(), load.load_miniflux_clip()
    lora = comfy.utils.load_torch_file(str(BASE / "models" / "loras" / "measured.safetensors"))
    with torch.inference_mode():
        carrying = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]
    HELD["given"] = (carrying, clip, None)
    graph["load"] = {"class_type": "Given", "inputs": {"name": "given"}}
    before = digest(model)
    found: dict[str, Any] = {}

    runner = execute(graph)
    found["success"] = [runner.success, digest(model) == before]

    broken = json.loads(json.dumps(graph))
    broken["train"]["inputs"]["filename_prefix"] = "broken"
    broken["settings"]["inputs"]["checkpoint_every"] = 1
    folder = BASE / "output" / "eraseanything" / "checkpoints" / "broken.steps"

    def block(*_: Any, **__: Any) -> None:
        if folder.is_dir():
            shutil.rmtree(folder)
            folder.write_text("a file where a folder was")

    comfy.utils.set_progress_bar_global_hook(block)
    runner = execute(broken)
    comfy.utils.set_progress_bar_global_hook(None)
    found["error"] = [runner.success, digest(model) == before, failure(runner)]
    found["error_file"] = len(list((BASE / "models" / "loras").glob("broken*partial-1*")))

    stopped = json.loads(json.dumps(graph))
    stopped["train"]["inputs"] |= {"filename_prefix": "stopped", "steps": 1000}
    calls = 0

    def hook(value: int, total: int, preview: Any, **_: Any) -> None:
        nonlocal calls
        calls += total == 1000
        if calls == 2:
            comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()

    comfy.utils.set_progress_bar_global_hook(hook)
    runner = execute(stopped)
    comfy.utils.set_progress_bar_global_hook(None)
    found["cancel"] = [runner.success, digest(model) == before]
    found["cancel_file"] = len(list((BASE / "models" / "loras").glob("stopped*partial-*")))
    return found


class BrokenVAE:
    """Decodes nothing."""

    def decode(self, latents: Any) -> Any:
        raise RuntimeError("the VAE is broken")


def measure_previews() -> dict[str, Any]:
    """A run whose previews fail, and how often that is said."""
    know_our_nodes()
    graph = json.loads((OUT.parent / "train.json").read_text())
    HELD["previews"] = (unet(), load.load_miniflux_clip(), BrokenVAE())
    graph["load"] = {"class_type": "Given", "inputs": {"name": "previews"}}
    graph["train"]["inputs"] |= {"filename_prefix": "unseen", "preview_every": 1}
    graph["train"]["inputs"]["vae"] = ["load", 2]
    told: list[str] = []
    show, SERVER.send_progress_text = SERVER.send_progress_text, lambda text, *_: told.append(text)
    runner = execute(graph)
    before, SERVER.client_id = len(told), None
    live.say("train", "a run that no page queued")
    SERVER.send_progress_text = show
    return {
        "success": runner.success,
        "silent": len(told) == before,
        "warnings": [text for text in told if "previews" in text],
        "files": len(list((BASE / "models" / "loras").glob("unseen_*"))),
    }


def measure_refusals() -> dict[str, str]:
    """What models of other kinds are told."""

    sd15 = comfy.supported_models.SD15({"disable_unet_model_creation": True, "in_channels": 4})
    device = torch.device("cpu")
    old = comfy.model_patcher.ModelPatcher(sd15.get_model({}), device, device)
    fill = unet()
    weight = fill.model.diffusion_model.img_in
    fill.model.diffusion_model.img_in = torch.nn.Linear(384, weight.out_features)
    wan = comfy.supported_models.WAN21_T2V({"disable_unet_model_creation": True})
    video = comfy.model_patcher.ModelPatcher(wan.get_model({}), device, device)
    packed = unet()  # blocks of bytes that nothing here unpacks
    qkv = packed.model.diffusion_model.double_blocks[0].img_attn.qkv
    qkv.weight = torch.nn.Parameter(torch.zeros(9, 72, dtype=torch.uint8), requires_grad=False)
    hidden = unet()
    hidden.model.diffusion_model = torch.nn.ModuleDict({"model": hidden.model.diffusion_model})
    half = unet()  # as on a card without bfloat16
    half.model.manual_cast_dtype = old.model.manual_cast_dtype = torch.float16
    kontext = shutil.copy(FLUX, FLUX.with_name("flux1-dev-kontext.safetensors"))
    clip = load.load_miniflux_clip()
    no_t5 = clip.clone()
    no_t5.tokenizer = type("Tokenizer", (), {"clip_l": clip.tokenizer.clip_l})()
    names = {"dots": "../out", "absolute": "/etc/x", "drive": "C:\\x", "empty": " "}
    refused = {what: said(partial(places.inside, BASE, name)) for what, name in names.items()}
    return refused | {
        "sd15": said(lambda: tree_of(old)),
        "wan": said(lambda: hosts.sizes(video)),
        "packed": said(lambda: hosts.sizes(packed)),
        "hidden": said(lambda: hosts.sizes(hidden)),
        "kontext": said(lambda: hosts.sizes(unet(path=kontext))),
        "fill": said(lambda: hosts.sizes(fill)),
        "half": said(lambda: tree_of(half)),
        "no_t5": said(lambda: flux1.Text(no_t5, FluxConfig())),
        "other_clip": said(lambda: flux1.Text(clip, FluxConfig()).encode(["a tiger"])),
        **damaged_loras(),
        "long": said(lambda: flux1.Text(clip, standalone().config).encode(["a tiger " * 80])),
    }


def damaged_loras() -> dict[str, str]:
    """What an eraser is told that would draw black, or that no loader could read."""
    name = "transformer.transformer_blocks.0.attn.add_q_proj.lora_"
    pair = {f"{name}A.weight": torch.ones(2, 128), f"{name}B.weight": torch.ones(128, 2)}
    bad = {
        "nan_lora": pair | {f"{name}B.weight": torch.full((128, 2), torch.nan)},
        "foreign_nan": {"lora_unet_x.lora_up.weight": torch.full((2, 2), torch.inf)},
        "half_lora": {f"{name}A.weight": torch.ones(2, 128)},
        "encoder_edit": {"text_encoders.clip_l.x.diff": torch.ones(2, 2)},
    }
    return {what: said(partial(eraser.require, tensors, "none")) for what, tensors in bad.items()}


def measure_names() -> dict[str, str]:
    """Names of files: "Tiger" is "tiger" to Windows; a name that comes from a link is unknown."""
    (BASE / "names").mkdir()
    (BASE / "names" / "Tiger_00001.safetensors").touch()
    told = partial(concepts_file.EraseConceptSetIO.fingerprint_inputs, folder="user", name="none")
    free = places.free_name(BASE / "names", "tiger").name
    return {"free": free, "linked": told(name=None) + told(folder=None)}


def measure_plans() -> list[list[int]]:
    """Rank, rollouts and batch of one concept and of six, Erase Settings connected."""
    node = {"rank": 8, "erase_rollouts": 48, "keep_rollouts": 50, "batch": 2}
    words = tuple(Concept(f"thing {n}", "entity") for n in range(6))
    flux = replace(hosts.open_model(unet(), load.load_miniflux_clip()), presets={})
    method = find_method(orders.DEFAULT)
    plans = []
    for made in (ConceptSet(words[:1]), ConceptSet(words)):
        order = orders.order(flux, method, made, {"steps": 0}, node, 0)
        plans.append(method.suited(flux, made, order.preset, order.changes))
    return [[getattr(plan, name) for name in node] for plan in plans]


def measure_overrides() -> list[dict[str, Any]]:
    """What Erase Settings ask for as they come, and with a few of them set, 0 among the values."""
    unset = {item.id: item.default for item in settings._inputs()}
    more = {
        "alpha": 0.0, "eta": 0.0, "l_adv": 0.0, "checkpoint_every": 0, "null": "empty",
        "attention_blocks": "0, 1", "activation_checkpointing": True, "preset": "fast",
    }  # fmt: skip
    return [settings.Settings.execute(**values).args[0] for values in (unset, unset | more)]


if __name__ == "__main__":
    inside.main(globals())
