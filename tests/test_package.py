"""What is shipped: the wheel's content, its metadata, and that the folder loads without a host."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import erase_core

ROOT = Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
BUILD = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel, built from a copy of the sources, without the network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("erase_core", "nodes", "web", "tests"):
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "__init__.py"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-c", BUILD, str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return ZipFile(next(out.glob("eraseanything-*.whl")))


def test_the_wheel_holds_erase_core_with_its_data_and_nothing_else(wheel: ZipFile) -> None:
    names = {name for name in wheel.namelist() if not name.endswith("/")}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"erase_core"}
    shipped = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "erase_core").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == shipped
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_says_what_it_needs_and_pins_nothing_of_the_host(wheel: ZipFile) -> None:
    metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    text = wheel.read(metadata).decode()
    assert f"\nVersion: {erase_core.__version__}\n" in text
    assert "\nRequires-Python: >=3.10\n" in text
    needed = [line for line in re.findall(r"^Requires-Dist: (.*)$", text, re.M) if ";" not in line]
    assert {"torch", "numpy"} <= set(needed)
    assert not [line for line in needed if "==" in line or "<" in line]
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "eraseanything = erase_core.cli.main:main" in wheel.read(entry).decode()


def test_the_version_is_one() -> None:
    assert f'\nversion = "{erase_core.__version__}"\n' in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", erase_core.__version__)
    assert "[tool.comfy]" in PROJECT


def test_no_source_reaches_for_the_host_or_a_machine() -> None:
    for path in (ROOT / "erase_core").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) comfy\b", text, re.M), path
        assert not re.search(r"""["'](/work|/root|/tmp|/home)/""", text), path
        assert not re.search(r"\b(eval|exec)\(", re.sub(r"\.eval\(", "", text)), path


def test_every_module_says_what_it_is() -> None:
    for path in (ROOT / "erase_core").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not text or text.startswith('"""'), path


def test_no_bundled_file_is_too_big() -> None:
    weights = list((ROOT / "erase_core").rglob("*.safetensors"))
    sizes = [path.stat().st_size for path in weights]
    assert 0 < max(sizes) <= 15 * 2**20
    assert sum(sizes) < 25 * 10**6


def test_the_folder_loads_where_there_is_no_host() -> None:
    code = (
        "import importlib.util as u; s = u.spec_from_file_location('pack', '__init__.py', "
        "submodule_search_locations=['.']); m = u.module_from_spec(s); s.loader.exec_module(m); "
        "assert not hasattr(m, 'comfy_entrypoint') "
        "and not hasattr(m, 'NODE_CLASS_MAPPINGS')"  # ComfyUI would look at nothing else
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_scanner_takes_the_package_for_one_that_makes_code() -> None:
    """Words that nodesafe counts as execution of code, wherever they stand."""
    taken = re.compile(r"\b(compile|eval|exec|importlib\.import_module)\(")
    for room in ("erase_core", "nodes"):
        for path in (ROOT / room).rglob("*.py"):
            assert not taken.search(path.read_text("utf-8")), path
