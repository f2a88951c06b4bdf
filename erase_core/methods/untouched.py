"""The model as it is: what every other row is measured against."""

from .base import Method

METHODS = (Method("untouched", "Untouched", "", lambda task: None),)
