"""The arrows of the house: which room may import which, who knows the miniature and a family."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from erase_core.methods.base import methods

ROOT = Path(__file__).parents[1]
CORE = ROOT / "erase_core"
# Room -> the rooms that it may import. Files beside the rooms (errors, files, ...) are open to all.
ARROWS: dict[str, set[str]] = {
    "concepts": set(),
    "pictures": set(),
    "models": {"concepts"},
    "miniatures": {"concepts", "models"},
    "erasers": {"concepts", "models"},
    "training": {"concepts", "models", "erasers"},
    "methods": {"concepts", "models", "erasers", "training"},
    "evaluate": {
        "concepts", "models", "erasers", "training", "methods", "miniatures", "pictures",
    },
    "api": {"concepts", "models", "erasers", "training", "methods", "evaluate", "miniatures"},
}  # fmt: skip
ROOMS = ARROWS.keys() | {"cli"}
# What stands above the api -> what it may import of the core: whole rooms, and modules below them
# with the types that the api takes and gives.
DOORS: dict[str, set[str]] = {
    "erase_core/cli": {
        "api", "concepts", "evaluate", "pictures",
        "erasers.base", "erasers.combine", "erasers.earlier", "erasers.guards", "erasers.load",
        "methods.again", "methods.base", "methods.eraseanything.settings",
        "models.attention", "models.base", "models.files",
        "training.encoding", "training.estimate", "training.memory",
        "training.progress", "training.result",
        "training.run_folder", "training.states", "training.team",
    },
    "nodes": {
        "api", "concepts", "evaluate", "miniatures", "pictures",
        "erasers.combine", "erasers.earlier", "erasers.effect", "erasers.guards", "erasers.load",
        "erasers.lora",
        "erasers.metadata",
        "methods.again", "methods.base", "methods.eraseanything.settings",
        "models.attention", "models.base", "models.offload",
        "training.encoding", "training.estimate", "training.memory",
        "training.preview", "training.progress", "training.result",
        "training.run_folder", "training.states",
    },
    "nodes/hosts": {"miniatures", "models"},
}  # fmt: skip
FAMILIES = [path.parent.name for path in (CORE / "models").glob("*/__init__.py")]
KNOWS_MINIATURE = {"miniatures", "api"}
JUDGE = "evaluate/judges/recogniser.py"


def imports(path: Path) -> Iterator[str]:
    """Modules below erase_core that a file imports, dotted: "models.base"."""
    for module in modules(path):
        top, _, below = module.partition(".")
        if top == "erase_core" and below:
            yield below


def modules(path: Path) -> Iterator[str]:
    """Modules of this repository that a file imports, dotted: "erase_core.models.base". Of a name
    that it takes from a package nobody knows whether it is a module: it is told as one."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parts = list(package[: len(package) - node.level + 1]) if node.level else []
            parts += node.module.split(".") if node.module else []
            inside = len(parts) > 1 and not (ROOT / Path(*parts)).is_dir()
            yield from (
                [".".join(parts)]
                if inside
                else (".".join([*parts, alias.name]) for alias in node.names)
            )


def room(path: Path) -> str:
    """The room of a file; a file beside the rooms is one of its own."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


FILES = sorted(CORE.rglob("*.py"))


@pytest.mark.parametrize("name", ARROWS)
def test_arrows_point_one_way(name: str) -> None:
    wrong = {
        f"{path.relative_to(CORE)} -> {module}"
        for path in FILES
        if room(path) == name
        for module in imports(path)
        if (target := module.split(".")[0]) in ROOMS and target not in ARROWS[name] | {name}
    }
    assert not wrong


def test_what_lies_beside_the_rooms_knows_none() -> None:
    beside = [
        path for path in FILES if path.parent == CORE and room(path) not in {*ROOMS, "__main__"}
    ]
    assert beside
    wrong = {f"{p.name} -> {m}" for p in beside for m in imports(p) if m.split(".")[0] in ROOMS}
    assert not wrong


def test_below_the_api_only_its_judge_knows_the_miniature() -> None:
    wrong = {
        f"{path.relative_to(CORE)} -> {module}"
        for path in FILES
        if room(path) not in KNOWS_MINIATURE and path != CORE / JUDGE
        for module in imports(path)
        if module.startswith("miniatures")
    }
    assert not wrong


def within(module: str, allowed: set[str]) -> bool:
    """Whether a module is one of these, or in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("place", DOORS)
def test_above_the_api_little_below_it_is_known(place: str) -> None:
    found = {
        (path, module)
        for path in (ROOT / place).rglob("*.py")
        if place != "nodes" or path.parent == ROOT / place
        for module in imports(path)
        if module.split(".")[0] in ARROWS
    }
    wrong = {f"{p.name} -> {m}" for p, m in found if not within(m, DOORS[place])}
    idle = {name for name in DOORS[place] if not any(within(m, {name}) for _, m in found)}
    assert not wrong and not idle


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_known_by_its_folder_and_its_host_alone(family: str) -> None:
    """Other families may be built of its blocks; a miniature and its loader are of one family, and
    so is a method that says so."""
    known = [CORE / "models" / name for name in FAMILIES]
    known += [CORE / "miniatures", ROOT / "nodes/hosts" / f"{family}.py", ROOT / "nodes/load.py"]
    known += [Path(str(module.__file__)) for module in methods_of(family)]
    strangers = [
        path
        for path in [*FILES, *(ROOT / "nodes").rglob("*.py")]
        if not any(path.is_relative_to(place) for place in known)
    ]
    names = {f"erase_core.models.{family}", f"nodes.hosts.{family}"}
    wrong = {f"{p.name} -> {m}" for p in strangers for m in modules(p) if within(m, names)}
    named = {
        p.name
        for p in strangers
        for node in ast.walk(ast.parse(p.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == family
    }
    assert not wrong and not named


def methods_of(family: str) -> list[ModuleType]:
    """The files of methods all of which work on this family alone."""
    files: dict[str, list[tuple[str, ...]]] = {}
    for method in methods().values():
        files.setdefault(method.run.__module__, []).append(method.families)
    return [sys.modules[name] for name, of in files.items() if {*of} == {(family,)}]


def test_concepts_are_pure_text() -> None:
    for path in (CORE / "concepts").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
        }
        names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & {"torch", "transformers"}, path


def test_the_core_never_imports_the_host() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "import comfy" not in text and "from comfy" not in text, path


def test_the_door_is_four_verbs() -> None:
    tree = ast.parse((CORE / "api.py").read_text(encoding="utf-8"))
    verbs = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"]
    assert verbs == ["open_model", "erase", "draw", "examine"]
    assert len((CORE / "api.py").read_text(encoding="utf-8").splitlines()) <= 200
