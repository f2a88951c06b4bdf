"""Where erasers are saved, what the LoRA list calls them, and what people are told of folders."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from re import compile as regex

import folder_paths

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.errors import EraseError
from ..erase_core.methods.again import is_part
from ..erase_core.tensors import read_metadata

MODELS, OUTPUT = "models/loras", "output/loras"


def lora_folder(place: str) -> Path:
    """The folder behind MODELS or OUTPUT; the host's LoRA list shows both."""
    if place == OUTPUT:
        return Path(folder_paths.get_output_directory()) / "loras"
    return Path(folder_paths.get_folder_paths("loras")[0])


def inside(folder: Path, name: str) -> Path:
    """``name``, perhaps with subfolders, in ``folder``; EraseError when it would lead out of it."""
    plain = name.strip().replace("\\", "/")
    parts = PurePosixPath(plain).parts
    if not parts or plain.startswith("/") or ".." in parts or ":" in plain or "\0" in plain:
        raise EraseError(
            f'"{name}" is no name for a file in {folder}; write one such as erasers/tiger, '
            "without .. and without a drive."
        )
    return folder.joinpath(*parts)


def named_after(concepts: ConceptSet) -> str:
    """The concepts in a file name."""
    text = "_".join(concept.name for concept in concepts.concepts)
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in text)[:60]


def free_name(folder: Path, prefix: str) -> Path:
    """``folder/prefix_00001.safetensors`` with the first number that no whole file has yet. What an
    unfinished run left beside it takes none: the run that finishes is to have it.

    EraseError when ``prefix`` leads out of the folder.
    """
    stem = inside(folder, prefix)
    files = stem.parent.glob("*.safetensors")
    # Windows and macOS do not tell "Tiger" from "tiger".
    taken = {path.stem.casefold() for path in files}
    number = next(n for n in range(1, 100_000) if f"{stem.name}_{n:05}".casefold() not in taken)
    return stem.with_name(f"{stem.name}_{number:05}.safetensors")


def made(folder: Path, prefix: str) -> list[Path]:
    """The whole files that :func:`free_name` has named so, the newest first."""
    stem = inside(folder, prefix)
    name = regex(re.escape(stem.name) + r"_(\d{5})\.safetensors")
    return sorted((p for p in stem.parent.glob("*") if name.fullmatch(p.name)), reverse=True)


def remove_partials(path: Path) -> None:
    """Delete what lies beside a finished file and is a part of it: unfinished runs of its order."""
    name = regex(re.escape(path.stem) + r"\.partial-\d+(-\d+)?\.safetensors")
    about = read_metadata(path)
    for file in path.parent.glob("*"):
        if name.fullmatch(file.name) and is_part(read_metadata(file), about):
            file.unlink(missing_ok=True)


def lora_name(path: Path) -> str:
    """A saved file as the host's LoRA list names it."""
    for folder in (lora_folder(MODELS), lora_folder(OUTPUT)):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return path.name


def shortened(text: str) -> str:
    """``text`` with every file told from the host's own folder, or from home."""
    for folder, name in _folders().items():
        text = text.replace(f"{folder}/", name)
    return text


def _folders() -> dict[str, str]:
    """What stands for the host's folders, the longest path first."""
    output = Path(folder_paths.get_output_directory())
    told = {
        str(output.parent): "",
        str(Path(folder_paths.models_dir).parent): "",
        str(folder_paths.base_path): "",
        str(Path.home()): "~/",
    }
    return dict(sorted(told.items(), key=lambda item: -len(item[0])))
