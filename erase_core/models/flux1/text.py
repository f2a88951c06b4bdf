"""CLIP-L and T5 as Flux uses them: a pooled vector and a row of states for each prompt.

Both compute in float32, and their matrices stay mapped to the file in its dtype, to be widened at
every use: T5-XXL takes the 9.5 or 4.9 GB of its file instead of 19, and gives the same numbers.
Computing in bfloat16, too, would be slow on every CPU without instructions for it. On another
device a matrix is there only while it is used, so that a small card encodes as well as a big one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from ...errors import EraseError
from ...tensors import read_weights
from ..base import Adapter, Conditioning, linear_flop
from ..frozen import FrozenLinear, put, unscale
from ..tokens import token_mask

CLIP_LENGTH = 77
CLIP_NAMES = "text_encoders.clip_l.transformer."  # the host's, in files of erasers
HEAD = 64  # of either encoder, in every size
_CLIP_TABLE = "text_model.embeddings.token_embedding.weight"
_T5_TABLES = ("shared", "encoder.embed_tokens")  # one table under either name or both


@dataclass(eq=False)
class TextEncoders:
    """Both encoders with their tokenizers, until :meth:`release`.

    ``t5_length`` is the number of T5 tokens of every prompt (256 or 512 for Flux.1, 64 for
    MiniFlux); as in ComfyUI, padding takes part in T5's attention.
    """

    clip: CLIPTextModel
    clip_tokenizer: PreTrainedTokenizerFast
    t5: T5EncoderModel
    t5_tokenizer: PreTrainedTokenizerFast
    t5_length: int

    @property
    def length(self) -> int:
        """T5 tokens of every prompt."""
        return self.t5_length

    @property
    def flop(self) -> float:
        """Of both encoders on one prompt."""
        return linear_flop(self.t5, self.t5_length) + linear_flop(self.clip, CLIP_LENGTH)

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """T5's, whose tokens the context has."""
        return self.t5_tokenizer

    @property
    def table(self) -> Tensor:
        """T5's embeddings of all tokens, (V, D)."""
        return self.t5.get_input_embeddings().weight.detach()

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """T5's token ids (B, t5_length) of prompts."""
        return tokenize(self.t5_tokenizer, prompts, self.t5_length)

    def states(self, embeddings: Tensor) -> Conditioning:
        """Prompts as T5 embeddings (B, t5_length, D), with gradients and without a pooled
        vector."""
        return Conditioning(self.t5(inputs_embeds=embeddings).last_hidden_state)

    def to(self, device: torch.device | str) -> TextEncoders:
        """Compute on ``device``; the matrices stay in the file and go over one at a time."""
        models: tuple[nn.Module, ...] = (self.clip, self.t5)
        for model in models:
            model.to(device)
        return self

    def encode(self, prompts: Sequence[str], batch: int = 64) -> Conditioning:
        """Encode prompts without gradients: context (B, t5_length, D) and pooled (B, P), float32 in
        main memory."""
        return encode_with(self.embed, prompts, batch)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts in one batch where the encoders compute, with gradients where they want
        them."""
        device = self.t5.device
        t5_ids = self.tokens(prompts).to(device)
        clip_ids = tokenize(self.clip_tokenizer, prompts, CLIP_LENGTH).to(device)
        context = self.t5(input_ids=t5_ids).last_hidden_state
        pooled = self.clip(input_ids=clip_ids).pooler_output
        return Conditioning(context, pooled)

    @contextmanager
    def under(self, adapter: Adapter) -> Iterator[None]:
        """Within it CLIP's Linears do what ``adapter`` makes of them, by the host's names."""
        found = [(n, m) for n, m in self.clip.named_modules() if isinstance(m, nn.Linear)]
        hooks = []
        for name, module in found:

            def change(_: nn.Module, x: Any, y: Tensor, name: str = clip_name(name)) -> Tensor:
                return adapter(name, x[0], y)

            hooks.append(module.register_forward_hook(change))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def release(self) -> None:
        """Give the encoders' memory back; the tokenizers stay, nothing can be encoded any more."""
        del self.clip, self.t5
        torch.cuda.empty_cache()  # else a card's memory would not count as free; no card, no effect

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """Which of the T5 tokens spell ``word`` in ``prompt``: (t5_length,) of 0 and 1.

        Raises
        ------
        EraseError
            When the word is not in the prompt, or lies past the truncation length.
        """
        return token_mask(self.t5_tokenizer, prompt, word, self.t5_length)


def clip_name(module: str) -> str:
    """What the host calls one of CLIP's modules: transformers 5 leaves ``text_model.`` out."""
    return f"{CLIP_NAMES}text_model.{module.removeprefix('text_model.')}"


@torch.no_grad()
def encode_with(
    embed: Callable[[Sequence[str]], Conditioning],
    prompts: Sequence[str],
    batch: int,
    encoder: str = "T5",
) -> Conditioning:
    """Prompts in main memory, ``batch`` at a time; EraseError when an encoder gives NaN."""
    parts = [embed(prompts[i : i + batch]).to("cpu") for i in range(0, len(prompts), batch)]
    cond = Conditioning.cat(parts)
    for what, found in ((encoder, cond.context), ("CLIP", cond.pooled)):
        if found is not None and not found.isfinite().all():
            raise EraseError(f"The {what} encoder gives NaN; its file is damaged.")
    return cond


def tokenize(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], length: int) -> Tensor:
    """Token ids (B, length), padded and truncated (the end token is kept)."""
    encoded = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return encoded["input_ids"]


class _StoredLinear(FrozenLinear):
    """A FrozenLinear whose weight is no parameter: it stays in the file when the model moves, and
    transformers' T5 would narrow what goes into a layer to the dtype of its ``weight``."""

    def __init__(self, linear: nn.Linear, scale: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.scale, self.stored, self.bias = scale, linear.weight.data, linear.bias
        self.weight = None  # type: ignore[assignment]

    def held(self) -> tuple[Tensor, Tensor | None]:
        return self.stored, self.bias


def load_clip(
    path: Path, tokenizer: PreTrainedTokenizerFast, name: str = "clip_l", act: str = "quick_gelu"
) -> CLIPTextModel:
    """CLIP's text model of any size from a safetensors file with ``text_model.`` names, or from the
    ``text_encoder`` folder of a pipeline: such a one as the file ``name`` has, with ``act``.

    Raises
    ------
    EraseError
        When the file is missing, damaged or something else.
    """
    tensors = read_weights(path)
    layer = "text_model.encoder.layers.0"
    wanted = _CLIP_TABLE, f"{layer}.self_attn.q_proj.weight", f"{layer}.mlp.fc1.weight"
    (rows, width), _, (inner, _) = _shapes(
        tensors, wanted, f"{path} is not a CLIP text encoder; choose {name}.safetensors."
    )
    config = CLIPTextConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=count_layers(tensors, "text_model.encoder.layers."),
        num_attention_heads=width // HEAD,
        projection_dim=width,
        hidden_act=act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.device("meta"):
        model = CLIPTextModel(config)
    if not any(name.startswith("text_model.") for name in model.state_dict()):  # transformers 5
        tensors = {name.removeprefix("text_model."): t for name, t in tensors.items()}
    return assign(model, tensors, path)


def load_t5(path: Path) -> T5EncoderModel:
    """T5 v1.1's encoder of any size from a safetensors file with ``encoder.block`` names, or from
    the ``text_encoder_2`` folder of a pipeline, sharded or not: 32, 16 or 8 bits, the last with a
    scale for each matrix or without.

    Raises
    ------
    EraseError
        When the file is missing, damaged, quantised in another way, or something else.
    """
    tensors = read_weights(path)
    table = next((name for name in _T5_TABLES if f"{name}.weight" in tensors), _T5_TABLES[0])
    block = "encoder.block.0.layer"
    wanted = (
        f"{table}.weight",
        f"{block}.0.SelfAttention.q.weight",
        f"{block}.1.DenseReluDense.wi_0.weight",
    )
    (rows, width), (inner, _), (feed, _) = _shapes(
        tensors, wanted, f"{path} is not a T5 encoder; choose t5xxl_fp16 or t5xxl_fp8."
    )
    config = T5Config(
        vocab_size=rows,
        d_model=width,
        d_kv=HEAD,
        num_heads=inner // HEAD,
        d_ff=feed,
        num_layers=count_layers(tensors, "encoder.block."),
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    with torch.device("meta"):
        model = T5EncoderModel(config)
    own = {key.removeprefix(table): t for key, t in tensors.items() if key.startswith(f"{table}.")}
    tensors |= {name + end: tensor for name in _T5_TABLES for end, tensor in own.items()}
    model = assign(model, tensors, path)
    model.set_input_embeddings(model.shared)
    return model


def _shapes(
    tensors: dict[str, Tensor], names: tuple[str, ...], otherwise: str
) -> list[tuple[int, int]]:
    """Rows and columns of the token table, the first queries' matrix (heads of HEAD rows) and the
    first MLP's; EraseError ``otherwise``."""
    shapes = [tuple(tensors[name].shape) for name in names if name in tensors]
    if len(shapes) < len(names) or any(len(s) != 2 or 0 in s for s in shapes):
        raise EraseError(otherwise)
    if shapes[1][0] % HEAD or len({columns for _, columns in shapes}) > 1:
        raise EraseError(otherwise)
    return [(rows, columns) for rows, columns in shapes]


def count_layers(tensors: dict[str, Tensor], prefix: str) -> int:
    """How many layers have tensors under ``prefix``."""
    start = len(prefix)
    return len({name[start:].split(".")[0] for name in tensors if name.startswith(prefix)})


def assign(model, tensors: dict[str, Tensor], path: Path):  # type: ignore[no-untyped-def]
    """Fill a model that has no storage: matrices as they are in the file, all else in float32."""
    state, scales = unscale(path.name, tensors, "choose one of 16 bits or fp8")
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    known: dict[str, Tensor] = {}
    for name, expected in model.state_dict().items():
        if name not in state:
            raise EraseError(f"{path} lacks {name}: it is damaged or of another kind.")
        if state[name].shape != expected.shape:
            raise EraseError(f"{path} has {name} in another size: it is damaged or another kind.")
        module, _, end = name.rpartition(".")
        matrix = module in linears and end == "weight"
        known[name] = state[name] if matrix else state[name].float()
        if module in scales and end == "weight" and not matrix:
            known[name] = known[name] * scales[module]
    model.load_state_dict(known, assign=True)
    for name, linear in linears.items():
        put(model, name, _StoredLinear(linear, scales.get(name, 1.0)))
    for name, buffer in model.named_buffers():
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            model.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
    return model.train(False).requires_grad_(False)
