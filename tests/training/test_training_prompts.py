"""What a run is told: prompts, settings, metadata, real text encoders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    CONCEPTS,
    LENGTH,
    SETTINGS,
    TIGER,
    WordText,
    broken_by,
    make_model,
    make_trainer,
    run,
    same,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from erase_core.concepts.find import find_concept
from erase_core.concepts.sets import Bands, Concept, ConceptSet
from erase_core.concepts.spans import word_spans
from erase_core.erasers.metadata import Base
from erase_core.errors import EraseError
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.methods.eraseanything.trainer import Trainer, _wanted
from erase_core.models.flux1.text import TextEncoders
from erase_core.tensors import read_tensors
from erase_core.training.prompts import plan_prompts
from erase_core.training.save import file_metadata


def plan(settings: TrainSettings = SETTINGS, concepts: ConceptSet = CONCEPTS) -> Any:
    return plan_prompts(concepts, _wanted(settings), torch.Generator().manual_seed(0))


def test_erase_prompts_hold_the_name_or_a_synonym_and_its_replacements() -> None:
    prompts = plan(replace(SETTINGS, erase_rollouts=6, null="replace")).erase
    assert [p.sentence.word for p in prompts] == ["tiger", "big cat"] * 3
    for prompt in prompts:
        assert word_spans(prompt.sentence.text, prompt.sentence.word)
        assert {prompt.sentence.word, prompt.synonym.word} == {"tiger", "big cat"}
        assert not word_spans(prompt.null, "tiger") and not word_spans(prompt.null, "big cat")
        assert len(prompt.irrelevant) == 3
        for placed in prompt.irrelevant:
            assert placed.word in TIGER.irrelevant_words()
            assert word_spans(placed.text, placed.word)
            assert not word_spans(placed.text, "tiger")


def test_null_follows_the_kind_and_the_setting() -> None:
    red = ConceptSet(
        (replace(TIGER, name="red", synonyms=(), kind="abstraction", sentences=("a red car",)),)
    )
    one = replace(SETTINGS, erase_rollouts=1, shuffle=0.0)
    assert plan(one).erase[0].null == ""
    assert plan(one, red).erase[0].null == "a car"
    assert plan(replace(one, null="empty"), red).erase[0].null == ""
    assert plan(replace(one, null="replace", anchor="blue"), red).erase[0].null == "a blue car"


def test_one_relative_that_stays_takes_the_concepts_place() -> None:
    settings = replace(SETTINGS, erase_rollouts=8, null="replace")
    (anchor,) = TIGER.irrelevant.mid
    assert all(word_spans(prompt.null, anchor) for prompt in plan(settings).erase)
    distant = replace(TIGER, irrelevant=Bands(none=("rain",)))
    prompts = plan(settings, ConceptSet((distant,))).erase
    assert all(word_spans(prompt.null, "rain") for prompt in prompts)


@pytest.mark.parametrize(
    ("name", "anchor"), [("Taylor Swift", "firefighter"), ("Rembrandt", "watercolor")]
)
def test_nobodys_name_takes_a_names_place(name: str, anchor: str) -> None:
    concept, _ = find_concept(name)
    assert concept.irrelevant.mid[0][0].isupper() and concept.anchor == anchor
    named = replace(concept, irrelevant=Bands(near=("Adele", "Rihanna")))
    assert named.anchor == "Adele" and replace(named, irrelevant=Bands()).anchor == ""


def test_keep_prompts_take_turns_through_the_bands_and_include_the_empty_one() -> None:
    keep = plan(replace(SETTINGS, keep_rollouts=32)).keep
    assert len(keep) == 32 and keep.count("") == 4
    bands = [sum(any(word_spans(t, w) for w in band) for t in keep) for band in (
        TIGER.irrelevant.none, TIGER.irrelevant.far, TIGER.irrelevant.mid, TIGER.irrelevant.near
    )]  # fmt: skip
    assert min(bands) >= 5
    assert not any(word_spans(t, word) for t in keep for word in TIGER.erased())


def test_every_other_keep_prompt_of_a_relationship_is_one_of_its_sides() -> None:
    hug = Concept(
        "hugging",
        kind="relationship",
        irrelevant=Bands(near=("kissing",)),
        sentences=("a fox hugging a whale", "a bee hugging a whale"),
    )
    settings = replace(SETTINGS, keep_rollouts=14, l_rsc=0.0, shuffle=0.0)
    keep = plan(settings, ConceptSet((hug,))).keep
    assert set(keep[::2]) == {"a fox kissing a whale", "a bee kissing a whale"}
    assert set(keep[1::2]) <= {"a fox", "a bee", "a whale", ""} and "a whale" in keep[1::2]


def test_several_concepts_share_the_rollouts_and_never_teach_each_other() -> None:
    car = Concept(
        "car", irrelevant=Bands(none=("rose",)), sentences=("a car and a tiger", "a red car")
    )
    both = ConceptSet((replace(TIGER, irrelevant=Bands(near=("lion",))), car))
    found = plan(replace(SETTINGS, erase_rollouts=5, keep_rollouts=6, shuffle=0.0), both)
    assert [p.concept for p in found.erase] == [0, 0, 0, 1, 1]
    assert found.rows(1).tolist() == [3, 4]
    assert len(found.keep) == 6 and not any("tiger" in t or "car" in t for t in found.keep)
    assert run(concepts=both).stopped == "done"


def test_a_concept_that_a_prompt_lacks_or_without_irrelevant_words_is_refused() -> None:
    with pytest.raises(EraseError, match="no irrelevant words"):
        make_trainer(concepts=ConceptSet((replace(TIGER, irrelevant=Bands()),)))
    bare = ConceptSet((replace(TIGER, irrelevant=Bands()),))
    assert run(replace(SETTINGS, l_lora=0.0, l_rsc=0.0), concepts=bare).stopped == "done"


def test_prompts_are_encoded_once() -> None:
    trainer = make_trainer()
    trainer.run()
    assert isinstance(trainer.model.text, WordText) and trainer.model.text.calls == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "did you mean steps"),
        ({"nonsense_setting": 3}, "no setting"),
        ({"steps": 0}, "whole number from 1 to 1,000,000, not 0"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"lr_low": float("nan")}, "lr_low"),
        ({"lr_low": "fast"}, "number"),
        ({"shuffle": 1.5}, "from 0 to 1"),
        ({"rsc": "mine"}, "text, official"),
        ({"null": "nothing"}, "auto, empty, without, replace"),
        ({"height": 100}, "multiple of 16"),
        ({"targets": []}, "targets"),
        ({"l_esd": 0, "l_attn": 0, "l_lora": 0, "l_rsc": 0}, "All four"),
        ({"l_adv": 1, "l_esd": 0}, "needs l_esd"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseError, match=message):
        TrainSettings.from_dict(values)


def test_wrong_blocks_and_targets_are_refused() -> None:
    with pytest.raises(EraseError, match="0 to 1"):
        make_trainer(replace(SETTINGS, attention_blocks=(2,)))
    with pytest.raises(EraseError, match="choose from text.q"):
        make_trainer(replace(SETTINGS, targets=("nothing",)))


def test_settings_survive_json() -> None:
    settings = replace(SETTINGS, attention_blocks=(0, 1), shift_mu=None, alpha=4.0)
    assert TrainSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert TrainSettings.from_dict({}) == TrainSettings()


# --- the file ------------------------------------------------------------------------------------


def test_metadata_says_what_was_done_and_keeps_the_bytes_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    result = run()
    metadata = file_metadata(result, CONCEPTS, Base("tiny", "ab" * 32, "flux1"))
    assert ConceptSet.from_json(json.loads(metadata["erase.concepts"])) == CONCEPTS
    assert TrainSettings.from_dict(json.loads(metadata["erase.settings"])) == SETTINGS
    assert metadata["erase.date"] == "2023-11-14"
    assert metadata["erase.steps"] == metadata["ss_steps"] == "6"
    assert metadata["ss_base_model_version"] == "flux1"
    assert metadata["ss_network_dim"] == "2"
    losses = json.loads(metadata["erase.losses"])
    assert losses["esd"] == pytest.approx(sum(h["esd"] for h in result.history) / 6)
    for name in "abcd":  # the library alone would write metadata in random order
        result.eraser.save(tmp_path / f"{name}.safetensors", metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    tensors, read = read_tensors(tmp_path / "a.safetensors")
    assert read == metadata
    assert same(tensors, result.eraser.tensors())


# --- real text encoders --------------------------------------------------------------------------


def make_encoders() -> TextEncoders:
    """A T5 and a CLIP of a few hundred random weights, over a tokenizer of whole words."""
    texts = plan(replace(SETTINGS, erase_rollouts=12)).texts()
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "</s>", *words])}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    size = len(vocabulary)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        t5 = T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        clip = CLIPTextConfig(
            vocab_size=size,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=2,
        )
        t5_model, clip_model = T5EncoderModel(t5).eval(), CLIPTextModel(clip).eval()
    return TextEncoders(clip_model, tokenizer, t5_model, tokenizer, LENGTH)


def test_real_text_encoders_serve_a_run() -> None:
    result = Trainer(make_model(text=make_encoders()), CONCEPTS, SETTINGS).run()
    assert result.stopped == "done"
    assert list(result.history[-1]) == ["esd", "attn", "lora", "rsc"]


def test_a_concept_past_the_truncation_length_is_refused() -> None:
    encoders = replace(make_encoders(), t5_length=4)
    concept = replace(TIGER, sentences=("a photo of a house and a tiger",))
    with broken_by(EraseError, "lies past the 4 tokens"):
        Trainer(make_model(text=encoders), ConceptSet((concept,)), SETTINGS).run()
