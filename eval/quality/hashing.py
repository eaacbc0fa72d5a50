"""Real features become binary codes by data-independent and data-dependent hashing: the classical baselines.

Every function takes training features (N, D) and the width of the code, and gives a function that turns features into
packed codes, uint8 (n, bits / 8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Encode = Callable[[Floats], NDArray[np.uint8]]

SEED = 0
"""Of the random projections; faiss starts ITQ from a fixed seed of its own."""


def _packed(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.packbits(values >= 0, axis=1)


def lsh(train: Floats, bits: int) -> Encode:
    """Signs of random projections of centred features (Charikar, STOC 2002)."""
    mean = train.mean(0)
    directions = np.random.default_rng(SEED).standard_normal((train.shape[1], bits)).astype(np.float32)
    return lambda x: _packed((x - mean) @ directions)


def pca_itq(train: Floats, bits: int) -> Encode:
    """Principal components turned so that their signs lose least (Gong and Lazebnik, CVPR 2011), by faiss."""
    transform = faiss.ITQTransform(train.shape[1], bits, True)
    transform.train(np.ascontiguousarray(train, np.float32))
    return lambda x: _packed(transform.apply(np.ascontiguousarray(x, np.float32)))


def medians(train: Floats, bits: int) -> Encode:
    """Each of the first ``bits`` values against its median over the training features."""
    thresholds = np.median(train[:, :bits], axis=0)
    return lambda x: _packed(x[:, :bits] - thresholds)


def spectral(train: Floats, bits: int) -> Encode:
    """Signs of the smoothest eigenfunctions of a box around the principal components (Weiss et al., NIPS 2008)."""
    mean = train.mean(0)
    centred = train - mean
    _, vectors = np.linalg.eigh(centred.T @ centred / len(train))
    width = min(bits, train.shape[1])
    axes = vectors[:, ::-1][:, :width].astype(np.float32)
    projected = centred @ axes
    low, high = projected.min(0), projected.max(0)
    extent = np.maximum(high - low, 1e-9)
    # An eigenfunction has a mode k >= 1 along one axis and a frequency k / extent: the lowest frequencies win.
    most = int(np.ceil((bits + 1) * extent.max() / extent.sum())) + bits
    modes = [(k / extent[axis], axis, k) for axis in range(width) for k in range(1, most + 1)]
    chosen = sorted(modes)[:bits]
    axis_of = np.array([axis for _, axis, _ in chosen])
    omega = np.array([np.pi * k / extent[axis] for _, axis, k in chosen], np.float32)

    def encode(x: Floats) -> NDArray[np.uint8]:
        inside = ((x - mean) @ axes - low)[:, axis_of]
        return _packed(np.sin(inside * omega + np.pi / 2))

    return encode


METHODS: dict[str, Callable[[Floats, int], Encode]] = {"lsh": lsh, "spectral": spectral, "pca-itq": pca_itq}
