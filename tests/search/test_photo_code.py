from __future__ import annotations

import numpy as np
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.search.photo_code import global_code


def codes_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def noisy(codes: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Flip a share of the bits."""
    flips = np.random.default_rng(seed).random((len(codes), 256)) < share
    return codes ^ np.packbits(flips, axis=1)


def test_votes_of_both_halves_by_hand() -> None:
    codes = np.array([[0b0_1111000], [0b0_1110001], [0b0_0100011], [0b1_0010000]], np.uint8)
    np.testing.assert_array_equal(global_code(codes, 1), [0b0_1110001, 0b1_0010000])
    # Undivided, the four codes vote together, and an even vote gives 1.
    np.testing.assert_array_equal(global_code(codes, 0), [0b0_1110001])
    np.testing.assert_array_equal(global_code(codes[:2], 1), [0b0_1111001, 0b1_1111111])


def test_photos_that_share_keypoints_are_nearer() -> None:
    a = codes_of(0, 400)
    shared = np.concatenate([noisy(a[:250], 0.05, 1), codes_of(2, 150)])
    others = [codes_of(seed, 400) for seed in range(3, 23)]
    query = np.unpackbits(global_code(a, 1))
    distance = [int((np.unpackbits(global_code(x, 1)) != query).sum()) for x in [shared, *others]]
    assert distance[0] < min(distance[1:])
    assert 200 < np.mean(distance[1:]) < 310, "unrelated ones differ in about half of 512 bits"


def test_the_order_of_keypoints_does_not_matter() -> None:
    codes = codes_of(0, 100)
    order = np.random.default_rng(1).permutation(100)
    np.testing.assert_array_equal(global_code(codes), global_code(codes[order]))
    assert global_code(codes, 1).shape == (64,)
    assert global_code(codes[:0]).shape == (256,)


def test_wrong_use() -> None:
    with pytest.raises(UsageError, match="packed codes"):
        global_code(np.zeros((2, 32), np.float32))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="0 to 8 cell bits"):
        global_code(codes_of(0, 2), 9)
