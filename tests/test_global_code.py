from __future__ import annotations

import numpy as np
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.global_code import aggregate, global_code


def codes_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def noisy(codes: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Flip a share of the bits."""
    flips = np.random.default_rng(seed).random((len(codes), 256)) < share
    return codes ^ np.packbits(flips, axis=1)


def test_sums_by_cell_by_hand() -> None:
    codes = np.zeros((3, 1), np.uint8)
    codes[:, 0] = [0b0_1111111, 0b0_1110000, 0b1_0000000]
    vector = aggregate(codes, 1).reshape(2, 7)
    first = np.sqrt([2, 2, 2, 0, 0, 0, 0])
    np.testing.assert_allclose(vector[0], first / np.linalg.norm(first) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(vector[1], -np.ones(7) / np.sqrt(7) / np.sqrt(2), rtol=1e-6)


def test_photos_that_share_keypoints_are_nearer() -> None:
    a = codes_of(0, 400)
    shared = np.concatenate([noisy(a[:250], 0.05, 1), codes_of(2, 150)])
    others = [codes_of(seed, 400) for seed in range(3, 23)]
    query = np.unpackbits(global_code(a))
    distance = [int((np.unpackbits(global_code(x)) != query).sum()) for x in [shared, *others]]
    assert distance[0] < min(distance[1:])
    assert 400 < np.mean(distance[1:]) < 620, "unrelated ones differ in about half of 1,024 bits"


def test_the_order_of_keypoints_does_not_matter() -> None:
    codes = codes_of(0, 100)
    order = np.random.default_rng(1).permutation(100)
    np.testing.assert_array_equal(global_code(codes), global_code(codes[order]))
    assert global_code(codes, 256).shape == (32,)
    assert global_code(codes[:0]).shape == (128,)


def test_wrong_use() -> None:
    with pytest.raises(UsageError, match="packed codes"):
        aggregate(np.zeros((2, 32), np.float32))
    with pytest.raises(UsageError, match="multiple of 8"):
        global_code(codes_of(0, 2), 100)
