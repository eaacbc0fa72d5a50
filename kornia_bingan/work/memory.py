"""How the C allocator treats memory that was freed."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory instead of returning it to the system; elsewhere nothing happens.

    A network on the CPU allocates and frees the same large tensors at every step, and the page faults of freshly
    mapped memory were measured at 40 % of a training step and 50 % of inference in bfloat16. The setting holds for the
    whole process, so commands set it and the library does not.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        for option, value in ((-1, 2**31 - 1), (-2, 256 * 2**20), (-3, 2**30)):  # trim, top pad, mmap threshold
            mallopt(option, value)
