"""Word spans against a hand-marked list, token masks against what the tokens themselves spell."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from erase_core.concepts.sources import lists
from erase_core.concepts.spans import Words, word_spans
from erase_core.errors import EraseError
from erase_core.models.tokens import token_mask

CORPUS = [
    "a tiger in the snow",
    "two tigers left of a car",
    "a photo of a catalogue",
    "Taylor Swift hugging a fox on a red background",
] * 20


def found(prompt: str, word: str) -> list[str]:
    return [prompt[start:end] for start, end in word_spans(prompt, word)]


@pytest.mark.parametrize(
    ("prompt", "word", "expected"),
    [
        ("a tiger in the snow", "tiger", ["tiger"]),
        ("Two Tigers, one TIGER", "tiger", ["Tigers", "TIGER"]),
        ("a tiger's face", "tiger", ["tiger's"]),
        ("a tiger’s face", "Tiger", ["tiger’s"]),
        ("the tigers' cage", "tiger", ["tigers"]),
        ("a cat on a catalogue", "cat", ["cat"]),
        ("a catalogue", "cat", []),
        ("concatenate bobcat", "cat", []),
        ("a tiger-striped cat", "tiger", ["tiger"]),
        ("foxes and a fox", "fox", ["foxes", "fox"]),
        ("three women and a man", "woman", ["women"]),
        ("two snowmen", "snowman", ["snowmen"]),
        ("ladies", "lady", ["ladies"]),
        ("a bear hugging a fox, he hugs, hugged", "hug", ["hugging", "hugs", "hugged"]),
        ("a bear hugs a fox", "hugging", ["hugs"]),
        ("he rode, she rides, riding", "ride", ["rode", "rides", "riding"]),
        ("a cat and a dog holding hands", "holding hands", ["holding hands"]),
        ("they hold hands and held  hands", "holding hands", ["hold hands", "held  hands"]),
        ("a painting by Van\nGogh", "van gogh", ["Van\nGogh"]),
        ("Van Gogh's Van Gogh", "Van Gogh", ["Van Gogh's", "Van Gogh"]),
        ("van goghish", "Van Gogh", []),
        ("two hot dogs, a hot-dog", "hot dog", ["hot dogs", "hot-dog"]),
        ("a cat left of a car", "left of", ["left of"]),
        ("cookies", "cookie", ["cookies"]),
        ("a car, caring and a scar", "car", ["car"]),
        ("AC/DC on stage", "ac/dc", ["AC/DC"]),
        ("a herring and her ring", "herring", ["herring"]),
        ("an Édouard Manet painting", "édouard manet", ["Édouard Manet"]),
    ],
)
def test_word_spans(prompt: str, word: str, expected: list[str]) -> None:
    assert found(prompt, word) == expected


def test_empty_word_is_refused() -> None:
    with pytest.raises(EraseError, match="empty"):
        word_spans("a tiger", "  ")


def unigram(split_first: bool) -> PreTrainedTokenizerFast:
    """A T5-like tokenizer; the metaspace's offsets differ between the two ways to split."""
    metaspace = pre_tokenizers.Metaspace()
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
        if split_first
        else metaspace
    )
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def clip_like() -> PreTrainedTokenizerFast:
    """A lower-casing BPE with start and end tokens, as CLIP has."""
    tokenizer = Tokenizer(models.BPE(unk_token="<end>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=60,
        special_tokens=["<start>", "<end>"],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<start>", eos_token="<end>", pad_token="<end>"
    )


TOKENIZERS = {"metaspace": unigram(False), "split": unigram(True), "clip": clip_like()}


@pytest.fixture(params=sorted(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]


def spelled(tokenizer: PreTrainedTokenizerFast, prompt: str, mask: torch.Tensor) -> str:
    """What the marked tokens spell, without spaces, metaspaces and end-of-word marks."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt)["input_ids"])
    text = "".join(token for token, on in zip(tokens, mask.tolist(), strict=False) if on)
    return text.replace("▁", "").replace("</w>", "")


@pytest.mark.parametrize(
    ("prompt", "word", "expected"),
    [
        ("tiger in the snow", "tiger", "tiger"),
        ("two tigers left of a car", "tiger", "tigers"),
        ("a cat in a catalogue", "cat", "cat"),
        ("a tiger and a  tiger", "tiger", "tigertiger"),
        ("a photo of Taylor Swift on a car", "Taylor Swift", "TaylorSwift"),
        ("a car left of a fox", "left of", "leftof"),
        ("a photo of a car.", "car", "car"),
    ],
)
def test_mask_spells_the_word(
    tokenizer: PreTrainedTokenizerFast, prompt: str, word: str, expected: str
) -> None:
    mask = token_mask(tokenizer, prompt, word, 64)
    assert mask.shape == (64,) and mask.dtype == torch.float32
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert spelled(tokenizer, prompt, mask).lower() == expected.lower()


def test_bare_metaspace_is_not_marked() -> None:
    for name in ("metaspace", "split"):
        tokenizer = TOKENIZERS[name]
        prompt = "a zebra"  # not in the vocabulary: the metaspace stands alone
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt)["input_ids"])
        marked = token_mask(tokenizer, prompt, "zebra", 64).tolist()
        assert "▁" in tokens
        assert all(not on for token, on in zip(tokens, marked, strict=False) if token == "▁")


def test_absent_word_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(EraseError, match="not in the prompt"):
        token_mask(tokenizer, "a catalogue", "cat", 64)


def test_truncation_is_an_error_exactly_when_a_token_is_lost(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    prompt = "a photo of two tigers"
    full = len(tokenizer(prompt)["input_ids"])
    mask = token_mask(tokenizer, prompt, "tiger", full)
    assert mask.sum() > 1  # so that the cut below goes through the word
    for length in (full - 1, full - int(mask.sum()), 4):
        with pytest.raises(EraseError, match="past the"):
            token_mask(tokenizer, prompt, "tiger", length)


def test_second_occurrence_cut_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = "tiger in the snow and a tiger"
    whole = len(tokenizer(prompt)["input_ids"])
    with pytest.raises(EraseError, match="past the"):
        token_mask(tokenizer, prompt, "tiger", whole - 1)


def test_many_words_are_found_as_each_of_them_is() -> None:
    """The first of all shipped names in every shipped name, and in sentences with two of them."""
    names = [name for listed in lists.lists().values() for name in listed][::3]
    names += ["T-shirt", "C++", "'90s style", "o'clock", "老虎", "İstanbul", "Dr. Who"]
    texts = [f"{a}s beside the {b}'s" for a, b in zip(names, reversed(names), strict=True)]
    words = Words(names)
    for text in [*names[::2], *texts[::2], "nothing of it", "一只老虎"]:
        assert words.first_in(text) == next((n for n in names if word_spans(text, n)), None), text
