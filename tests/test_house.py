"""The arrows of the house: which room may import which, and who knows the miniature."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

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
KNOWS_MINIATURE = {"miniatures", "api"}
JUDGE = "evaluate/judges/recogniser.py"


def imports(path: Path) -> Iterator[str]:
    """Modules below erase_core that a file imports, dotted: "models.base"."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".") for alias in node.names]
            yield from (below for top, _, below in names if top == "erase_core" and below)
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = list(package[: len(package) - node.level + 1]) if node.level else []
        parts += node.module.split(".") if node.module else []
        if parts[:1] != ["erase_core"]:
            continue
        for name in node.names:
            whole = [*parts[1:], name.name] if len(parts) == 1 else parts[1:]
            yield ".".join(whole)


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
