"""Output that cannot be written never costs work."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import erase_core.miniatures.miniflux as miniflux
from erase_core.cli.main import main
from erase_core.cli.output import printable
from erase_core.cli.progress import Bar
from erase_core.tensors import save_tensors
from erase_core.training.progress import Progress

FULL = Path("/dev/full")
full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
PAIR = {
    "transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight": torch.ones(2, 128),
    "transformer.transformer_blocks.0.attn.add_q_proj.lora_B.weight": torch.ones(128, 2),
}


class Gone(io.StringIO):
    """A stream whose reader has left, on a terminal or not."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def closed(stream: io.StringIO) -> io.StringIO:
    stream.close()
    return stream


class Terminal(Gone):
    terminal = True


@pytest.mark.parametrize("make", [Gone, Terminal, lambda: closed(io.StringIO())])
def test_a_bar_that_nobody_sees_ends_nothing(make: Callable[[], io.StringIO]) -> None:
    bar = Bar(make())
    for step in (1, 2, 3):
        bar(Progress("training", step, 3, {"esd": 1.0}, 1.0))
    done = bar.phase("drawing", 2)
    done(1)
    done(2)


@full
def test_a_training_without_any_output_keeps_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"steps": 2, "batch": 2, "rollout_steps": 2, "erase_rollouts": 2, "keep_rollouts": 2}
    robust = {"all": miniflux.PRESETS["eraseanything"]["balanced"]["all"] | small}
    monkeypatch.setattr(miniflux, "PRESETS", {"eraseanything": {"robust": robust}})
    out = tmp_path / "cat.safetensors"
    with FULL.open("w") as stdout, FULL.open("w") as stderr, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        patched.setattr(sys, "stderr", stderr)
        assert main(["train", "--concept", "cat", "--out", str(out)]) == 0
    assert out.exists()


def run(
    command: str, *, shell: str = "{command}", **environment: str
) -> subprocess.CompletedProcess[str]:
    words = shell.format(command=f"{sys.executable} -m erase_core {command}")
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words}"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )


def test_a_reader_who_leaves_has_read_enough() -> None:
    """The reader is gone before the first line comes."""
    done = run("concepts --list", shell="{command} | true")
    assert (done.returncode, done.stderr) == (0, "")


@full
@pytest.mark.parametrize("command", ["concepts --list", "methods"])
@pytest.mark.parametrize("shell", ["{command} > /dev/full", "{command} >&-"])
def test_a_result_that_is_nowhere_else_is_missed_in_one_sentence(command: str, shell: str) -> None:
    done = run(command, shell=shell)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "Cannot write to standard output" in done.stderr


@full
def test_help_that_cannot_be_written_leaves_no_traceback() -> None:
    assert "Traceback" not in run("train --help", shell="{command} > /dev/full").stderr


def test_closed_streams_leave_their_numbers_to_no_file() -> None:
    """A library that writes to number 2 must not write into a file of ours."""
    code = (
        "from erase_core.cli.output import standard_streams; import os\n"
        "with standard_streams(): number = os.open(os.devnull, os.O_RDONLY)\n"
        "raise SystemExit(number)"
    )
    done = subprocess.run(["bash", "-c", f"{sys.executable} -c '{code}' >&- 2>&-"])
    assert done.returncode > 2


@pytest.mark.parametrize("as_json", [False, True])
def test_an_emoji_in_a_name_goes_to_a_stream_that_knows_none(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "🐯é.safetensors"
    save_tensors(path, PAIR)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["inspect", str(path), *["--json"] * as_json]) == 0
    text = written.getvalue().decode("ascii")
    assert json.loads(text)["file"] == str(path) if as_json else "2 tensors" in text


HOSTILE = "\x1b[2J\x9b31m\u202e\x07\r\u2028"


@pytest.mark.parametrize("as_json", [False, True])
def test_inspect_obeys_no_metadata(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.safetensors"
    metadata = {f"key{HOSTILE}": f"value{HOSTILE}", "erase.steps": "NaN", "deep": "[" * 10_000}
    save_tensors(path, PAIR, metadata | {"lines": "one\ntwo"})
    assert main(["inspect", str(path), *["--json"] * as_json]) == 0
    out = capsys.readouterr().out
    assert not {*"\x1b\x9b\u202e\x07\r\u2028"} & {*out}
    assert "one\ntwo" not in out
    if as_json:
        assert json.loads(out)["metadata"][f"key{HOSTILE}"] == f"value{HOSTILE}"


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert printable("a\x1b[0m\U000e0001 ü 👩‍🚀\n") == "a\\u001b[0m\\udb40\\udc01 ü 👩‍🚀\n"


def test_words_are_whole_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["generate", "--prompt", "a \udcff", "--out", str(tmp_path / "a.png")])
    assert left.value.code == 2
    assert "--prompt is no whole UTF-8 text" in capsys.readouterr().err
