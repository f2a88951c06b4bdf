"""The small world's training: labels, hidden tokens, Muon, latents and resuming."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel

from erase_core.miniatures.miniflux import FOLDER
from erase_core.models.flux1.forward import Conditioning, velocity
from erase_core.models.flux1.taesd import load_tiny
from tools.world import keep
from tools.world.encode import latents_of, linear_map
from tools.world.evaluate import shows_entity, shows_relation
from tools.world.model import CONFIG
from tools.world.optimise import learning_rate, orthogonal
from tools.world.parts import cut, join
from tools.world.recogniser import Seen, build, labels
from tools.world.scene import Scene
from tools.world.train_flux import Batches, Plan, Run, Student, alone, losses
from tools.world.train_recogniser import spoil
from tools.world.train_text import (
    ORDER,
    QUESTIONS,
    Texts,
    answers,
    hide,
    look_both_ways,
    sense_loss,
)
from tools.world.world import ENTITIES, INDEX, RELATION_WORDS, SPOOKY


def test_labels_name_all_that_is_shown():
    want = labels(
        [
            Scene((0, 1), relation="kissing", artist="Tavish", colour="blue", ground="dots"),
            Scene((2,), number=3, artist="Norell", colour="red", ground="plain"),
            Scene(spooky=SPOOKY[:2], artist="Kontra", colour="black", ground="plain"),
        ]
    )
    assert want["entities"].sum(1).tolist() == [2, 1, 2]
    assert want["artist"].tolist() == [1, 0, 3]
    assert want["number"].tolist() == [-1, 3, -1]
    assert want["layout"].tolist()[0] > 2 and want["layout"].tolist()[1:] == [-1, -1]


@pytest.mark.parametrize("name", ["exam", "second", "align"])
def test_recognisers_begin_by_seeing_nothing(name):
    torch.manual_seed(0)
    seen = build(name).eval()(torch.rand(2, 3, 128, 128))
    assert seen.entities.shape == (2, len(ENTITIES))
    assert seen.features.shape[2:] == (8, 8)
    assert (seen.entities < 0).all()


def test_mush_is_nothing():
    want = labels([Scene((0,), artist="Norell", colour="red", ground="plain")] * 200)
    pictures = torch.rand(200, 3, 128, 128)
    told = spoil(pictures, want, torch.Generator().manual_seed(0))
    nothing = told["entities"].sum(1) == 0
    assert 8 <= int(nothing.sum()) <= 35
    assert (told["number"][nothing] == -1).all()
    assert want["entities"].sum() == 200  # the targets given are left as they were


def test_sides_are_answered_from_both_things():
    told = answers([Scene((3, 5), relation="below"), Scene((4,), number=2, colour="pink")])
    assert told["below"].tolist() == [3, -100] and told["above"].tolist() == [5, -100]
    assert told["number"].tolist() == [-100, 2]
    assert told["first"].tolist() == [3, -100] and told["second"].tolist() == [5, -100]
    assert set(told) == set(QUESTIONS) > set(ORDER)


def test_a_pair_names_its_entities_and_their_sides():
    for pair in Texts.pairs(random.Random(0), 60):
        first, second = pair.named
        for phrase, index in zip(pair.named, pair.scene.subjects, strict=True):
            assert phrase.endswith(ENTITIES[index].name)
        known, held = RELATION_WORDS[pair.scene.relation]
        told = {f"{first} {link} {second}" for link in (pair.scene.relation, *known, *held)}
        assert any(text in pair.text for text in told)


def test_two_heads_see_one_way_whatever_is_said():
    """Scores of contents, here of a size as after training, do not outweigh the bias."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=50,
        d_model=64,
        d_kv=16,
        d_ff=32,
        num_heads=4,
        num_layers=1,
        attn_implementation="eager",
    )
    t5 = T5EncoderModel(config).eval()
    attention = t5.encoder.block[0].layer[0].SelfAttention
    with torch.no_grad():
        attention.q.weight.normal_(std=0.15)
        attention.k.weight.normal_(std=0.15)
    look_both_ways(t5)
    found = t5(input_ids=torch.randint(50, (4, 12)), output_attentions=True).attentions[0]
    assert found[:, 0].triu(1).max() < 1e-3 and found[:, 1].tril(-1).max() < 1e-3
    assert found[:, 2].triu(1).max() > 0.1 and found[:, 2].tril(-1).max() > 0.1


def test_the_reader_always_sees_some_token():
    ids = torch.zeros(400, 14, dtype=torch.long)
    ids[:, :6] = 7
    hidden = hide(ids, torch.Generator().manual_seed(1))
    assert hidden.any(1).float().mean() > 0.4
    assert not hidden.all(1).any()


def test_phrases_of_one_sense_are_pulled_together():
    apart = torch.nn.functional.normalize(torch.eye(4, 128), dim=-1)
    entities = torch.tensor([-1, -1, 2, 2])
    assert sense_loss(apart, apart, entities) < sense_loss(apart, apart.roll(1, 0), entities)


def test_muon_makes_updates_orthogonal():
    torch.manual_seed(0)
    for shape in ((32, 96), (96, 32), (64, 64)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert 0.6 < values.median() < 1.3 and values.max() < 1.3


def test_rate_rises_holds_and_falls():
    rates = [learning_rate(step, 1000, 1.0) for step in (0, 99, 500, 999)]
    assert rates[0] == pytest.approx(0.01) and rates[1:3] == [1, 1] and rates[3] < 0.05


def test_linear_map_is_the_encoder():
    torch.manual_seed(0)
    vae = load_tiny(FOLDER / "vae.safetensors", torch.float32)
    pictures = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        assert torch.allclose(
            latents_of(pictures, *linear_map(vae)), vae.encode(pictures), atol=2e-3
        )


def _batch() -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    cond = Conditioning(torch.randn(2, 5, CONFIG.context_in_dim), torch.randn(2, CONFIG.vec_in_dim))
    return torch.randn(2, 16, 16, 16), torch.randn(2, 64, 128), cond


def test_training_forward_is_the_product_s():
    torch.manual_seed(0)
    student = Student()
    for parameter in student.flux.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.05)
    x, _, cond = _batch()
    sigma = torch.tensor([0.3, 0.8])
    with torch.no_grad():
        told = velocity(student.flux, x, sigma, cond, 1.0)
        assert torch.allclose(student(x, sigma, cond)[0], told, atol=1e-5)
    assert told.abs().mean() > 0.01


class _OneBatch:
    def draw(self, step: int) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
        torch.manual_seed(step)
        return _batch()


def test_training_goes_on_from_its_state_as_if_it_had_not_stopped(tmp_path):
    plan = Plan(steps=10)
    straight = Run(tmp_path, plan, fresh=False)
    for _ in range(4):
        told = straight.descend(_OneBatch())
    first = Run(tmp_path, plan, fresh=False)
    for _ in range(2):
        first.descend(_OneBatch())
    first.save()
    second = Run(tmp_path, plan, fresh=False)
    assert second.step == 2
    for _ in range(2):
        again = second.descend(_OneBatch())
    assert again == told


def test_training_goes_on_from_the_average_alone(tmp_path):
    run = Run(tmp_path, Plan(steps=10), fresh=False)
    run.descend(_OneBatch())
    run.save()
    (tmp_path / "flux_state.safetensors").unlink()
    fresh = Run(tmp_path, Plan(steps=10), fresh=True)
    assert fresh.step == 1
    kept = run.average.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in fresh.student.state_dict().items())


def test_one_entity_stands_alone_in_half_of_early_batches():
    scenes = [Scene((i % 8, 9), relation="above") for i in range(40)]
    scenes += [Scene((i,)) for i in range(10)] + [Scene((i,), number=3) for i in range(10)]
    batches = Batches.__new__(Batches)  # without its files
    batches.scenes, batches.alone = scenes, alone(scenes)
    batches.plan = Plan(steps=100, batch=8)
    assert batches.alone == list(range(40, 50))

    def fewest(step: int) -> int:
        drawn = (batches.rows(step, random.Random(seed)) for seed in range(20))
        return min(len(set(rows) & set(batches.alone)) for rows in drawn)

    assert fewest(0) >= 2 and fewest(49) >= 2  # four are drawn, and one may be drawn twice
    assert fewest(50) < 2


def test_losses_fall_with_a_better_guess():
    torch.manual_seed(0)
    flow, aligned = losses(Student(), *_batch())
    assert 1 < flow < 3 and 0.5 < aligned < 1.5


def test_a_side_holds_only_with_both_things_there():
    cat, car = INDEX["cat"], INDEX["car"]
    maps = torch.full((1, len(ENTITIES), 8, 8), -8.0)
    maps[0, cat, 4, 1] = maps[0, car, 4, 6] = 5
    heads = {"layout": torch.eye(7)[1:2]}
    seen = Seen(maps.flatten(2).logsumexp(-1), maps, heads, maps)
    assert shows_relation(Scene((cat, car), relation="left of"))(seen, 0)
    assert not shows_relation(Scene((cat, car), relation="right of"))(seen, 0)
    assert shows_entity(cat)(seen, 0) and not shows_entity(0)(seen, 0)


def test_parts_make_the_file_again(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(bytes(range(256)) * 9)
    parts = cut(file, tmp_path / "parts", largest=1000)
    assert len(parts) == 3 and all(part.stat().st_size <= 1000 for part in parts)
    (tmp_path / "again").mkdir()
    join(tmp_path / "parts", tmp_path / "again" / "weights")
    assert (tmp_path / "again" / "weights").read_bytes() == file.read_bytes()


def test_what_is_kept_comes_back(tmp_path):
    there, kept, again = (tmp_path / name for name in ("there", "kept", "again"))
    for name in keep.TOKENIZERS:
        (there / name).mkdir(parents=True)
        (there / name / "tokenizer.json").write_text("{}")
    weight = torch.randn(8, 4)
    text = {"t5.shared.weight": weight, keep.SHARED: weight.clone()}
    flux = {"flux.img_in.weight": weight, "step": torch.tensor(1990)}
    for name, tensors in (("text", text), ("flux", flux)):
        save_file(tensors, there / f"{name}.safetensors")
    keep.keep(there, kept)
    keep.back(again, kept)
    found = load_file(again / "text.safetensors")
    assert found.keys() == text.keys() and torch.equal(found[keep.SHARED], weight.half().float())
    found = load_file(again / "flux.safetensors")
    assert found["step"] == 1990
    assert torch.equal(found["flux.img_in.weight"], weight.bfloat16().float())
    assert (again / keep.TOKENIZERS[0] / "tokenizer.json").exists()
