"""Several training processes act as one: rows of a batch are shared out, features are gathered, gradients averaged.

Started by ``torchrun``, which sets the environment; without it there is one process and nothing here does anything.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start(device_type: str) -> None:
    """Join the other processes, if ``torchrun`` started this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo")


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Give the number of this process, from 0; process 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Give the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_device(name: str) -> torch.device:
    """Give the device of this process: its own GPU where there are several; ``auto`` is CUDA if present, else cpu."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)


def share(rows: Tensor) -> Tensor:
    """Give this process its part of the rows; the number of rows must divide by the number of processes."""
    return rows.chunk(world())[rank()]


def gather(rows: Tensor) -> Tensor:
    """Join the parts of all processes, with gradients, in the order of the processes."""
    if world() == 1:
        return rows
    from torch.distributed.nn.functional import all_gather  # loads much that a single process does not need

    parts: list[Tensor] = all_gather(rows.contiguous())  # type: ignore[no-untyped-call]
    return torch.cat(parts)


def average_gradients(module: nn.Module) -> None:
    """Average the gradients of all processes.

    Each process computes the loss of the whole batch from gathered features, so its gradient arrives at the parts of
    all others: the sum of the gradients is ``world()`` times that of one process.
    """
    if world() == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world()


def wait() -> None:
    """Wait for all processes."""
    if world() > 1:
        dist.barrier()
