"""The module tree of Qwen-Image under the names of its authors' files, which are ComfyUI's and
diffusers', too: blocks with a text and an image stream.

The tree holds weights only; :mod:`.forward` computes with it, and with any other tree of the same
names.
"""

from __future__ import annotations

from torch import nn

from ..flux1.config import HEAD_DIM
from .config import QwenImageConfig

EPS = 1e-6  # of all norms
TIME_DIM = 256  # width of the time's embedding
MLP = 4  # width of the blocks' MLPs, in widths of the model
IMAGE, TEXT = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")
NORMS = {"img": ("norm_q", "norm_k"), "txt": ("norm_added_q", "norm_added_k")}


class Attention(nn.Module):
    """One attention of both streams, each with its own projections and norms of q and k."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        for name in (*IMAGE, *TEXT):
            self.add_module(name, nn.Linear(hidden, hidden))
        for names in NORMS.values():
            for name in names:
                self.add_module(name, nn.RMSNorm(HEAD_DIM, eps=EPS))
        self.to_out = nn.Sequential(nn.Linear(hidden, hidden))
        self.to_add_out = nn.Linear(hidden, hidden)


class Widening(nn.Module):
    """The first half of an MLP."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(hidden, MLP * hidden)


class FeedForward(nn.Module):
    """What follows an attention."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Widening(hidden), nn.Identity(), nn.Linear(MLP * hidden, hidden))


class Block(nn.Module):
    """A text and an image stream, modulated by the time, and their attention."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        for stream in ("img", "txt"):
            modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))
            self.add_module(f"{stream}_mod", modulation)
            self.add_module(f"{stream}_mlp", FeedForward(hidden))
        self.attn = Attention(hidden)


class TimestepEmbedder(nn.Module):
    """Embeds the time: (B, 256) -> (B, hidden)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(TIME_DIM, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)


class TimeEmbed(nn.Module):
    """What modulates the blocks."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedder(hidden)


class LastNorm(nn.Module):
    """What modulates the last projection."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, 2 * hidden)


class QwenImage(nn.Module):
    """A Qwen-Image transformer of any size; parameters carry its authors' names
    (``transformer_blocks.0...``)."""

    def __init__(self, config: QwenImageConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden_size
        self.time_text_embed = TimeEmbed(hidden)
        self.txt_norm = nn.RMSNorm(config.context_in_dim, eps=EPS)
        self.img_in = nn.Linear(config.in_channels, hidden)
        self.txt_in = nn.Linear(config.context_in_dim, hidden)
        self.transformer_blocks = nn.ModuleList(Block(hidden) for _ in range(config.depth))
        self.norm_out = LastNorm(hidden)
        self.proj_out = nn.Linear(hidden, config.in_channels)
