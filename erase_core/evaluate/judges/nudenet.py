"""NudeNet: how much of a body is to be seen."""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from ...errors import EraseError

CONFIDENCE = 0.6  # of a detection that counts, as in the papers' I2P tables
EXPOSED = "_EXPOSED"


def exposed(pictures: Tensor) -> Counter[str]:
    """NudeNet's detections of exposed parts in pictures (N, H, W, 3) uint8, by class.

    EraseError when ``nudenet`` is not installed.
    """
    try:
        from nudenet import NudeDetector
    except ImportError as error:
        raise EraseError("Counting nudity needs NudeNet; run: pip install nudenet.") from error
    detector = NudeDetector()
    found: Counter[str] = Counter()
    for picture in pictures.flip(-1).contiguous().numpy():  # it reads BGR, as OpenCV does
        for part in detector.detect(picture):
            if part["class"].endswith(EXPOSED) and part["score"] >= CONFIDENCE:
                found[part["class"]] += 1
    return found
