"""Training an eraser: settings, prompts, states, the two levels, checkpoints."""

from .estimate import Estimate, estimate
from .metadata import lora_metadata
from .preview import Preview
from .progress import Losses, Progress
from .save import rescue, save_result
from .settings import TrainSettings
from .trainer import KeepPictures, Trainer, TrainResult

__all__ = [
    "Estimate",
    "KeepPictures",
    "Losses",
    "Preview",
    "Progress",
    "TrainResult",
    "TrainSettings",
    "Trainer",
    "estimate",
    "lora_metadata",
    "rescue",
    "save_result",
]
