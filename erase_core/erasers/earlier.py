"""An eraser that a further run starts from, to erase more than it does."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..concepts.names import folded
from ..concepts.sets import ConceptSet
from ..errors import EraseError
from ..files import parse_json
from ..models.base import Model
from .metadata import Base


@dataclass(frozen=True)
class Earlier:
    """What an eraser's file holds and says: its ``concepts`` in their order, its ``tensors``.

    ``origin`` is named in errors, and ``targets`` are those of its settings.
    """

    concepts: ConceptSet
    tensors: Mapping[str, Tensor]
    origin: str
    targets: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        tensors: Mapping[str, Tensor],
        about: Mapping[str, str],
        origin: str,
        model: Model,
        method: str,
    ) -> Earlier:
        """An eraser from what its file holds and says ``about`` itself.

        Raises
        ------
        EraseError
            When it is unfinished, was made by another method than ``method``, or for another base
            than ``model``.
        """
        made = about.get("erase.method", "")
        if made != method:
            how = f"was made by {made}" if made else "does not say how it was made"
            raise EraseError(f"{origin} {how}; {method} extends only erasers of its own.")
        if about.get("erase.stopped") != "done":
            raise EraseError(f"{origin} is an unfinished run's; resume that one first.")
        if about.get("erase.base_sha256") != Base.of(model).sha256:
            base = about.get("erase.base", "")
            raise EraseError(f"{origin} was made for another base ({base}); open that one.")
        try:
            concepts = ConceptSet.from_json(parse_json(about["erase.concepts"]))
            settings = parse_json(about["erase.settings"])
            targets = tuple(map(str, settings.get("targets", ())))
        except (EraseError, KeyError, ValueError, AttributeError, TypeError) as error:
            raise EraseError(f"What {origin} says of itself is damaged; make it anew.") from error
        return cls(concepts, tensors, origin, targets)

    def growing_by(self, new: ConceptSet) -> ConceptSet:
        """Its concepts, then the ``new`` ones; what one of them erases, none keeps.

        EraseError for one that it erases already.
        """
        known = {folded(name) for name in self.concepts.names()}
        for concept in new.concepts:
            if folded(concept.name) in known:
                raise EraseError(
                    f'{self.origin} erases "{concept.name}" already; name only what is new.'
                )
        return self.concepts.merge(new)

    def told(self) -> str:
        """Its name and its targets."""
        return f"{self.origin} ({' '.join(self.targets)})" if self.targets else self.origin

    @cached_property
    def sha256(self) -> str:
        """A hash of its tensors; equal runs of different days have the same."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            plain = tensor.detach().cpu().float().contiguous()
            digest.update(f"{name} {list(plain.shape)} ".encode())
            digest.update(plain.numpy().tobytes())
        return digest.hexdigest()
