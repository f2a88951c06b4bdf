"""A tree of the comparison: copied, then driven by its command line in folders of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

from cases import Case
from safetensors import safe_open
from safetensors.torch import save_file

# Runs before torch is used, in both trees: products of bfloat16 matrices by way of float32. A newer
# tree would compute in float32 throughout on a CPU without AVX-512, so the CPU says that it has it.
WIDEN = """
import warnings
import torch
torch.cpu._is_avx512_supported = lambda: True
library = torch.library.Library("aten", "IMPL")
keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
def widen(name):
    kernel = torch.library.get_kernel(f"aten::{name}", "CPU")
    def product(*args, **more):
        if args[-1].dtype is not torch.bfloat16:
            return kernel.call_boxed(keys, *args, **more)
        wide = (x.float() if isinstance(x, torch.Tensor) else x for x in args)
        return kernel.call_boxed(keys, *wide, **more).bfloat16()
    library.impl(name, product, "CPU")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in ("mm", "addmm", "bmm"):
        widen(name)
"""

LATER = re.compile(r"(double|single)_blocks\.[1-9]")  # the miniature's blocks that a cut tree lacks


class Tree:
    """``folder/whole`` and ``folder/cut`` are its copies, ``folder/cases`` holds what they made."""

    def __init__(self, folder: Path, native: bool) -> None:
        self.folder, self.native = folder, native

    def copy(self, repository: Path, source: str) -> None:
        """Copy a revision of ``repository``, or what git knows of a checkout as it lies there."""
        whole, cut, site = (self.folder / name for name in ("whole", "cut", "site"))
        for folder in (whole, cut, site):
            shutil.rmtree(folder, ignore_errors=True)
        if Path(source).is_dir():
            listed = _git(Path(source), "ls-files", "-zco", "--exclude-standard").decode()
            for name in listed.split("\0"):
                if Path(source, name).is_file():
                    (whole / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(Path(source, name), whole / name)
        else:
            with tarfile.open(fileobj=BytesIO(_git(repository, "archive", source))) as packed:
                packed.extractall(whole, filter="data")
        shutil.copytree(whole, cut)
        for path in cut.rglob("transformer.safetensors"):
            with safe_open(path, "pt") as file:
                kept = {n: file.get_tensor(n) for n in file.keys() if not LATER.match(n)}  # noqa: SIM118
                metadata = file.metadata()
            save_file(kept, path, metadata)
        site.mkdir(parents=True)
        if not self.native:
            (site / "sitecustomize.py").write_text(WIDEN)

    def copied(self) -> bool:
        """Whether the copies are whole: the last of them is there."""
        return (self.folder / "site").is_dir()

    def run(self, name: str, case: Case) -> None:
        """Run a case; what failed is told in its ``failed.json``."""
        folder = self.case(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tree = self.folder / ("whole" if case.whole else "cut")
        fixed = {"OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "1750000000", "ERASE_DEBUG": "1"}
        fixed["PYTHONPATH"] = os.pathsep.join(map(str, (self.folder / "site", tree)))
        for number, told in enumerate(case.commands):
            device = "" if told.startswith("inspect") else "--device cpu"
            command = f'"{sys.executable}" -m erase_core {told} {device} --json'
            done = subprocess.run(
                command, shell=True, cwd=folder, env=os.environ | fixed, capture_output=True
            )
            printed = done.stdout.decode().strip().splitlines()[-1:]
            (folder / f"printed-{number}.json").write_text("".join(printed) or "null")
            if done.returncode:
                why = done.stderr.decode().strip().splitlines()[-1:]
                (folder / "failed.json").write_text(json.dumps(why))
                break
        (folder / "done.txt").write_text("\n".join(case.commands))

    def has(self, name: str, case: Case) -> bool:
        """Whether exactly this case has been run, and nothing failed."""
        done, failed = (self.case(name) / file for file in ("done.txt", "failed.json"))
        same = done.is_file() and done.read_text() == "\n".join(case.commands)
        return same and not failed.exists()

    def case(self, name: str) -> Path:
        """The folder of a case."""
        return self.folder / "cases" / name


def _git(source: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ["git", "-C", str(source), *arguments], check=True, stdout=subprocess.PIPE
    ).stdout
