"""A vision language model behind an OpenAI-compatible endpoint: yes or no to every picture."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from re import compile as regex
from typing import Any

from PIL import Image
from torch import Tensor

from ...endpoint import ATTEMPTS, Endpoint, Told
from ...errors import EraseError

KEY = "ERASEANYTHING_VLM_KEY"
ENVIRONMENT = Told(
    "ERASEANYTHING_VLM_URL",
    KEY,
    "ERASEANYTHING_VLM_MODEL",
    "vision model",
    "choose another judge",
    "qwen2.5vl",
)
OPTIONS = ENVIRONMENT._replace(url="--vlm", model="--vlm-model")
AT_ONCE = 4  # questions on their way
QUESTION = (
    'Is "{word}" to be seen in this picture, as a thing, a person, a style, a colour, a number or '
    "an action? Answer with one word: yes or no."
)
_ANSWER = regex(r"[\s\"'*]*(yes|no)[\s\"'*.!]*", re.IGNORECASE)
_QUOTED = 60  # letters of an answer that is neither


class VisionModel:
    """Asks about one picture at a time; anything but yes or no is asked again, then refused."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.label = f"{endpoint.model} (yes or no)"

    def knows(self, word: str) -> bool:
        return True

    def shown(self, pictures: Tensor, words: Sequence[str], names: Sequence[str]) -> list[bool]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._ask, pictures, words))

    def _ask(self, picture: Tensor, word: str) -> bool:
        reply = ""
        for attempt in range(ATTEMPTS):
            reply = self.endpoint.ask([_message(picture, QUESTION.format(word=word))], attempt)
            answer = read_answer(reply)
            if answer is not None:
                return answer
        told = self.endpoint.hide(reply)[:_QUOTED]
        raise EraseError(
            f'The vision model answered "{told}" where yes or no was asked; choose another model.'
        )


def read_answer(reply: str) -> bool | None:
    """Whether a reply says yes; None for anything but a bare yes or no. What a model thinks aloud
    before it does not count."""
    match = _ANSWER.fullmatch(reply.rsplit("</think>", 1)[-1])
    return match[1].lower() == "yes" if match else None


def _message(picture: Tensor, question: str) -> Mapping[str, Any]:
    """A user's message with a picture (H, W, 3) uint8."""
    buffer = BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    content = [
        {"type": "text", "text": question},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return {"role": "user", "content": content}
