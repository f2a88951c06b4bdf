"""The model as it is: what every other row is measured against."""

from __future__ import annotations

from .base import Method

METHODS = (Method("untouched", "Untouched", "", lambda task, settings: None, made="as it is"),)
