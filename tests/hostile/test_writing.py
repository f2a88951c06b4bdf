"""Files on their way to the disk: flushed, held by one process, links left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hostile.short import names

from erase_core.cli.main import main
from erase_core.errors import EraseError
from erase_core.files import read_json, write_json


def concepts(out: Path, *more: str) -> int:
    return main(["concepts", "Rembrandt", "-k", "2", "--out", str(out), *more])


def test_a_file_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda h: happened.append("fsync") or fsync(h))
    monkeypatch.setattr(os, "replace", lambda a, b: happened.append("replace") or replace(a, b))
    write_json(tmp_path / "a.json", {})
    assert happened[:2] == ["fsync", "replace"]
    assert happened[2:] == ([] if os.name == "nt" else ["fsync"])


@pytest.mark.parametrize("target", ["nowhere/a.json", "b.json"])
def test_a_link_that_leads_nowhere_is_not_replaced(
    tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "a.json"
    link.symlink_to(tmp_path / target)
    (tmp_path / "b.json").symlink_to(link)  # the second target makes a loop
    for more in ([], ["--overwrite"]):
        assert concepts(link, *more) == 1
        assert "leads nowhere" in capsys.readouterr().err
    with pytest.raises(EraseError, match="leads nowhere"):
        write_json(link, 1)
    assert link.is_symlink() and os.readlink(link) == str(tmp_path / target)
    assert names(tmp_path) == ["a.json", "b.json"]


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    file, link = tmp_path / "far" / "b.json", tmp_path / "a.json"
    file.write_text("{}")
    link.symlink_to(file)
    assert concepts(link) == 1
    assert concepts(link, "--overwrite") == 0
    assert link.is_symlink() and not file.is_symlink()
    assert read_json(file)["concepts"][0]["name"] == "Rembrandt"


def test_what_a_killed_process_left_of_a_file_goes(tmp_path: Path) -> None:
    from erase_core.writing import atomic

    out, other = tmp_path / "a.json", tmp_path / "ab.json"
    left = [atomic(path) for path in (out, other)]
    halves = [one.__enter__() for one in left]
    for half in halves:
        half.write_text("half")
    assert concepts(out) == 0
    assert names(tmp_path) == sorted(["a.json", halves[1].name])  # another file's stays


def test_a_name_is_held_by_one(tmp_path: Path) -> None:
    from erase_core.writing import claim

    out = tmp_path / "a.json"
    with claim(out), pytest.raises(EraseError, match="Another run is writing"), claim(out):
        pass
    with claim(out), claim(tmp_path / "b.json"):
        pass
    assert names(tmp_path) == []


def test_a_benchmark_replaces_no_tables_of_another_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.md").write_text("mine")
    assert main(["bench", "--report", "--out", str(tmp_path)]) == 1
    (tmp_path / "i2p.json").write_text("mine")
    (tmp_path / "i2p.csv").write_text("prompt\na cat\n")
    argv = ["bench", "--suite", "i2p", "--prompts", str(tmp_path / "i2p.csv")]
    assert main([*argv, "--out", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert {path.read_text() for path in tmp_path.glob("[!c]*.[!c]*")} == {"mine"}
