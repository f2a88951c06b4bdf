"""``python -m erase_core`` is the command ``eraseanything``."""

from __future__ import annotations

from .cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
