"""Truth: the definition of the Hamming distance, values packed by hand, and numpy against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kornia_bingan import bits
from kornia_bingan.errors import UsageError

# One row of 16 signs and its two bytes: 1000 0001 and 0110 0000.
SIGNS = np.array([[1, -1, -1, -1, -1, -1, -1, 1, -1, 1, 1, -1, -1, -1, -1, -1]])
CODES = np.array([[0x81, 0x60]], np.uint8)

LIBRARIES = [pytest.param(np.asarray, id="numpy"), pytest.param(torch.as_tensor, id="torch")]


def random_codes(num: int, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, width), np.uint8)


def brute_force(codes0: np.ndarray, codes1: np.ndarray) -> np.ndarray:
    bits0, bits1 = (np.unpackbits(codes, axis=1).astype(int) for codes in (codes0, codes1))
    return np.abs(bits0[:, None] - bits1[None]).sum(2)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_pack_a_row_by_hand(library: Callable[[Any], Any], dtype: str) -> None:
    signs = (SIGNS > 0) if dtype == "bool" else SIGNS.astype(dtype)
    codes = bits.pack(library(signs))
    assert type(codes) is type(library(signs))
    assert codes.dtype == library(CODES).dtype
    assert codes.tolist() == CODES.tolist()


def test_pack_bfloat16() -> None:
    assert bits.pack(torch.from_numpy(SIGNS).bfloat16()).tolist() == CODES.tolist()


@pytest.mark.parametrize("library", LIBRARIES)
def test_zero_and_minus_zero_are_positive(library: Callable[[Any], Any]) -> None:
    values = library(np.array([[0.0, -0.0, -1e-30, 1e-30, -3.5, 7.0, np.inf, -np.inf]], np.float32))
    assert bits.pack(values).tolist() == [[0b11010110]]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("num", [0, 1, 2, 77])
@pytest.mark.parametrize("width", [1, 2, 8, 32, 33])
def test_pack_inverts_unpack(library: Callable[[Any], Any], num: int, width: int) -> None:
    codes = random_codes(num, width)
    signs = bits.unpack(library(codes))
    assert tuple(signs.shape) == (num, 8 * width)
    assert signs.dtype == library(np.zeros(1, np.float32)).dtype
    assert set(np.unique(np.asarray(signs))) <= {-1.0, 1.0}
    packed = bits.pack(signs)
    assert tuple(packed.shape) == (num, width)
    assert np.array_equal(np.asarray(packed), codes)


def test_strided_input() -> None:
    codes = random_codes(20, 64)[::-2, ::2]
    assert np.array_equal(bits.pack(bits.unpack(codes)), codes)
    tensor = torch.from_numpy(random_codes(32, 20)).T
    assert torch.equal(bits.pack(bits.unpack(tensor)), tensor)
    assert np.array_equal(bits.hamming_distances(codes, codes[3:]), brute_force(codes, codes[3:]))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (2, 3), (70, 41)])
@pytest.mark.parametrize("width", [1, 7, 16, 32])
def test_distances_equal_the_definition(library: Callable[[Any], Any], sizes: tuple[int, int], width: int) -> None:
    codes0, codes1 = random_codes(sizes[0], width), random_codes(sizes[1], width, seed=1)
    distances = bits.hamming_distances(library(codes0), library(codes1))
    assert tuple(distances.shape) == sizes
    assert distances.dtype == library(np.zeros(1, np.int32)).dtype
    assert np.array_equal(np.asarray(distances), brute_force(codes0, codes1))


@pytest.mark.parametrize("library", LIBRARIES)
def test_distances_by_hand(library: Callable[[Any], Any]) -> None:
    codes = np.zeros((3, 32), np.uint8)
    codes[1] = 255
    codes[2, 5] = 0b1011
    distances = bits.hamming_distances(library(codes), library(codes))
    assert distances.tolist() == [[0, 256, 3], [256, 0, 253], [3, 253, 0]]


@pytest.mark.parametrize("library", LIBRARIES)
def test_distances_do_not_depend_on_chunks(library: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    codes0, codes1 = random_codes(50), random_codes(33, seed=1)
    for chunk in (1, 33 * 32 * 7, 2**20):
        monkeypatch.setattr(bits, "_CHUNK", chunk)
        assert np.array_equal(
            np.asarray(bits.hamming_distances(library(codes0), library(codes1))), brute_force(codes0, codes1)
        )


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((2, 12), np.float32), "multiple of 8.*float32 .2, 12."),
        (np.zeros((2, 0), np.float32), "multiple of 8.*float32 .2, 0."),
        (np.zeros(16, np.float32), "multiple of 8.*float32 .16,."),
        (np.zeros((2, 16), np.uint8), "uint8 .2, 16.; compare 0 / 1"),
        (np.zeros((2, 16), np.int64), "int64 .2, 16. with other values"),
        (np.full((2, 16), np.nan, np.float32), "float32 .2, 16. with NaN"),
        (np.zeros((2, 16), np.complex64), "complex64 .2, 16."),
    ],
)
def test_pack_refuses(library: Callable[[Any], Any], values: np.ndarray, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bits.pack(library(values))


@pytest.mark.parametrize("values", [None, [[1, -1] * 4], "codes"])
def test_pack_refuses_what_is_no_array(values: Any) -> None:
    with pytest.raises(UsageError, match=type(values).__name__):
        bits.pack(values)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["bool", "int64", "float32"])
def test_packed_codes_are_uint8(library: Callable[[Any], Any], dtype: str) -> None:
    wrong, codes = library(np.ones((5, 32), dtype)), library(random_codes(5))
    for call in (
        lambda: bits.unpack(wrong),
        lambda: bits.hamming_distances(wrong, codes),
        lambda: bits.hamming_distances(codes, wrong),
    ):
        with pytest.raises(UsageError, match=rf"uint8 .N, bits / 8., got (numpy|torch) {dtype} .5, 32."):
            call()


def test_distances_refuse_other_widths_and_mixed_libraries() -> None:
    codes = random_codes(5)
    with pytest.raises(UsageError, match=r"numpy uint8 .5, 256. and numpy uint8 .5, 32."):
        bits.hamming_distances(np.unpackbits(codes, axis=1), codes)
    with pytest.raises(UsageError, match=r"numpy uint8 .5, 32. and torch uint8 .5, 32."):
        bits.hamming_distances(codes, torch.from_numpy(codes))  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="NoneType"):
        bits.hamming_distances(codes, None)  # type: ignore[call-overload]


def test_the_way_of_compiled_models_packs_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    signs = bits.unpack(torch.from_numpy(random_codes(5, 4)))
    wanted = bits.pack(signs)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(bits.pack(signs), wanted)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("shape", [(3,), (3, 0), (0, 0), (2, 3, 4)])
def test_codes_of_other_shapes_are_refused(library: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"mine needs packed codes, uint8 \(N, bits / 8\), got"):
        bits.check_packed(library(np.zeros(shape, np.uint8)), "mine")
