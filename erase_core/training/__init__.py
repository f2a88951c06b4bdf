"""Training an eraser: settings, prompts, states, the two levels, checkpoints."""

from .metadata import lora_metadata
from .progress import Losses, Progress
from .settings import TrainSettings
from .trainer import KeepPictures, Trainer, TrainResult

__all__ = [
    "KeepPictures",
    "Losses",
    "Progress",
    "TrainResult",
    "TrainSettings",
    "Trainer",
    "lora_metadata",
]
