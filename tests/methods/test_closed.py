"""The closed forms against formulas solved in another way, in float64 on small problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from methods.test_bench_methods import HUG, RED, erase, make_task
from tiny import LENGTH, TIGER, WordText, make_sd3
from torch import Tensor

from erase_core.concepts.sets import ConceptSet
from erase_core.methods import algebra, closed, leace, loop, pisces, rece, speed, uce
from erase_core.methods.base import find_method, methods
from erase_core.methods.closed import Inputs
from erase_core.models.base import Conditioning
from erase_core.training.encoding import Work
from erase_core.training.progress import Progress

FORMS = {name: method for name, method in methods().items() if not method.forward}
CLOSED = [name for name, m in FORMS.items() if issubclass(m.settings, closed.ClosedSettings)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def make_inputs(width: int = 6, kept: int = 9) -> Inputs:
    concept = torch.tensor([0, 0, 1, 1])
    old, new = draw(4, width, seed=1), draw(4, width, seed=2)
    return Inputs(old, new, draw(kept, width, seed=3), draw(2, width, seed=4), concept)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("count", "more"), [(0, 3), (3, 0), (2, 5), (5, 2), (4, 4), (0, 0)])
def test_what_stands_around_a_word_has_its_twin_at_the_same_distance(count: int, more: int) -> None:
    old, new = torch.arange(count)[:, None], 10 + torch.arange(more)[:, None]
    for pair, places in (
        (closed._from_start(old, new), [(n, 10 + n) for n in range(min(count, more))]),
        (closed._from_end(old, new), [(count - n, 10 + more - n) for n in range(1, 99)]),
    ):
        rows = list(zip(*(part.flatten().tolist() for part in pair), strict=True))
        assert sorted(rows) == sorted(places[: min(count, more)])


# --- linear algebra ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 11])
def test_a_solve_from_the_right(count: int) -> None:
    """Few rows and many: either order of the products."""
    left, rows, root = draw(5, count), draw(count, 6, seed=1), draw(9, 6, seed=2)
    moments = root.T @ root
    close(algebra.solve_right(left, rows, moments), left @ rows @ torch.linalg.inv(moments))


@pytest.mark.parametrize("count", [3, 11])
def test_a_map_with_a_ridge_is_the_least_squares_solution(count: int) -> None:
    targets, rows = draw(5, count), draw(count, 6, seed=1)
    stacked = torch.cat([rows, 0.3**0.5 * eye(6)])
    goal = torch.cat([targets.T, torch.zeros(6, 5, dtype=torch.float64)])
    found = algebra.ridge_map(targets, rows, 0.3)
    close(found, torch.linalg.lstsq(stacked, goal).solution.T)


@pytest.mark.parametrize("shape", [(4, 7), (12, 7)])
def test_main_directions_are_those_of_the_svd(shape: tuple[int, int]) -> None:
    rows = draw(*shape)
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    threshold = float(values[2] / values[0]) - 1e-9
    found = algebra.principal(rows, threshold)
    assert len(found) == 3 and len(algebra.principal(rows, most=2)) == 2
    close(found.T @ found, directions[:3].T @ directions[:3])
    flat = torch.cat([rows[:2], rows[:1] + rows[1:2]])  # of rank two
    assert len(algebra.principal(flat)) == 2
    gone = algebra.without(rows, algebra.orthonormal(rows[:2]))
    close(gone @ rows[:2].T, torch.zeros(len(rows), 2, dtype=torch.float64))


# --- the methods ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 6), (8, 6)])
def test_rece_finds_what_still_brings_the_concept_back(shape: tuple[int, int]) -> None:
    """The minimum of |W' c' - W c|^2 + l |c'|^2, by stacking; tall and wide matrices."""
    weight, edited, rows = draw(*shape), draw(*shape, seed=1), draw(3, 6, seed=2)
    level = 0.2 * edited.square().sum() / 6
    stacked = torch.cat([edited, level.sqrt() * eye(6)])
    goal = torch.cat([weight @ rows.T, torch.zeros(6, 3, dtype=torch.float64)])
    found = rece.derive(weight, edited, rows, 0.2)
    close(found, torch.linalg.lstsq(stacked, goal).solution.T)


def test_rece_closes_the_way_back_round_after_round() -> None:
    """After the rounds no input of bounded length is answered as the concept was."""
    weight, inputs = draw(8, 6), make_inputs()
    settings = rece.ReceSettings(rounds=3, bound=0.05, ridge=1e-3, preserve=0.05)
    plain = uce.solve(weight, inputs, 0.05, 1e-3)
    change = rece.solve(weight, inputs, settings)

    def reached(edit: Tensor) -> float:
        back = rece.derive(weight, weight + edit, inputs.old, 0.05)
        return float((back @ (weight + edit).T - inputs.old @ weight.T).norm())

    assert reached(change) > 1.2 * reached(plain)
    back = rece.derive(weight, weight + plain, inputs.old, 0.05)
    once = inputs._replace(
        old=torch.cat([inputs.old, back]), new=torch.cat([inputs.new, inputs.new])
    )
    one_round = rece.solve(weight, inputs, replace(settings, rounds=1))
    close(one_round, uce.solve(weight, once, 0.05, 1e-3))


def test_speed_is_the_best_edit_that_moves_nothing_of_what_stays() -> None:
    """With a basis N of the null space from a full SVD and D = E N^T, E by stacked equations."""
    weight, inputs = draw(5, 12), make_inputs(12)
    settings = speed.SpeedSettings(influence=1, threshold=1e-5, ridge=0.01)
    change = speed.solve(weight, inputs, settings)
    level = 0.01 * inputs.old.square().sum()
    old, goal = inputs.old, (inputs.new - inputs.old) @ weight.T
    plain = goal.T @ torch.linalg.inv(old @ old.T + level * eye(4)) @ old
    shift = (inputs.kept @ plain.T).square().sum(1)
    stay = inputs.kept[shift >= shift.mean()]
    assert 0 < len(stay) < len(inputs.kept)
    held = torch.cat([stay, inputs.empty])
    null = torch.linalg.svd(held, full_matrices=True).Vh[len(held) :]
    stacked = torch.cat([old @ null.T, level.sqrt() * eye(len(null))])
    wanted = torch.cat([goal, torch.zeros(len(null), 5, dtype=torch.float64)])
    close(change, torch.linalg.lstsq(stacked, wanted).solution.T @ null)
    close(change @ held.T, torch.zeros(5, len(held), dtype=torch.float64))
    assert (change @ old.T).norm() > 0.01 * goal.norm()


@pytest.mark.parametrize("shape", [(4, 6), (8, 6)])
def test_speed_widens_along_what_a_matrix_hardly_reads(shape: tuple[int, int]) -> None:
    weight, noise = draw(*shape), draw(3, 6, seed=1)
    level = speed.WEAK * weight.square().sum() / 6
    inverse = torch.linalg.inv(eye(6) + weight.T @ weight / level)
    close(speed.hardly_read(noise, weight), noise @ inverse)
    near = speed.widened(draw(2, 6, seed=2), weight, 3, 0.1, seed=0)
    distance = (near - draw(2, 6, seed=2).repeat(3, 1)).norm(dim=1)
    close(distance, 0.1 * draw(2, 6, seed=2).norm(dim=1).repeat(3))


def test_leace_is_the_papers_projection() -> None:
    """W^+ P W with W the whitening from an eigendecomposition, on rows repeated by their weight."""
    inputs = make_inputs(kept=16)
    found = leace.fit(inputs, share=0.2, ridge=1e-12)
    rows = torch.cat([inputs.old, inputs.kept])  # each concept's two rows have 0.05 apiece
    assert len(inputs.old) * 0.05 == 0.2 and len(inputs.kept) * 0.05 == 0.8
    labels = torch.zeros(20, 2, dtype=torch.float64)
    labels[[0, 1], 0] = labels[[2, 3], 1] = 1
    centred = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / 20)
    whitening = vectors @ torch.diag(values**-0.5) @ vectors.T
    cross = centred.T @ (labels - labels.mean(0)) / 20
    left, _, _ = torch.linalg.svd(whitening @ cross, full_matrices=False)
    projection = torch.linalg.inv(whitening) @ left @ left.T @ whitening
    torch.testing.assert_close(found.left @ found.right, projection, atol=1e-6, rtol=1e-6)
    close(found.mean, rows.mean(0))

    weight, bias = draw(3, 6, seed=9), draw(3, seed=10)
    change = leace.solve(weight, inputs, leace.LeaceSettings(share=0.2, ridge=0.1))
    assert change.bias is not None
    answers = rows @ (weight + change.weight).T + bias + change.bias
    answers = answers - answers.mean(0)
    close(answers.T @ labels, torch.zeros(3, 2, dtype=torch.float64))  # whatever the ridge
    close(answers.mean(0), torch.zeros(3, dtype=torch.float64))


def test_trce_edits_what_reads_the_pooled_vector() -> None:
    edit = erase("trce preserve=0 ridge=1e-9", make_task(replace(TIGER, synonyms=())))
    assert edit.tensors().keys() == {"diffusion_model.vector_in.in_layer.diff"}
    text, layer = WordText(), make_task().model.tree.get_submodule("vector_in.in_layer")
    tiger, dog = (text.encode([f"a photo of a {word}"]).pooled for word in ("tiger", "dog"))
    with torch.no_grad():
        found = edit("vector_in.in_layer", tiger, layer(tiger))
        torch.testing.assert_close(found, layer(dog), atol=1e-3, rtol=1e-3)


def test_pisces_takes_directions_out_and_nothing_else() -> None:
    weight, bias, mean = draw(7, 5), draw(7, seed=1), draw(7, seed=2)
    basis = torch.linalg.qr(draw(7, 7, seed=3)).Q.T
    change = pisces.solve(weight, bias, basis[:2], mean)
    assert change.bias is not None
    x = draw(9, 5, seed=4)
    before = x @ weight.T + bias
    after = x @ (weight + change.weight).T + bias + change.bias
    close(after @ basis[:2].T, (mean @ basis[:2].T).expand(9, 2))
    close(after @ basis[2:].T, before @ basis[2:].T)


def test_pisces_finds_what_tells_a_concept_from_its_anchor() -> None:
    """Along U an MLP writes the same for both in the end."""
    concept = replace(TIGER, synonyms=(), sentences=("a photo of a tiger",))
    task = make_task(concept)
    edit = find_method("pisces directions=1 prompts=1").erase(task).eraser
    assert edit is not None
    module = "double_blocks.0.txt_mlp.2"
    found = []
    for word in ("tiger", "dog"):
        recorder = loop.Recorder([module], edit)
        cond = WordText().encode([f"a photo of a {word}"])
        x = task.model.noise([0])
        with torch.no_grad():
            task.model.velocity(x, torch.tensor(1.0), cond, 3.5, recorder)
        found.append(recorder.outputs[module][0, 4])
    with torch.no_grad():
        torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


# --- what all of them share ----------------------------------------------------------------------


@pytest.mark.parametrize("name", CLOSED)
def test_no_pass_through_the_transformer_is_needed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(TIGER, RED, HUG)
    tree = task.model.tree
    edited = [closed.first(task.model, role) for role in closed.ROLES]
    for module in list(tree.modules()):
        for name_, parameter in list(module.named_parameters(recurse=False)):
            if not any(parameter is p for m in edited for p in tree.get_submodule(m).parameters()):
                setattr(module, name_, torch.nn.Parameter(parameter.to("meta")))
    tree.compute_device = torch.device("cpu")  # type: ignore[assignment]
    assert all(t.isfinite().all() for t in erase(name, task).tensors().values())


@pytest.mark.parametrize("name", CLOSED)
def test_a_lora_of_full_rank_is_the_edit_and_says_what_it_misses(name: str) -> None:
    task = make_task()
    whole = find_method(name).erase(task)
    result = find_method(f"{name} rank=128").erase(task)
    assert whole.eraser is not None and result.eraser is not None and not whole.measured
    assert result.measured and all(missed < 1e-5 for missed in result.measured.values())
    x, y = torch.randn(2, 3, 16), torch.randn(2, 3, 128)
    torch.testing.assert_close(
        result.eraser("txt_in", x, y), whole.eraser("txt_in", x, y), atol=1e-4, rtol=1e-4
    )


def test_the_keep_prompts_of_several_concepts_are_shared() -> None:
    one, other = TIGER, replace(TIGER, name="wolf", synonyms=())
    generator = torch.Generator().manual_seed(0)
    alone = closed.kept_prompts(make_task(one), 2, generator)
    both = closed.kept_prompts(make_task(one, other), 2, generator)
    assert len(both) == len(alone) == 2 * len(one.irrelevant_words())
    assert not any("tiger" in text or "wolf" in text for text in both)
    assert closed.spared(uce.UceSettings(), 100).prompts == 8
    assert closed.spared(uce.UceSettings(), 10) == uce.UceSettings()


def test_a_task_hears_of_its_prompts_before_they_are_encoded() -> None:
    told: list[Work | Progress] = []
    task = make_task(on_encode=told.append, on_step=told.append)
    find_method("uce").erase(task)
    first, *steps = told
    assert isinstance(first, Work) and first.known == 0 and first.flop == first.prompts * 1e6
    phases = [step.phase for step in steps if isinstance(step, Progress)]
    assert phases[0] == "text" and phases[-2:] == ["training", "training"]


def test_what_a_linear_reads() -> None:
    """Word for word: the concept's tokens, the mean of the anchor's, padding dropped."""
    concept = replace(TIGER, synonyms=(), sentences=("a tiger",))
    task = make_task(concept)
    found = closed.read(task, closed.ClosedSettings(prompts=2, kept=1))
    tokens, pooled = found["txt_in"], found["vector_in.in_layer"]
    text = WordText()
    torch.testing.assert_close(tokens.old, text.encode(["tiger"]).context[0, :1].repeat(2, 1))
    torch.testing.assert_close(tokens.new, text.encode(["dog"]).context[0, :1].repeat(2, 1))
    torch.testing.assert_close(pooled.new, text.encode(["a dog"]).pooled.repeat(2, 1))
    assert len(tokens.kept) == 4 * len(TIGER.irrelevant_words())  # "a rose" and two of padding
    assert len(tokens.empty) == LENGTH and tokens.concept.tolist() == [0, 0]
    assert ConceptSet((concept,)) == task.concepts


def test_each_encoder_has_its_own_anchor() -> None:
    """The second one's states are twice the first's: the concept's go to twice the anchor's."""
    concept = replace(TIGER, synonyms=(), sentences=("a tiger",))
    task = replace(make_task(concept), model=make_sd3())
    found = closed.read(task, closed.ClosedSettings(prompts=2, kept=1))["context_embedder"]
    tiger, dog = (WordText().encode([word]).context[0, :1] for word in ("tiger", "dog"))
    torch.testing.assert_close(found.old, torch.cat([tiger, 2 * tiger]).repeat(2, 1))
    torch.testing.assert_close(found.new, torch.cat([dog, 2 * dog]).repeat(2, 1))
    assert found.concept.tolist() == [0] * 4 and len(found.empty) == 2 * LENGTH


def test_an_anchor_of_the_persons_takes_the_sets_place() -> None:
    concept = replace(TIGER, synonyms=(), sentences=("a tiger",))
    settings = closed.AnchoredSettings(prompts=2, kept=1, context=0)
    own, told = (
        closed.read(make_task(concept), replace(settings, anchor=word)) for word in ("", "fish")
    )
    fish = WordText().encode(["fish"]).context[0, :1]
    torch.testing.assert_close(told["txt_in"].new, fish.repeat(2, 1))
    pooled = WordText().encode(["a fish"]).pooled
    torch.testing.assert_close(told["vector_in.in_layer"].new, pooled.repeat(2, 1))
    for module, inputs in own.items():  # what goes and what stays are the same
        torch.testing.assert_close(told[module].old, inputs.old)
        torch.testing.assert_close(told[module].kept, inputs.kept)


class AwareText(WordText):
    """As T5, which reads both ways: a tenth of the last row's state is in every other row."""

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        plain = super().encode(prompts)
        told = torch.stack([super(AwareText, self).encode([p]).context[0].sum(0) for p in prompts])
        return replace(plain, context=plain.context + 0.1 * told[:, None])


def test_what_stands_around_a_concept_goes_to_what_stands_around_its_anchor() -> None:
    """The rows before and behind the word, weighing as much as asked for, at a mean weight of 1."""
    sentence = "a photo of a tiger in snow"
    concept = replace(TIGER, synonyms=(), sentences=(sentence,))
    task = make_task(concept)
    task = replace(task, model=replace(task.model, text=AwareText()))
    settings = closed.AnchoredSettings(prompts=1, kept=1, context=3)
    found = closed.read(task, settings)["txt_in"]
    rows = [
        AwareText().encode([t]).context[0] for t in (sentence, sentence.replace("tiger", "dog"))
    ]
    around = [*range(4), *range(5, 9)]  # and its end and one of padding, as states are kept
    own, other = (9 / 4) ** 0.5, (9 / 4 * 3 / 8) ** 0.5
    for part, text in zip((found.old, found.new), rows, strict=True):
        wanted = torch.cat([own * text[4:5], other * text[around]])
        torch.testing.assert_close(part, wanted)
    assert found.concept.tolist() == [0]
    plain = closed.read(task, replace(settings, context=0))["txt_in"]
    torch.testing.assert_close(plain.old, rows[0][4:5])


def test_no_more_rows_of_context_than_solving_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed, "CONTEXT_ROWS", 5)
    found = closed.read(make_task(), closed.AnchoredSettings(prompts=4, kept=1))["txt_in"]
    assert len(found.old) == len(found.new) == len(found.concept) + 5
    torch.testing.assert_close(closed.thinned(torch.arange(10), 5), torch.arange(0, 10, 2))
