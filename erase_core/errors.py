"""The one exception that is meant for the person at the keyboard."""

from __future__ import annotations


class EraseError(Exception):
    """Something the person can put right: one sentence saying what is wrong and what to do."""
