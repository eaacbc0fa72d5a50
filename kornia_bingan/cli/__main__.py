"""``python -m kornia_bingan.cli`` is ``bingan``."""

from __future__ import annotations

import sys

from kornia_bingan.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
