"""Descriptors become codes: threshold at 0, packing into bytes, and the Hamming distance between codes.

The bit order is numpy's default (the first value is the highest bit of the first byte), for numpy and torch alike.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_bingan.errors import UsageError

_CHUNK = 2**20
"""Bytes of words compared at a time, so that a chunk stays in the processor's cache."""


@overload
def pack(signs: NDArray[Any]) -> NDArray[np.uint8]: ...
@overload
def pack(signs: Tensor) -> Tensor: ...
def pack(signs: NDArray[Any] | Tensor) -> NDArray[np.uint8] | Tensor:
    """Turn signs or descriptors into packed codes; a bit is set where the value is True or >= 0.

    Args:
        signs: bool, +1 / -1 of a signed integer type, or real values, shape (N, B), B a multiple of 8.

    Returns:
        uint8, shape (N, B / 8); numpy for numpy, torch on the same device for torch. N = 0 gives (0, B / 8).

    Raises:
        UsageError: another shape or dtype (unsigned 0 / 1 would all be >= 0), an integer other than +1 / -1, or NaN.
    """
    if not isinstance(signs, np.ndarray | Tensor):
        raise UsageError(f"pack needs a numpy array or a torch tensor, got {type(signs).__name__}")
    got = f"got {dtype_and_shape(signs)}"
    if signs.ndim != 2 or signs.shape[1] == 0 or signs.shape[1] % 8:
        raise UsageError(f"pack needs shape (N, B) with B a multiple of 8, {got}")
    kind = _kind(signs)
    if kind not in ("bool", "signed", "float"):
        raise UsageError(f"pack needs bool, +1 / -1 or real values, {got}; compare 0 / 1 values with 0 first")
    # What is recorded as a graph must not depend on values.
    if kind == "signed" and not is_recording() and not bool(((signs == 1) | (signs == -1)).all()):
        raise UsageError(f"pack needs integers of +1 and -1 only, {got} with other values")
    # A NaN is no sign; it is the only value that is neither >= 0 nor < 0.
    if kind == "float" and not is_recording() and not bool(((signs >= 0) | (signs < 0)).all()):
        raise UsageError(f"pack needs numbers, {got} with NaN")
    ones = signs if kind == "bool" else signs >= 0
    if isinstance(ones, np.ndarray):
        return np.packbits(ones, axis=1)
    if ones.device.type == "cpu" and not is_recording():
        return torch.from_numpy(np.packbits(ones.numpy(), axis=1))  # eight times faster than sums
    return pack_by_sums(ones)


def pack_by_sums(ones: Tensor) -> Tensor:
    """Pack bool (N, B) as uint8 (N, B / 8) by operations that graphs can record and every device computes."""
    octets = ones.reshape(-1, ones.shape[1] // 8, 8)
    return torch.sum(octets * _masks(ones.device), 2, dtype=torch.uint8)


@overload
def unpack(codes: NDArray[np.uint8]) -> NDArray[np.float32]: ...
@overload
def unpack(codes: Tensor) -> Tensor: ...
def unpack(codes: NDArray[np.uint8] | Tensor) -> NDArray[np.float32] | Tensor:
    """Turn packed codes into +1 / -1 values, the inverse of :func:`pack`.

    Args:
        codes: uint8, shape (N, B / 8).

    Returns:
        float32, shape (N, B); numpy for numpy, torch on the same device for torch. N = 0 gives (0, B).

    Raises:
        UsageError: another shape or dtype.
    """
    check_packed(codes, "unpack")
    if isinstance(codes, np.ndarray):
        return np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1
    ones = (codes[:, :, None] & _masks(codes.device)) != 0
    return ones.flatten(1).to(torch.float32) * 2 - 1


@overload
def hamming_distances(codes0: NDArray[np.uint8], codes1: NDArray[np.uint8]) -> NDArray[np.int32]: ...
@overload
def hamming_distances(codes0: Tensor, codes1: Tensor) -> Tensor: ...
def hamming_distances(
    codes0: NDArray[np.uint8] | Tensor, codes1: NDArray[np.uint8] | Tensor
) -> NDArray[np.int32] | Tensor:
    """Count the different bits of every pair of codes.

    Beside the result, at most some tens of megabytes are used (with torch also the +1 / -1 values of ``codes1``).

    Args:
        codes0: packed codes of image 0, uint8, shape (N0, B / 8).
        codes1: packed codes of image 1, uint8, shape (N1, B / 8); numpy as ``codes0``, or torch on its device.

    Returns:
        int32, shape (N0, N1), exact; numpy for numpy, torch for torch. N = 0 on a side gives 0 on that side.

    Raises:
        UsageError: another shape or dtype, two widths that differ, or numpy with torch.
    """
    check_packed(codes0, "hamming_distances")
    check_packed(codes1, "hamming_distances")
    if codes0.shape[1] != codes1.shape[1]:
        raise UsageError(
            f"two sets of codes need one width, got {dtype_and_shape(codes0)} and {dtype_and_shape(codes1)}"
        )
    if isinstance(codes0, np.ndarray) and isinstance(codes1, np.ndarray):
        return _distances_numpy(codes0, codes1)
    if isinstance(codes0, Tensor) and isinstance(codes1, Tensor) and codes0.device == codes1.device:
        return _distances_torch(codes0, codes1)
    got = f"{dtype_and_shape(codes0)} and {dtype_and_shape(codes1)}"
    raise UsageError(f"two sets of codes must both be numpy, or torch on one device, got {got}")


def _distances_numpy(codes0: NDArray[np.uint8], codes1: NDArray[np.uint8]) -> NDArray[np.int32]:
    distances = np.zeros((len(codes0), len(codes1)), np.int32)
    words0, words1 = _words(codes0), np.ascontiguousarray(_words(codes1).T)
    rows = max(1, _CHUNK // max(1, words1.itemsize * len(codes1)))
    for start in range(0, len(codes0), rows):
        part = distances[start : start + rows]
        for column, word in zip(words0[start : start + rows].T, words1, strict=True):
            part += np.bitwise_count(column[:, None] ^ word)
    return distances


def _distances_torch(codes0: Tensor, codes1: Tensor) -> Tensor:
    # Sums of +1 / -1 products are integers below 2^24, so float32 holds them exactly, in TF32 products too.
    num_bits = 8 * codes0.shape[1]
    distances = torch.empty(len(codes0), len(codes1), dtype=torch.int32, device=codes0.device)
    signs1 = unpack(codes1).T
    rows = max(1, 4 * _CHUNK // max(1, len(codes1), num_bits))
    for start in range(0, len(codes0), rows):
        products = unpack(codes0[start : start + rows]) @ signs1
        distances[start : start + rows] = (num_bits - products) / 2
    return distances


def _words(codes: NDArray[np.uint8]) -> NDArray[np.unsignedinteger]:
    """Read the bytes eight at a time where the width allows it: four times fewer operations for 256 bits."""
    codes = np.ascontiguousarray(codes)
    return codes.view(np.uint64) if codes.shape[1] % 8 == 0 else codes


def is_recording() -> bool:
    """Say whether torch records operations (trace, export, compile); their values must not decide anything then."""
    return bool(torch.jit.is_tracing()) or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]


def _masks(device: torch.device) -> Tensor:
    return torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=device)


def _kind(values: NDArray[Any] | Tensor) -> str:
    if isinstance(values, np.ndarray):
        return {"b": "bool", "i": "signed", "u": "unsigned", "f": "float"}.get(values.dtype.kind, "other")
    if values.dtype == torch.bool:
        return "bool"
    if values.is_floating_point():
        return "float"
    return "signed" if values.dtype.is_signed and not values.is_complex() else "unsigned"


def dtype_name(values: NDArray[Any] | Tensor) -> str:
    """Give the dtype's name, the same for numpy and torch: ``uint8``, ``float32``."""
    return str(values.dtype).removeprefix("torch.")


def dtype_and_shape(values: object) -> str:
    """Say what an array is, for messages: library, dtype, shape and device, or the type of what is no array."""
    if isinstance(values, np.ndarray):
        return f"numpy {dtype_name(values)} {values.shape}"
    if isinstance(values, Tensor):
        device = "" if values.device.type == "cpu" else f" on {values.device}"
        return f"torch {dtype_name(values)} {tuple(values.shape)}{device}"
    return type(values).__name__


def check_packed(codes: object, where: str) -> None:
    """Refuse what is no array of packed codes, uint8 (N, B / 8), with one sentence that starts with ``where``."""
    if (
        not isinstance(codes, np.ndarray | Tensor)
        or codes.ndim != 2
        or codes.shape[1] == 0
        or dtype_name(codes) != "uint8"
    ):
        raise UsageError(f"{where} needs packed codes, uint8 (N, bits / 8), got {dtype_and_shape(codes)}")
