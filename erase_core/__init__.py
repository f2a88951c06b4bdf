"""EraseAnything: make a rectified-flow transformer forget a concept, as a small LoRA."""

__version__ = "0.1.0"
