"""One file a method (or family of methods), each with a tuple ``METHODS``."""
