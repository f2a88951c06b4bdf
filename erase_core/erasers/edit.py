"""Dense changes of whole weight matrices: what closed forms and full fine-tuning leave behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import EraseError
from ..tensors import read_tensors, refuse_unfinite, save_tensors

# ComfyUI's names for the change of a weight and of a bias in a LoRA file, and for text encoders
PREFIX, SUFFIX, BIAS, ENCODERS = "diffusion_model.", ".diff", ".diff_b", "text_encoders."


class WeightEdit:
    """Float32 changes to the weights and biases of Linear modules; a
    :class:`~erase_core.models.base.Adapter`.

    ``changes`` maps a module name to what is added to its weight (out_features, in_features),
    ``biases`` to what is added to its bias (out_features,). A text encoder's module has the name
    that the file has: "text_encoders.clip_l....".
    """

    def __init__(
        self, changes: Mapping[str, Tensor], biases: Mapping[str, Tensor] | None = None
    ) -> None:
        self.changes = {name: _parameter(change) for name, change in changes.items()}
        self.biases = {name: _parameter(change) for name, change in (biases or {}).items()}

    @classmethod
    def zeros(cls, tree: nn.Module, modules: Iterable[str]) -> WeightEdit:
        """Changes of nothing yet to the named Linears of a tree, on its device."""
        weights = {name: tree.get_parameter(f"{name}.weight") for name in modules}
        return cls({n: torch.zeros_like(w, dtype=torch.float32) for n, w in weights.items()})

    @classmethod
    def load(cls, path: Path | str) -> WeightEdit:
        """Read a file of :meth:`save`; EraseError when it holds anything else."""
        return cls.from_tensors(read_tensors(path)[0], str(path))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], origin: str) -> WeightEdit:
        """As :meth:`load`, from tensors under a file's names; ``origin`` is named in errors."""
        known = (PREFIX, ENCODERS), (SUFFIX, BIAS)
        if not all(key.startswith(known[0]) and key.endswith(known[1]) for key in tensors):
            raise EraseError(f"{origin} is no weight edit; choose a file with {SUFFIX} tensors.")
        refuse_unfinite(tensors, origin)
        found: dict[str, dict[str, Tensor]] = {SUFFIX: {}, BIAS: {}}
        for key, tensor in tensors.items():
            end = BIAS if key.endswith(BIAS) else SUFFIX
            found[end][key.removeprefix(PREFIX).removesuffix(end)] = tensor
        return cls(found[SUFFIX], found[BIAS])

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """``y`` plus the change at module ``name`` for its input ``x``, in ``y``'s dtype."""
        change, bias = self.changes.get(name), self.biases.get(name)
        if change is not None:
            return (y + F.linear(x.float(), change, bias)).to(y.dtype)
        return y if bias is None else (y + bias).to(y.dtype)

    def to(self, device: torch.device | str) -> WeightEdit:
        """Move the changes (in place) and return self; make optimisers afterwards."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(device)
        return self

    def scaled(self, strength: float) -> WeightEdit:
        """An edit with ``strength`` times the changes."""
        parts = (self.changes, self.biases)
        return WeightEdit(*({n: strength * change for n, change in part.items()} for part in parts))

    def parameters(self) -> list[nn.Parameter]:
        """The changes, in a fixed order."""
        return [*self.changes.values(), *self.biases.values()]

    def tensors(self) -> dict[str, Tensor]:
        """What the file holds: ``diffusion_model.<module>.diff`` and ``.diff_b``."""
        weights = {_key(name, SUFFIX): c.detach() for name, c in self.changes.items()}
        return weights | {_key(name, BIAS): c.detach() for name, c in self.biases.items()}

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write the file that ComfyUI's LoRA loader takes, whole or not at all."""
        save_tensors(path, self.tensors(), metadata)


def _key(name: str, end: str) -> str:
    return name + end if name.startswith(ENCODERS) else PREFIX + name + end


def _parameter(change: Tensor) -> nn.Parameter:
    return nn.Parameter(change.detach().float().clone())
