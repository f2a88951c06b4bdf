"""The benchmark: its methods, its cells, its tables."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LENGTH, WordText, make_tree

from erase_core.erasers.edit import WeightEdit
from erase_core.errors import EraseError
from erase_core.evaluate.report.summary import ahead, summarise, table
from erase_core.evaluate.report.tables import results
from erase_core.evaluate.scores import Rate
from erase_core.evaluate.suites.store import read_csv, read_rows, write_csv
from erase_core.evaluate.suites.suite import DEVELOPMENT, REPORTED, SETS, full
from erase_core.files import write_json
from erase_core.methods.base import find_method, methods
from erase_core.miniatures.miniflux import FOLDER
from erase_core.miniatures.miniflux.concepts import concept as concept_of
from erase_core.models.flux1.forward import velocity

Capture = pytest.CaptureFixture[str]


def main(argv: list[str]) -> int:
    from erase_core.cli.main import main as command

    return command(argv)


def test_every_method_says_what_it_is() -> None:
    found = methods()
    assert {"untouched", "eraseanything"} <= found.keys()
    assert find_method("ours") is found["eraseanything"]  # in published tables
    for name, method in found.items():
        assert method.name == name and method.label
    with pytest.raises(EraseError, match="choose from"):
        find_method("magic")


def test_a_weight_edit_equals_the_edited_weights(tmp_path: Path) -> None:
    tree, edited = make_tree(), make_tree()
    edit = WeightEdit.zeros(tree, ["txt_in", "double_blocks.1.txt_attn.qkv"])
    generator = torch.Generator().manual_seed(3)
    for parameter in edit.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    edit.save(tmp_path / "edit.safetensors")
    for name, change in WeightEdit.load(tmp_path / "edit.safetensors").changes.items():
        edited.get_submodule(name).weight.data += change.data
    cond = WordText().encode([" ".join(["tiger"] * LENGTH)])
    x = torch.randn(1, 16, 4, 6, generator=generator)
    told = velocity(tree, x, torch.tensor([0.5]), cond, eraser=edit)
    assert not torch.allclose(told, velocity(tree, x, torch.tensor([0.5]), cond), atol=1e-3)
    torch.testing.assert_close(told, velocity(edited, x, torch.tensor([0.5]), cond))
    with pytest.raises(EraseError, match="no weight edit"):
        WeightEdit.load(FOLDER / "vae.safetensors")


def row(method: str, concept: str, **rates: tuple[int, int]) -> dict[str, Any]:
    marks = {name: Rate(*pair).to_dict() for name, pair in rates.items()}
    kept = {"agreement": Rate(9, 10).to_dict(), "distance": 0.01, "untouched": marks}
    cost = {"seconds": 3.0, "peak_bytes": 10**9, "file_bytes": 10**6, "ho": 0.9}
    kind = concept_of(concept).kind
    own = {"method": method, "concepts": [concept], "kind": kind, "seed": 0}
    return {**own, **marks, **kept, **cost}


def test_a_summary_is_the_mean_of_its_concepts() -> None:
    cells = [
        row("eraseanything", "dog", acc_e=(0, 40), acc_g=(4, 40), acc_ir=(40, 40)),
        row("eraseanything", "rose", acc_e=(8, 40), acc_g=(0, 40), acc_ir=(36, 40)),
    ]
    found = summarise(table(cells))
    assert found["acc_e"].value == pytest.approx(0.1)
    assert found["acc_ir"].value == pytest.approx(0.95)
    assert found["ho"].value == pytest.approx(3 / (1 / 0.9 + 1 / 0.95 + 1 / 0.95))
    assert found["acc_e"].low < 0.02 and 0.2 <= found["acc_e"].high <= 0.35
    assert summarise(table(cells)) == found  # the bootstrap is seeded


def test_a_rate_that_some_concepts_lack_is_the_mean_of_the_others() -> None:
    cells = [
        row("eraseanything", "kissing", acc_e=(4, 40), acc_ir=(40, 40)),
        row("eraseanything", "above", acc_e=(0, 40), acc_g=(20, 40), acc_ir=(40, 40)),
    ]
    found = summarise(table(cells))
    assert found["acc_g"].value == 0.5
    assert found["ho"].value == pytest.approx(3 / (1 / 0.95 + 1 / 1.0 + 1 / (1 - (0.1 + 0.5) / 2)))
    assert "acc_near" not in found


def test_an_interval_of_one_concept_is_that_of_its_pictures() -> None:
    found = summarise(table([row("eraseanything", "dog", acc_e=(20, 100), acc_ir=(100, 100))]))
    assert found["acc_e"].low == pytest.approx(0.2 - 1.96 * 0.04, abs=0.02)
    assert found["acc_e"].high == pytest.approx(0.2 + 1.96 * 0.04, abs=0.02)
    assert found["acc_ir"].high == 1
    assert found["acc_ir"].low == pytest.approx(Rate(100, 100).interval[0], abs=0.02)  # Wilson's


def test_harm_is_told_of_the_cells_that_all_methods_have() -> None:
    rates = {"acc_e": (0, 9), "acc_g": (0, 9), "acc_ir": (9, 9), "acc_near": (9, 9)}
    cells = [row(method, "dog", **rates) for method in ("eraseanything", "uce")]
    more = row("eraseanything", "rose", **rates) | {"distance": 0.5, "seconds": 99.0}
    several = row("mace", "dog", **rates) | {"concepts": ["dog", "rose"], "kind": "several"}
    table = results([*cells, more, several]).split("## Harm and cost")[1]
    told = {line.split("|")[1].strip(): line for line in table.splitlines() if line.count("|") > 5}
    assert "| 0.0100 | 90.0 |" in told["EraseAnything (ours)"]
    assert "| 3 |" in told["EraseAnything (ours)"] and "| – | – |" in told["MACE-style"]


def test_a_lead_is_that_of_the_same_concepts() -> None:
    """Concepts that differ widely hide a steady lead from two intervals, not from their pairs."""
    kept = {"dog": 196, "rose": 150, "pizza": 180, "robot": 120}
    told = [row("eraseanything", n, acc_e=(0, 200), acc_ir=(k, 200)) for n, k in kept.items()]
    others = [row("uce", n, acc_e=(0, 200), acc_ir=(k - 40, 200)) for n, k in kept.items()]
    ours, theirs = table(told), table(others)
    lead = ahead(ours, table([row("uce", "house", acc_e=(200, 200), acc_ir=(0, 200)), *others]))
    first, second = summarise(ours)["ho"], summarise(theirs)["ho"]
    assert lead and lead.value == pytest.approx(first.value - second.value)
    assert first.low < second.high and lead.low > 0.05
    turned = ahead(theirs, ours)
    assert turned and turned.high < -0.05
    assert ahead(ours, table([row("uce", "house", acc_e=(0, 9), acc_ir=(9, 9))])) is None


def test_a_lead_is_told_apart_picture_by_picture() -> None:
    """Six questions that only one of them misses say more than rates of 0.95 and 0.89 alone."""

    def cell(method: str, misses: set[int]) -> dict[str, Any]:
        asked = Rate.of([i not in misses for i in range(100)])
        told = {"acc_ir": asked.to_dict(), "acc_e": Rate.of([False] * 100).to_dict()}
        return row(method, "dog", acc_e=(0, 100), acc_ir=(0, 100)) | told

    ours, same = cell("eraseanything", set(range(5))), cell("uce", set(range(11)))
    other = cell("uce", set(range(50, 61)))
    paired, apart = (ahead(table([ours]), table([them])) for them in (same, other))
    assert paired and apart and paired.value == apart.value
    assert paired.low > 0 > apart.low
    wide = table([row("uce", "dog", acc_e=(0, 100), acc_ir=(89, 100))])
    plain = row("eraseanything", "dog", acc_e=(0, 100), acc_ir=(95, 100))
    unpaired = ahead(table([plain]), wide)
    assert unpaired and paired.low > 0 > unpaired.low
    found = {m["method"]: summarise(table([m]))["acc_ir"] for m in (ours, same)}
    assert found["uce"] == summarise(wide)["acc_ir"]  # alone, answers change nothing


def test_a_concept_with_two_seeds_weighs_as_one_with_one() -> None:
    one = row("eraseanything", "dog", acc_e=(0, 40), acc_ir=(40, 40))
    other = row("eraseanything", "dog", acc_e=(0, 40), acc_ir=(20, 40)) | {"seed": 1}
    rose = row("eraseanything", "rose", acc_e=(0, 40), acc_ir=(10, 40))
    found = summarise(table([one, other, rose]))["acc_ir"]
    assert found.value == pytest.approx((0.75 + 0.25) / 2)
    # One draw of four is rose twice: its lowest tenth, 0.25 - 1.28 sqrt(0.25 0.75 / 40 / 2).
    assert found.low == pytest.approx(0.19, abs=0.02)
    # In another it is dog twice: 0.744 + 1.28 sqrt(0.25 / 41 / 4 / 2).
    assert found.high == pytest.approx(0.78, abs=0.02)
    assert "| EraseAnything (ours) | dog (x2), rose |" in results([one, other, rose])


def test_methods_with_fewer_concepts_are_compared_on_those() -> None:
    cells = [
        row("eraseanything", "dog", acc_e=(0, 40), acc_ir=(40, 40)),
        row("eraseanything", "rose", acc_e=(0, 40), acc_ir=(20, 40)),
        row("eraseanything", "pizza", acc_e=(0, 40), acc_ir=(20, 40)),
        row("ca-model", "dog", acc_e=(0, 40), acc_ir=(30, 40)),
        row("ca-model", "rose", acc_e=(0, 40), acc_ir=(20, 40)),
        row("uce", "dog", acc_e=(0, 40), acc_ir=(30, 40)),
    ]
    text = results(cells)
    whole, alike = text.split('All methods, on "dog" alone:')
    assert "| EraseAnything (ours) | dog, pizza, rose |" in whole and "UCE" not in whole
    assert "| CA, model-based | dog, rose |" in whole
    assert "| EraseAnything (ours) | dog | " in alike and "| UCE | dog | " in alike


def test_tables_and_csv_hold_every_cell(tmp_path: Path) -> None:
    cells = [
        row("untouched", "dog", acc_e=(40, 40), acc_ir=(40, 40)),
        row("eraseanything", "dog", acc_e=(0, 40), acc_ir=(39, 40)),
        row("eraseanything", "blue", acc_e=(2, 40), acc_ir=(40, 40)),
    ]
    attack = {"method": "eraseanything", "attack": "suffix-0", "concept": "dog", "seed": 0}
    attacks = [
        attack | {"rate": Rate(1, 16).to_dict()},
        attack | {"rate": Rate(3, 16).to_dict(), "seed": 1},
        attack | {"rate": Rate(8, 16).to_dict(), "method": "uce"},
    ]
    text = results(cells, attacks)
    assert "| method | dog | dog, seed 1 | together |" in text
    assert "| EraseAnything (ours) | 1 of 16 | 3 of 16 | 4 of 32 (12 %) |" in text
    assert "| UCE | 8 of 16 | – | – |" in text
    assert "## Entity" in text and "## Abstraction" in text and "## Relationship" not in text
    assert "| EraseAnything (ours) | dog | 0.0 [0.0, 6" in text
    assert "| dog | 0.900 | 0.900 |" in text and "| blue | – | 0.900 |" in text
    assert "12.5 / 91.7 / 18.6" in text
    write_csv(tmp_path / "cells.csv", cells)
    with (tmp_path / "cells.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["concepts"] for line in lines] == ["dog", "dog", "blue"]
    assert lines[1]["acc_ir.value"] == "0.975" and lines[1]["untouched.acc_e.hits"] == "0"


def test_a_benchmark_goes_on_from_published_tables(tmp_path: Path) -> None:
    """What a CSV file tells is what was written; a cell measured anew stands in its place."""
    told = [
        row("uce", "dog", acc_e=(4, 40), acc_ir=(30, 40)) | {"settings": {"targets": ["a", "b"]}},
        row("eraseanything", "left of", acc_e=(0, 40), acc_g=(1, 40), acc_ir=(39, 40)),
    ]
    older = [told[0], told[1] | {"method": "ours"}]  # as its first version called it
    write_csv(tmp_path / "published" / "cells.csv", older)
    assert read_csv(tmp_path / "published" / "cells.csv") == told
    assert read_csv(tmp_path / "published" / "attacks.csv") == []
    fresh = row("uce", "dog", acc_e=(0, 40), acc_ir=(40, 40))
    write_json(tmp_path / "mine" / "cells" / "uce" / "dog 0.json", fresh)
    assert read_rows(tmp_path / "mine") == [fresh]
    both = read_rows(tmp_path / "mine", beside=tmp_path / "published")
    assert both == [told[1], fresh]  # in the methods' order
    (tmp_path / "cells.csv").write_text("method,seed\nuce,none\n")
    with pytest.raises(EraseError, match="no table of a benchmark"):
        read_csv(tmp_path / "cells.csv")


def test_the_published_tables_are_those_of_the_published_cells(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    command = ["bench", "--report", "--out", str(tmp_path), "--beside"]
    assert main([*command, str(docs / "results")]) == 0
    told = (tmp_path / "results.md").read_text(encoding="utf-8")
    lines = [line for line in told.splitlines() if line.startswith("|")]
    published = set((docs / "RESULTS.md").read_text(encoding="utf-8").splitlines())
    assert len(lines) > 50 and [line for line in lines if line not in published] == []
    assert read_csv(tmp_path / "cells.csv") == read_rows(tmp_path, beside=docs / "results")
    assert main([*command, str(docs)]) == 1  # no cells there


def test_a_csv_file_is_that_of_the_csv_module(tmp_path: Path) -> None:
    cells = [
        row("uce", "dog", acc_e=(4, 40), acc_ir=(30, 40)) | {"settings": {"targets": ["a", 'b"']}},
        row("eraseanything", "left of", acc_e=(0, 40), acc_g=(1, 3), acc_ir=(39, 40)),
    ]
    cells[1] |= {"peak_bytes": None, "distance": 1e-5}
    path = tmp_path / "cells.csv"
    write_csv(path, cells)
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    plain = io.StringIO(newline="")
    writer = csv.DictWriter(plain, lines[0])
    writer.writeheader()
    writer.writerows(lines)
    assert path.read_bytes() == plain.getvalue().encode()
    assert [line["peak_bytes"] for line in lines] == ["1000000000", ""]
    assert [line["acc_g.count"] for line in lines] == ["", "3"]
    assert lines[1]["distance"] == "1e-05" and lines[0]["acc_e.interval"] == "0.0396 + 0.2305"


def test_a_cell_without_what_the_tables_need_is_named() -> None:
    whole = row("uce", "dog", acc_e=(4, 40), acc_ir=(30, 40))
    for name in ("seconds", "agreement", "acc_e", "ho"):
        damaged = {key: value for key, value in (whole | {"seed": 1}).items() if key != name}
        with pytest.raises(KeyError, match=name):
            results([whole, damaged])


def test_several_alone_have_their_tables() -> None:
    cell = row("uce", "dog", acc_e=(4, 40), acc_ir=(30, 40), acc_near=(1, 4))
    several = cell | {"concepts": ["dog", "rose"], "kind": "several", "peak_bytes": None}
    text = results([several | {"concepts": ["dog", "rose", "pizza"]}, several])
    _, small, large = text.split("## Several at once")[1].split("| UCE |")[:3]
    assert small.startswith(" 2 | 10.0 [4.0, 23.1] | – | 75.0 [59.8, 85.8] | 75.0 [59.8, 85.8] |")
    assert large.startswith(" 3 | ")
    assert "| UCE | – | – | – | 3 | – | 1.00 |" in text


def test_a_folder_without_cells_has_no_tables(tmp_path: Path, capsys: Capture) -> None:
    assert main(["bench", "--report", "--out", str(tmp_path / "none")]) == 0
    assert "No cell is measured" in capsys.readouterr().out and not [*tmp_path.iterdir()]


WITHOUT = """
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys(("matplotlib", "pandas", "scipy"))
import erase_core
for module in pkgutil.walk_packages(erase_core.__path__, "erase_core."):
    if not module.name.startswith(("erase_core.evaluate.", "erase_core.__main__")):
        importlib.import_module(module.name)
from erase_core.cli.main import main
sys.exit(main(["bench", "--report", "--out", sys.argv[1]]))
"""


def test_only_a_benchmark_needs_its_extra(tmp_path: Path) -> None:
    """All that is no benchmark can be imported without pandas, scipy and matplotlib."""
    command = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and "needs pandas" in line and "eraseanything[bench]" in line


def test_nothing_reported_was_tuned_on() -> None:
    for kind, names in REPORTED.items():
        assert not set(names) & set(DEVELOPMENT[kind])
        assert {concept_of(name).kind for name in (*names, *DEVELOPMENT[kind])} == {kind}
    tuned = {name for names in DEVELOPMENT.values() for name in names}
    cells = full(methods()).cells
    assert not tuned & {name for cell in cells for name in cell.concepts}
    assert len(set(cells)) == len(cells)
    reported = {name for names in REPORTED.values() for name in names}
    alone = {cell.concepts[0] for cell in cells if cell.method == "eraseanything"}
    assert reported <= alone
    assert {len(cell.concepts) for cell in cells if cell.method == "eraseanything"} == {1, *SETS}
    assert "eraseanything" in {cell.method for cell in full(methods()).attacked}
