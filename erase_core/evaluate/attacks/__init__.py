"""One file an attack (or family of attacks), each with a tuple ``ATTACKS``."""
