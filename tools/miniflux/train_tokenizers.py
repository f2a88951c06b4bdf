"""Train MiniFlux's two tokenizers on its captions: a T5-like unigram, a CLIP-like BPE."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CLIP_VOCABULARY = 1200
START, END = "<|startoftext|>", "<|endoftext|>"


def train_t5(captions: Iterable[str], folder: Path) -> None:
    """A unigram tokenizer as T5's: metaspace words, ``</s>`` at the end, ``<pad>`` = 0.

    Its pieces are the captions' words by frequency, without regular plurals, and single letters:
    so "tigers" is ``tiger`` and ``s``, and an unknown word is spelled out.
    """
    counts = Counter(word for caption in captions for word in re.findall(r"[a-z]+|,", caption))
    pieces = {
        ("," if word == "," else f"▁{word}"): math.log(count / counts.total())
        for word, count in sorted(counts.items())
        if not (word.endswith("s") and word[:-1] in counts)
    }
    letters = {letter: -14.0 for letter in "▁abcdefghijklmnopqrstuvwxyz0123456789.'-"}
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = special + list({**letters, **pieces, "s": -8.0}.items())
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    save(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ),
        folder,
    )


def train_clip(captions: Iterable[str], folder: Path) -> None:
    """A byte-pair tokenizer as CLIP's: lower case, word ends marked, padded with the end token."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=CLIP_VOCABULARY,
        special_tokens=[START, END],
        end_of_word_suffix="</w>",
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789.,'-"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, 0), (END, 1)]
    )
    save(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=START, eos_token=END, unk_token=END, pad_token=END
        ),
        folder,
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a tokenizer under a class name that transformers 4 knows, too."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n")
