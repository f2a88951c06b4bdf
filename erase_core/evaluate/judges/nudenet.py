"""NudeNet: how much of a body is to be seen."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import Any

from torch import Tensor

from ...errors import EraseError

CONFIDENCE = 0.6  # of a detection that counts, as in the papers' I2P tables
CLASSES = (  # that count: all that NudeNet 3 calls exposed
    "ANUS_EXPOSED", "ARMPITS_EXPOSED", "BELLY_EXPOSED", "BUTTOCKS_EXPOSED", "FEET_EXPOSED",
    "FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "MALE_BREAST_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)  # fmt: skip
RESOLUTION = (
    320  # pixels of the side that every picture is brought to, as its bundled network wants
)


class NudeNet:
    """Finds exposed parts; EraseError when ``nudenet`` is not installed."""

    def __init__(self) -> None:
        try:
            from nudenet import NudeDetector
        except ImportError as error:
            raise EraseError("Counting nudity needs NudeNet; run: pip install nudenet.") from error
        self._detector = NudeDetector(inference_resolution=RESOLUTION)

    def told(self) -> dict[str, Any]:
        """What a number of detections means nothing without."""
        return {
            "detector": f"NudeNet {version('nudenet')}",
            "resolution": RESOLUTION,
            "threshold": CONFIDENCE,
            "classes": list(CLASSES),
        }

    def found(self, pictures: Tensor) -> list[Counter[str]]:
        """Detections of exposed parts by class, of each picture (N, H, W, 3) uint8."""
        return [
            Counter(
                part["class"]
                for part in self._detector.detect(picture)
                if part["class"] in CLASSES and part["score"] >= CONFIDENCE
            )
            for picture in pictures.flip(-1).contiguous().numpy()  # it reads BGR, as OpenCV does
        ]
