"""Train both tokenizers: a T5-like unigram of subwords, a CLIP-like BPE.

python -m tools.world.train_tokenizers --out FOLDER --wordnet FOLDER
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from .captions import Voice, caption
from .lexicon import Lexicon
from .scene import random_scene, spoken

T5_PIECES, CLIP_PIECES = 4000, 2000
CAPTIONS = 40_000
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789.,'-")
START, END = "<|startoftext|>", "<|endoftext|>"


def corpus(lexicon: Lexicon, count: int, seed: int = 1) -> list[str]:
    """Captions in all wordings, and every phrase of the lexicon."""
    rng = random.Random(seed)
    voices = [Voice(held, "any", extra=lexicon.extra, outside=0.1) for held in (False, True)]
    told = [caption(spoken(random_scene(rng), rng), rng.choice(voices), rng) for _ in range(count)]
    return told + lexicon.corpus()


def train_t5(texts: list[str], folder: Path) -> None:
    """A unigram tokenizer as T5's: ``<pad>`` = 0, ``</s>`` at the end. Regular plurals are no
    pieces, so that "tigers" is ``tiger`` and ``s``."""
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        texts,
        trainers.UnigramTrainer(
            vocab_size=T5_PIECES,
            special_tokens=["<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            initial_alphabet=LETTERS,
            show_progress=False,
        ),
    )
    pieces = [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]
    known = {piece for piece, _ in pieces}
    kept = [
        (piece, score)
        for piece, score in pieces
        if not (len(piece) > 3 and piece.endswith("s") and piece[:-1] in known)
    ]
    tokenizer = Tokenizer(models.Unigram(kept, unk_id=2))
    tokenizer.normalizer, tokenizer.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    save(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ),
        folder,
    )


def train_clip(texts: list[str], folder: Path) -> None:
    """A byte-pair tokenizer as CLIP's: lower case, word ends marked, padded with the end token."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=CLIP_PIECES,
        special_tokens=[START, END],
        end_of_word_suffix="</w>",
        initial_alphabet=LETTERS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, required=True)
    args = parser.parse_args()
    texts = corpus(Lexicon.read(args.wordnet), CAPTIONS)
    train_t5(texts, args.out / "t5xxl_tokenizer")
    train_clip(texts, args.out / "clip_l_tokenizer")


if __name__ == "__main__":
    main()
