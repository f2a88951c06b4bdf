"""Prompts encoded once: without padding, found again, told beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import LENGTH, WordText

from erase_core.miniatures import miniflux
from erase_core.training import encoding
from erase_core.training.encoding import Encoder, Work

PROMPTS = ["a tiger", "a photo of a tiger", "a tiger", ""]


class Big(WordText):
    """One that is worth keeping its states."""

    flop = 2e12

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift
        self.encoded: list[str] = []

    def encode(self, prompts):  # type: ignore[no-untyped-def]
        self.encoded += prompts
        cond = super().encode(prompts)
        return type(cond)(cond.context + self.shift, cond.pooled)


def test_a_prompt_is_encoded_once_and_found_again(tmp_path: Path) -> None:
    text = Big()
    encoder = Encoder(text, tmp_path)
    assert encoder.work(PROMPTS) == Work(3, 0, 6e12)
    first = encoder.encode(PROMPTS)
    assert sorted(text.encoded) == sorted([encoding.PROBE, *set(PROMPTS)])
    assert encoder.work([*PROMPTS, "a dog"]) == Work(4, 3, 2e12)

    other = Big()
    again = Encoder(other, tmp_path)
    assert again.work(PROMPTS) == Work(3, 3, 0)
    for prompt, state in again.encode(PROMPTS).items():
        assert torch.equal(state.tokens, first[prompt].tokens)
        assert torch.equal(state.pooled, first[prompt].pooled)
    assert other.encoded == [encoding.PROBE]


def test_other_encoders_find_nothing_of_each_others(tmp_path: Path) -> None:
    Encoder(Big(), tmp_path).encode(PROMPTS)
    assert Encoder(Big(1e-3), tmp_path).work(PROMPTS).known == 0


def test_damaged_states_are_made_anew(tmp_path: Path) -> None:
    first = Encoder(Big(), tmp_path).encode(PROMPTS)
    for path in tmp_path.glob("*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:40])
    again = Encoder(Big(), tmp_path).encode(PROMPTS)
    assert all(torch.equal(again[p].tokens, first[p].tokens) for p in PROMPTS)
    last = Big()
    Encoder(last, tmp_path).encode(PROMPTS)
    assert last.encoded == [encoding.PROBE]  # written again, whole


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "states"
    blocked.write_text("a file, not a folder")
    assert set(Encoder(Big(), blocked).encode(PROMPTS)) == set(PROMPTS)


def test_small_encoders_keep_nothing(tmp_path: Path) -> None:
    Encoder(WordText(), tmp_path).encode(PROMPTS)
    assert not list(tmp_path.iterdir())


def test_padding_is_dropped_but_for_the_empty_prompt() -> None:
    text = WordText()
    states = Encoder(text).encode(PROMPTS)
    assert [len(states[p].tokens) for p in ("a tiger", "a photo of a tiger", "")] == [4, 7, LENGTH]
    whole = text.encode(["a tiger"]).context[0]
    assert torch.equal(states["a tiger"].tokens, whole[:4])


def test_what_encoding_takes_is_told() -> None:
    xxl = 2.4e12  # T5-XXL, 256 tokens
    told = str(Work(278, 0, 278 * xxl))
    assert told == "278 prompts to encode: 667 TFLOP, about 59 min on a CPU, 44 s on a card"
    assert "(8 are known already)" in str(Work(278, 8, 270 * xxl))
    assert str(Work(5, 5, 0)) == "all 5 prompts are known already"


def test_the_operations_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    text = miniflux.load_text()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        text.embed(["a tiger"])
    # Attention's own products are left out; they are few at T5-XXL's width.
    assert text.flop == pytest.approx(counter.get_total_flops(), rel=0.25)
    assert text.flop <= counter.get_total_flops()
