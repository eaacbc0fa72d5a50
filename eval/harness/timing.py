"""Seconds of functions that take turns, and what the machine can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

REPEATS = 5
LONG = 0.02
"""Seconds of a matrix product after which none of eight times the work is measured."""


def take_turns(functions: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Give the median seconds of each function.

    Each runs once to warm up, then ``repeats`` times in turn with all others, so that a slow moment of the machine hits
    all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def machine_rates() -> dict[str, float]:
    """Measure with torch's present threads: multiply-adds a second of matrix products, and bytes a second of a copy.

    The fastest of several sizes and repeats counts, as these are to be floors. A copy of n bytes counts 2 n, read and
    written.
    """
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        best = 0.0
        for side in (512, 1024, 2048):
            a, b = torch.rand(side, side).to(dtype), torch.rand(side, side).to(dtype)
            seconds = _fastest(lambda a=a, b=b: a @ b)  # type: ignore[misc]
            best = max(best, side**3 / seconds)
            if seconds > LONG:  # a type that the processor imitates is no faster in larger products
                break
        rates[f"{str(dtype).removeprefix('torch.')}_multiply_adds"] = best
    source = torch.zeros(2**26, dtype=torch.uint8)
    target = torch.empty_like(source)
    rates["copied_bytes"] = 2 * len(source) / _fastest(lambda: target.copy_(source))
    return rates


def _fastest(function: Callable[[], object], repeats: int = 6) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
