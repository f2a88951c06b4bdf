"""LORA_MODEL: as a value, as an input, applied to a MODEL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.sd
import folder_paths
from comfy_api.latest import io
from torch import Tensor

from ..erase_core.erasers.load import parts, refuse_encoders
from ..erase_core.erasers.lora import DOWN, check_pairs
from ..erase_core.errors import EraseError
from ..erase_core.tensors import read_tensors, refuse_unfinite

SOCKET = io.Custom("LORA_MODEL")
NONE = "none"


class Eraser(dict[str, Tensor]):
    """Tensors of a LoRA file by name, as LORA_MODEL has them, and the file's ``metadata``."""

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        super().__init__(tensors)
        self.metadata = dict(metadata)


def inputs(number: str = "") -> list[Any]:
    """A LORA_MODEL socket and, instead of it, a choice of files."""
    return [
        SOCKET.Input(
            f"lora{number}", optional=True, tooltip="The eraser, as Erase Concept hands it on."
        ),
        io.Combo.Input(
            f"lora_file{number}",
            options=[NONE, *folder_paths.get_filename_list("loras")],
            default=NONE,
            optional=True,
            tooltip="Or a saved eraser. Looked at when nothing is connected.",
        ),
    ]


def older() -> list[Any]:
    """An eraser that a training starts from, as a socket or as a file."""
    return [
        SOCKET.Input(
            "extend",
            optional=True,
            tooltip="An eraser that grows: the training starts from it, and what it erases stays "
            "erased, too. It must be a trained one, with the same base, targets, and no higher "
            "rank.",
        ),
        io.Combo.Input(
            "extend_file",
            options=[NONE, *folder_paths.get_filename_list("loras")],
            default=NONE,
            optional=True,
            tooltip="Or a saved eraser that grows. Looked at when nothing is connected.",
        ),
    ]


def choose(lora: Mapping[str, Tensor] | None, file: str) -> Eraser | None:
    """What :func:`inputs` were given; None for neither. EraseError for a damaged one."""
    if lora is None and file == NONE:
        return None
    if lora is not None:
        found, origin = Eraser(lora, getattr(lora, "metadata", {})), "The LoRA"
    else:
        found = Eraser(*read_tensors(folder_paths.get_full_path_or_raise("loras", file)))
        origin = file
    if any(key.endswith(DOWN) for key in found):  # the host takes other names, too
        check_pairs(parts(found)[0], origin)
    refuse_unfinite(found, origin)
    return found


def require(lora: Mapping[str, Tensor] | None, file: str) -> Eraser:
    """As :func:`choose`; EraseError for neither, and for one that acts in a text encoder."""
    found = choose(lora, file)
    if found is None:
        raise EraseError("There is no eraser; connect Erase Concept's lora or choose a file.")
    refuse_encoders(found, "This eraser" if lora is not None else file)
    return found


def apply(model: Any, lora: Mapping[str, Tensor], strength: float) -> Any:
    """A MODEL with the eraser, as the host's own LoRA loaders make it."""
    if strength == 0:
        return model
    return comfy.sd.load_lora_for_models(model, None, dict(lora), strength, 0)[0]


def taken(model: Any, patched: Any) -> int:
    """How many changes of weights a MODEL has that the one before it has not."""
    return _patches(patched) - _patches(model)


def _patches(model: Any) -> int:
    return sum(map(len, model.patches.values()))
