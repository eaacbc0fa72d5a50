from __future__ import annotations

import numpy as np
import pytest

from eval import peers
from kornia_bingan.keypoints import Keypoints, detect
from tests.conftest import texture


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return texture(200, 240, 3)


@pytest.fixture(scope="module")
def points(image: np.ndarray) -> Keypoints:
    return detect(image, "dog", 40)


def test_root_sift_is_the_root_of_sift_of_sum_one(image: np.ndarray, points: Keypoints) -> None:
    rows, sift = peers.root_sift_rows(image, points), peers.sift_rows(image, points)
    np.testing.assert_allclose(rows**2, sift / sift.sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_hash_sift_adds_its_intercept(image: np.ndarray, points: Keypoints) -> None:
    """The first column of the table stands alone: with nothing else in it, its signs are the bits."""
    table = np.zeros((16, 129), np.float32)
    table[::3, 0], table[1::3, 0] = 1, -1
    bits = np.unpackbits(peers.hash_sift_rows(table, image, points), axis=1)
    assert (bits == (table[:, 0] > 0)).all()
    sift = peers.sift_rows(image, points)
    table[:, 5] = 1
    middle = np.floor(np.median(sift[:, 4])) + 0.5  # the values are whole, so none is a tie
    table[:, 0] = -middle
    bits = np.unpackbits(peers.hash_sift_rows(table, image, points), axis=1)
    np.testing.assert_array_equal(bits[:, 0], sift[:, 4] > middle)
    assert 0 < bits.mean() < 1
