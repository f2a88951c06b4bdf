"""A folder for a bug report: what was done, how long it took, what was warned of, what failed.

It names files but no folders, so that it can be shown to anyone.
"""

from __future__ import annotations

import math
import re
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import EraseError
from .output import note

REPORT, LOG = "report.json", "warnings.log"


class Evidence:
    """Collects ``content`` stage by stage; ``files`` are those whose folders must not be told."""

    def __init__(self, command: str, files: Iterable[Path]) -> None:
        self.content: dict[str, Any] = {"command": command, "seconds": {}}
        folders = {p.absolute().parent for p in files} | {Path.cwd(), Path.home()}
        named = {str(p) for p in folders if p != p.parent} | {str(p.parent) for p in files}
        self._folders = sorted(named - {"."}, key=len, reverse=True)
        self._warnings: list[str] = []

    @contextmanager
    def written_to(self, folder: Path) -> Iterator[None]:
        """Write report and log into ``folder`` at the end, whatever the end is."""
        from ..files import write_json
        from ..writing import atomic

        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = self._keep_warning  # type: ignore[assignment]
            try:
                yield
            finally:
                write_json(folder / REPORT, self._plain(self.content))
                with atomic(folder / LOG) as log:
                    log.write_text("\n".join(self._warnings) + "\n", encoding="utf-8")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage; what fails in it is noted before it goes on its way."""
        self.tell(f"{name} ...")
        began = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self.content["failed"] = self._failure(name, error)
            raise
        finally:
            self.content["seconds"][name] = round(time.perf_counter() - began, 3)

    def tell(self, line: str) -> None:
        """A line for who is waiting."""
        note(line)

    def _failure(self, stage: str, error: BaseException) -> dict[str, Any]:
        failure = {"stage": stage, "error": f"{type(error).__name__}: {error}"}
        if isinstance(error, EraseError | KeyboardInterrupt):
            return failure
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
        return failure | {"where": where}

    def _keep_warning(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
    ) -> None:
        line = f"{category.__name__} ({Path(filename).name}:{lineno}): {message}"
        self._warnings.append(self._plain(line))

    def _plain(self, value: Any) -> Any:
        """``value`` with file names in place of paths, and words for what JSON has no number."""
        if isinstance(value, dict):
            return {self._plain(key): self._plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(inner) for inner in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if not isinstance(value, str):
            return value
        for folder in self._folders:
            value = re.sub(re.escape(folder) + r"[/\\]?", "", value)
        return value
