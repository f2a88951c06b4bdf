"""Many erasers at once: the same bytes as one by one, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import psutil
import pytest

from erase_core.cli.main import main
from erase_core.cli.many import plan
from erase_core.concepts.sets import ConceptSet
from erase_core.miniatures.miniflux.concepts import concept

SHORT = ["steps=8", "batch=2", "rollout_steps=2", "erase_rollouts=2", "keep_rollouts=2"]
SHORT += ["checkpoint_every=2", "l_adv=0"]


def names(folder: Path, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "names.txt"
    path.write_text("\n".join(lines))
    return path


def begin(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "erase_core", "many", *map(str, words), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def told(running: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert running.stdout is not None
    return [json.loads(line) for line in running.stdout]


def workers(running: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(running.pid).children()
    return [child for child in found if "spawn_main" in " ".join(child.cmdline())]


def until(there: Any) -> None:
    deadline = time.monotonic() + 300
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killed_anywhere_the_same_erasers_come_out(tmp_path: Path) -> None:
    """A worker is killed in the middle of a training, then the command itself; the third is left
    alone. What comes out is what train writes at one thread."""
    out = tmp_path / "many"
    listed = names(tmp_path, "tiger", "# not this", "", "a winged xylophone", "tiger", "dog")
    words = (listed, "--out", out, "--workers", 2, "--exam", 0, "--set", *SHORT)
    running = begin(*words)
    until(lambda: list(out.glob("*.checkpoints/step-*")))
    workers(running)[0].send_signal(signal.SIGKILL)
    until(lambda: list(out.glob("*.safetensors")))
    running.kill()
    before = told(running)
    assert "lost" in [event["event"] for event in before]

    after = told(second := begin(*words))
    assert second.wait() == 1  # of one name
    end = after[-1]
    assert [*end["erasers"]] == ["tiger", "dog"]
    assert "MiniFlux does not know" in end["failed"]["a winged xylophone"]
    assert not list(out.glob("*.checkpoints")) and not list(out.glob("*partial*"))
    told_twice = {e["eraser"] for e in before if e["event"] == "done"} & {
        e["eraser"] for e in after[:-1] if e["event"] == "begun"
    }
    assert not told_twice

    for name in ("tiger", "dog"):
        alone = tmp_path / f"{name}.safetensors"
        argv = ["train", "--concept", name, "--out", str(alone), "--set", *SHORT]
        command = [sys.executable, "-m", "erase_core", *argv]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert alone.read_bytes() == (out / f"{name}.safetensors").read_bytes()


def test_erasers_are_examined_combined_and_not_made_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "many"
    argv = ["many", str(names(tmp_path, "tiger", "dog")), "--out", str(out), "--method", "uce"]
    argv += ["--workers", "1", "--exam", "2", "--combine"]
    assert main([*argv, "--preset", "nonsense"]) == 1  # binds nobody to that preset
    assert "has no preset nonsense" in capsys.readouterr().err
    assert main(argv) == 0
    lines = capsys.readouterr().out
    assert "tiger 100 % -> 0 %" in lines and "2 erasers in" in lines
    report = json.loads((out / "report.json").read_text())
    assert report["erasers"]["dog"]["marks"]["acc_e"]["value"] == 0
    assert report["combined"]["verdict"].endswith("%") and report["failed"] == {}
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert main([*argv[:-1], "--json"]) == 0
    (end,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert [*end["erasers"]] == ["tiger", "dog"]
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}

    assert main([*argv, "--seed", "1"]) == 1
    assert "holds erasers with another model" in capsys.readouterr().err
    other = json.loads((out / "tiger.json").read_text())
    other["concepts"]["concepts"][0]["synonyms"] = []
    (out / "tiger.json").write_text(json.dumps(other))
    assert main(argv) == 1
    assert "was made for other words" in capsys.readouterr().err


def test_a_process_that_died_after_its_eraser_leaves_no_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "many"
    argv = ["many", str(names(tmp_path, "tiger")), "--out", str(out), "--method", "uce"]
    argv += ["--workers", "1", "--exam", "0"]
    assert main(argv) == 0
    made = (out / "tiger.safetensors").read_bytes()
    (out / "tiger.json").unlink()
    for name in ("step-000004", ".replaced-4127a299-step-000006"):
        folder = out / "tiger.checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    assert main(argv) == 0
    assert (out / "tiger.json").exists() and not (out / "tiger.checkpoints").exists()
    assert (out / "tiger.safetensors").read_bytes() == made


@pytest.mark.parametrize("name", ["order.json", "report.json", "tiger.json"])
def test_files_of_the_person_are_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "many"
    argv = ["many", str(names(tmp_path, "tiger")), "--out", str(out), "--method", "uce"]
    out.mkdir()
    (out / name).write_text('{"mine": 1}')
    assert main(argv) == 1
    assert f"{name} is none of this command's" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == '{"mine": 1}'


def asked(path: Path, together: int = 1) -> Namespace:
    return Namespace(list=path, model="miniflux", together=together, kind=None)


def test_a_list_becomes_files_with_names_of_their_own(tmp_path: Path) -> None:
    listed = ConceptSet((concept("left of"), concept("tiger"), concept("dog"), concept("blue")))
    listed.save(tmp_path / "set.json")
    tasks, refused = plan(asked(tmp_path / "set.json"))
    assert [task.name for task in tasks] == ["left-of", "tiger", "dog", "blue"] and not refused
    tasks, _ = plan(asked(tmp_path / "set.json", together=3))
    assert [task.name for task in tasks] == ["left-of-and-2-more", "blue"]
    assert [c.name for c in tasks[0].concepts.concepts] == ["left of", "tiger", "dog"]


def test_what_cannot_be_is_told_before_any_process_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, listed = str(tmp_path / "many"), str(names(tmp_path, "tiger"))
    for argv, says in (
        ([str(names(tmp_path / "none", "# nothing")), "--out", out], "names no concept"),
        ([listed, "--out", listed], "is a file"),
        ([listed, "--out", out, "--kind", "entity"], "leave --kind out"),
        ([listed, "--out", out, "--method", "dve"], "writes no eraser"),
        ([listed, "--out", out, "--set", "depth=3"], "depth"),
        ([str(tmp_path / "none.txt"), "--out", out], "none.txt"),
    ):
        assert main(["many", *argv]) == 1
        assert says in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_dry_run_tells_what_it_would_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["many", str(names(tmp_path, "tiger", "dog", "blue")), "--out", str(tmp_path / "many")]
    assert main([*argv, "--workers", "2", "--set", *SHORT, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["erasers"], found["workers"]) == (3, 2)
    assert found["seconds"] > 0 and found["disk_bytes"] > 0
    assert not (tmp_path / "many").exists()
