"""The command ``bingan``; ``python -m kornia_bingan.cli`` is the same."""

from __future__ import annotations

from kornia_bingan.cli.entry import main

__all__ = ["main"]
