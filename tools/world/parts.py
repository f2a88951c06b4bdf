"""Cut a file into parts of at most 14 MiB, for machines that hand back no larger ones; join them.

python -m tools.world.parts cut FILE FOLDER
python -m tools.world.parts join FOLDER FILE
"""

from __future__ import annotations

import argparse
from pathlib import Path

from erase_core.files import atomic

LARGEST = 14 * 2**20


def cut(file: Path, folder: Path, largest: int = LARGEST) -> list[Path]:
    """Write ``folder/NAME.000``, ``NAME.001``, ... and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with open(file, "rb") as source:
        while part := source.read(largest):
            paths.append(folder / f"{file.name}.{len(paths):03d}")
            paths[-1].write_bytes(part)
    return paths


def join(folder: Path, file: Path) -> None:
    """Put the parts of a file of this name together again."""
    paths = sorted(folder.glob(f"{file.name}.[0-9][0-9][0-9]"))
    if not paths:
        raise SystemExit(f"There are no parts of {file.name} in {folder}; check the folder.")
    with atomic(file) as temporary, open(temporary, "wb") as target:
        for path in paths:
            target.write(path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("cut", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    (cut if args.what == "cut" else join)(args.source, args.target)


if __name__ == "__main__":
    main()
