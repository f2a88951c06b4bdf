"""What the nodes that train have in common: their orders, what of them is there already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import folder_paths

from ..erase_core import api
from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.erasers.earlier import Earlier
from ..erase_core.errors import EraseError
from ..erase_core.methods.again import day_made
from ..erase_core.methods.base import Method
from ..erase_core.miniatures.miniflux.cases import undrawn
from ..erase_core.models.base import Model
from . import eraser, hosts, places
from .settings import changes

DEFAULT = "eraseanything"


def made(
    model: Model, method: Method, order: api.Order, files: list[Path]
) -> tuple[Path, str] | None:
    """The first of the files that was made from this very order, and on which day."""
    assert order.concepts is not None
    settings = method.suited(model, order.concepts, order.preset, order.changes, order.earlier)
    wanted = method, order.concepts, settings, order.seed, order.earlier
    days = ((file, day_made(file, model, *wanted)) for file in files)
    return next((found for found in days if found[1]), None)


def notes(model: Any, opened: Model, concepts: ConceptSet) -> list[str]:
    """What the person should know of the model and of these words beforehand."""
    if opened.family.notice or not hosts.is_miniature(hosts.sizes(model)):
        return [opened.family.notice] if opened.family.notice else []
    words = (w for c in concepts.concepts for w in (c.name, *c.irrelevant_words()))
    first, *others = [f"“{word}”" for word in undrawn(words)] or [""]
    more = f" and {len(others)} more" if others else ""
    told = f"MiniFlux cannot draw {first}{more}: set the Concept Set's source to MiniFlux."
    return [told] if first else []


def earlier(found: eraser.Eraser | None, model: Model, method: str) -> Earlier | None:
    """The eraser that is to grow. EraseError for one that cannot."""
    if found is None:
        return None
    return Earlier.read(found, found.metadata, "The eraser to extend", model, method)


def order(
    model: Model,
    method: Method,
    concepts: ConceptSet,
    given: Mapping[str, int],
    settings: Mapping[str, Any],
    seed: int,
    grown: Earlier | None = None,
) -> api.Order:
    """What the node's own inputs (0: unsaid) and Erase Settings ask for.

    EraseError for what cannot be.
    """
    own = {n: value for n, value in given.items() if value and n in method.settings.about()}
    said = changes(settings, len(concepts.concepts))
    if said and method.name != DEFAULT:
        raise EraseError(
            f"Erase Settings are those of {DEFAULT}; disconnect them for {method.name}."
        )
    preset = settings.get("preset", "")
    method.suited(model, concepts, preset, said | own, grown)
    return api.Order(concepts, method.name, preset, said | own, seed, earlier=grown)


def checkpoints(prefix: str) -> Path:
    """Where a run of this name keeps what it can be resumed from."""
    root = Path(folder_paths.get_output_directory()) / "eraseanything" / "checkpoints"
    return places.inside(root, f"{prefix}.steps")


def quoted(concepts: ConceptSet) -> str:
    return ", ".join(f"“{concept.name}”" for concept in concepts.concepts)
