"""Truth: a brute-force search in plain numpy, and Kornia's matchers on a matrix of Hamming distances."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import faiss
import kornia.feature as KF
import numpy as np
import pytest
import torch

from kornia_bingan import bits
from kornia_bingan.errors import UsageError
from kornia_bingan.matching import Calibration, HammingMatcher, match, match_probability
from kornia_bingan.matching import hamming as matching
from tests.helpers.older_kornia import BEFORE_0_9

MODES = ["nn", "mnn", "snn", "smnn"]


def packed_numpy(codes: np.ndarray) -> np.ndarray:
    return codes


def packed_torch(codes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(codes)


def signs_numpy(codes: np.ndarray) -> np.ndarray:
    return bits.unpack(codes)


def signs_torch(codes: np.ndarray) -> torch.Tensor:
    return bits.unpack(torch.from_numpy(codes))


FORMS = [packed_numpy, packed_torch, signs_numpy, signs_torch]


def random_codes(num: int, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, width), np.uint8)


def codes_full_of_ties(num: int, seed: int) -> np.ndarray:
    """Codes of 8 bits, half of them drawn from four values: equal distances and equal codes everywhere."""
    generator = np.random.default_rng(seed)
    return np.where(
        generator.random((num, 1)) < 0.5,
        generator.integers(0, 4, (num, 1), np.uint8),
        generator.integers(0, 256, (num, 1), np.uint8),
    )


def noisy_copies(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of 256-bit codes in which half of the rows are the same up to 5 % of the bits, in another order."""
    generator = np.random.default_rng(seed)
    codes0 = generator.integers(0, 256, (num, 32), np.uint8)
    noise = np.packbits(generator.random((num, 256)) < 0.05, axis=1)
    codes1 = np.where(np.arange(num)[:, None] % 2, codes0 ^ noise, generator.integers(0, 256, (num, 32), np.uint8))
    return codes0, codes1[generator.permutation(num)]


def brute_force(codes0: np.ndarray, codes1: np.ndarray, mode: str, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Follow the rules of the module one code after the other."""
    distances = np.bitwise_count(codes0[:, None] ^ codes1[None]).sum(2, dtype=np.int64)

    def nearest(row: np.ndarray) -> tuple[int, float, float | None]:
        order = np.argsort(row, kind="stable")
        first = row[order[0]]
        if len(row) < 2:
            return int(order[0]), first, None
        second = row[order[1]]
        return int(order[0]), first, 1.0 if second == 0 else first / second

    values, pairs = [], []
    for i in range(len(codes0) if len(codes1) else 0):
        j, value, ratio = nearest(distances[i])
        back, _, back_ratio = nearest(distances[:, j])
        if mode in ("mnn", "smnn") and back != i:
            continue
        if mode == "snn":
            if ratio is None or ratio > threshold:
                continue
            value = ratio
        if mode == "smnn":
            if ratio is None or back_ratio is None or max(ratio, back_ratio) > threshold:
                continue
            value = max(ratio, back_ratio)
        values.append(value)
        pairs.append((i, j))
    return np.array(values, np.float32).reshape(-1, 1), np.array(pairs, np.int64).reshape(-1, 2)


def assert_same(result: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    distances, indices = (np.asarray(x) for x in result)
    assert distances.dtype == np.float32
    assert indices.dtype == np.int64
    assert np.array_equal(indices, np.asarray(expected[1]))
    assert np.array_equal(distances, np.asarray(expected[0], np.float32))


@pytest.fixture
def search_by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send CPU tensors through the search that other devices get."""
    monkeypatch.setattr(
        matching, "_nearest_faiss", lambda queries, base, k, _: matching._nearest_products(queries, base, k)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 2), (2, 1), (1, 5), (5, 1), (2, 2), (60, 45), (45, 60)]
)
def test_equals_brute_force_with_ties(mode: str, form: Callable[[np.ndarray], Any], sizes: tuple[int, int]) -> None:
    codes0, codes1 = codes_full_of_ties(sizes[0], 0), codes_full_of_ties(sizes[1], 1)
    for threshold in (0.0, 0.5, 0.8, 1.0):
        result = match(form(codes0), form(codes1), mode, threshold)
        assert type(result[0]) is type(result[1]) is type(form(codes0))
        assert_same(result, brute_force(codes0, codes1, mode, threshold))


@pytest.mark.usefixtures("search_by_products")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunks", [(1, 1), (7, 5), (64, 16), (1024, 16384)])
def test_products_equal_brute_force_with_ties(
    mode: str, chunks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_QUERY_CHUNK", chunks[0])
    monkeypatch.setattr(matching, "_BASE_CHUNK", chunks[1])
    for sizes in ((1, 1), (1, 5), (5, 1), (30, 22), (22, 30)):
        codes0, codes1 = codes_full_of_ties(sizes[0], 0), codes_full_of_ties(sizes[1], 1)
        for threshold in (0.5, 1.0):
            result = match(torch.from_numpy(codes0), torch.from_numpy(codes1), mode, threshold)
            assert_same(result, brute_force(codes0, codes1, mode, threshold))


@pytest.mark.parametrize("width", [1, 2, 3, 16, 32, 33, 64])
@pytest.mark.parametrize("num_neighbours", [1, 2])
def test_products_equal_faiss(width: int, num_neighbours: int) -> None:
    queries, base = (torch.from_numpy(random_codes(n, width, n)) for n in (301, 403))
    one = matching._nearest_faiss(queries, base, num_neighbours, 1)
    other = matching._nearest_products(queries, base, num_neighbours)
    for name in ("first", "second", "index"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("sizes", [(0, 2), (1, 2), (40, 90)])
def test_the_two_nearest_equal_brute_force_with_ties(sizes: tuple[int, int]) -> None:
    codes0, codes1 = codes_full_of_ties(sizes[0], 0), codes_full_of_ties(sizes[1], 1)
    rows, distances = matching.two_nearest(codes0, codes1)
    expected = np.bitwise_count(codes0[:, None] ^ codes1).sum(2)
    np.testing.assert_array_equal(rows, expected.argmin(1))
    np.testing.assert_array_equal(distances, np.sort(expected, 1)[:, :2])
    assert rows.dtype == np.int64
    assert distances.dtype == np.float32


def test_ties_across_the_blocks_of_the_search() -> None:
    """70,000 equal codes: faiss works through the base in blocks, and the lowest index must win over all of them."""
    base = torch.zeros(70_000, 32, dtype=torch.uint8)
    base[:10] = 255
    queries = torch.zeros(3, 32, dtype=torch.uint8)
    for num_neighbours in (1, 2):
        for found in (
            matching._nearest_faiss(queries, base, num_neighbours, 2),
            matching._nearest_products(queries, base, num_neighbours),
        ):
            assert found.index.tolist() == [10, 10, 10]
            assert found.first.tolist() == [0, 0, 0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_equals_kornia_with_hamming_distances(form: Callable[[np.ndarray], Any], threshold: float) -> None:
    for codes0, codes1 in (noisy_copies(400), (codes_full_of_ties(90, 2), codes_full_of_ties(70, 3))):
        x, y = torch.from_numpy(codes0), torch.from_numpy(codes1)
        dm = bits.hamming_distances(x, y).float()
        a, b = bits.unpack(x), bits.unpack(y)
        assert_same(match(form(codes0), form(codes1), "nn"), KF.match_nn(a, b, dm))
        values, pairs = KF.match_mnn(a, b, dm)  # Kornia sorts by the smaller set
        order = torch.argsort(pairs[:, 0])
        assert_same(match(form(codes0), form(codes1), "mnn"), (values[order], pairs[order]))
        assert_same(match(form(codes0), form(codes1), "snn", threshold), KF.match_snn(a, b, threshold, dm))
        result = match(form(codes0), form(codes1), "smnn", threshold)
        assert_same(result, KF.match_smnn(a, b, threshold, dm))
    assert len(match(*noisy_copies(400), "smnn", threshold)[1]) >= 190 if threshold > 0.5 else True


def test_defaults_find_the_copies() -> None:
    codes0, codes1 = noisy_copies(400)
    _, indices = match(codes0, codes1)
    assert len(indices) == 200
    assert (indices[:, 0] % 2 == 1).all()
    assert (bits.hamming_distances(codes0, codes1)[indices[:, 0], indices[:, 1]] < 40).all()


def test_a_ratio_by_hand() -> None:
    """From 0: code 1 differs in 4 bits and code 0 in 5, a ratio of 0.8; back, the second neighbour is at 3."""
    codes0 = np.array([[0b00000000], [0b00000111]], np.uint8)
    codes1 = np.array([[0b11111000], [0b01111000]], np.uint8)
    assert bits.hamming_distances(codes0, codes1).tolist() == [[5, 4], [8, 7]]
    distances, indices = match(codes0, codes1, "snn", 0.8)  # 4 / 5 passes, 7 / 8 does not
    assert indices.tolist() == [[0, 1]]
    assert distances.tolist() == [[np.float32(0.8)]]
    assert len(match(codes0, codes1, "snn", 0.79)[1]) == 0
    distances, indices = match(codes0, codes1, "smnn", 0.8)  # back: 4 / 7
    assert indices.tolist() == [[0, 1]]
    assert distances.tolist() == [[np.float32(0.8)]]
    assert match(codes0, codes1, "nn")[0].tolist() == [[4], [7]]
    assert match(codes0, codes1, "mnn")[1].tolist() == [[0, 1]]


def test_two_neighbours_at_zero_are_ambiguous() -> None:
    codes0 = np.zeros((1, 32), np.uint8)
    codes1 = np.zeros((3, 32), np.uint8)
    assert len(match(codes0, codes1, "snn", 0.99)[1]) == 0
    distances, indices = match(codes0, codes1, "snn", 1.0)
    assert distances.tolist() == [[1.0]]
    assert indices.tolist() == [[0, 0]]
    codes1[1:] = 1
    distances, indices = match(codes0, codes1, "snn", 0.0)  # 0 / 32: as certain as a match can be
    assert distances.tolist() == [[0.0]]
    assert indices.tolist() == [[0, 0]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num", [0, 1])
def test_sets_of_no_and_one_code(form: Callable[[np.ndarray], Any], num: int) -> None:
    five, few = form(random_codes(5)), form(random_codes(5)[3 : 3 + num])
    for mode in ("snn", "smnn"):
        distances, indices = match(five, few, mode, 0.8)
        assert (tuple(distances.shape), tuple(indices.shape)) == ((0, 1), (0, 2))
    for mode, expected in (("nn", [[i, 0] for i in range(5)]), ("mnn", [[3, 0]])):
        distances, indices = match(five, few, mode)
        assert tuple(distances.shape) == (len(indices), 1)
        assert indices.tolist() == (expected if num else [])
    distances, indices = match(few, five, "mnn")
    assert indices.tolist() == ([[0, 3]] if num else [])
    assert tuple(indices.shape) == (num, 2)
    # One code against five has a second neighbour in one direction, so the one-way ratio test can pass.
    assert match(few, five, "snn", 0.8)[1].tolist() == ([[0, 3]] if num else [])
    assert len(match(few, five, "smnn", 0.8)[1]) == 0


@pytest.mark.parametrize("mode", MODES)
def test_every_device_gives_what_arrays_give(mode: str, device: torch.device) -> None:
    codes0, codes1 = codes_full_of_ties(3000, 4), codes_full_of_ties(20_000, 5)
    expected = match(codes0, codes1, mode, 1.0)
    for form in (packed_torch, signs_torch):
        distances, indices = match(form(codes0).to(device), form(codes1).to(device), mode, 1.0)
        assert distances.device.type == indices.device.type == device.type
        assert_same((distances.cpu(), indices.cpu()), expected)


def test_matching_keeps_its_input_and_takes_views() -> None:
    codes0, codes1 = noisy_copies(100)
    expected = match(codes0, codes1, "mnn")
    wide = np.concatenate([codes0, codes0], 1)[:, :32]
    wide.flags.writeable = False
    before = codes1.copy()
    assert_same(match(wide, codes1[::-1][::-1], "mnn"), expected)
    assert np.array_equal(codes1, before)
    assert_same(match(torch.from_numpy(codes0.T.copy()).T, torch.from_numpy(codes1), "mnn"), expected)
    signs = bits.unpack(torch.from_numpy(codes0)).requires_grad_()
    assert_same(match(signs.half(), bits.unpack(torch.from_numpy(codes1)), "mnn"), expected)


def test_the_number_of_threads_changes_nothing_and_is_restored() -> None:
    codes0, codes1 = noisy_copies(300)
    before = faiss.omp_get_max_threads()
    for num_threads in (1, 2):
        assert_same(match(codes0, codes1, "smnn", num_threads=num_threads), match(codes0, codes1, "smnn"))
    assert faiss.omp_get_max_threads() == before
    with pytest.raises(UsageError, match="num_threads is 0"):
        match(codes0, codes1, num_threads=0)


CODES = random_codes(5)
WRONG = [
    pytest.param(
        CODES.astype(np.float32), CODES, "float32 .5, 32. and numpy uint8 .5, 32. with the value", id="float bytes"
    ),
    pytest.param(np.unpackbits(CODES, axis=1), CODES, "numpy uint8 .5, 256. and numpy uint8 .5, 32.", id="unpacked"),
    pytest.param(CODES.astype(bool), CODES, "numpy bool .5, 32. and numpy uint8", id="bool"),
    pytest.param(CODES, CODES.astype(np.int64), "uint8 .5, 32. and numpy int64 .5, 32.", id="int64"),
    pytest.param(CODES, torch.from_numpy(CODES), "numpy uint8 .5, 32. and torch uint8 .5, 32.", id="two libraries"),
    pytest.param(torch.from_numpy(CODES), CODES, "torch uint8 .5, 32. and numpy uint8 .5, 32.", id="torch and numpy"),
    pytest.param(CODES, None, "numpy uint8 .5, 32. and NoneType", id="None"),
    pytest.param(CODES, CODES.tolist(), "numpy uint8 .5, 32. and list", id="list"),
    pytest.param(CODES[0], CODES, "numpy uint8 .32,. and numpy", id="one row"),
    pytest.param(CODES[None], CODES[None], "numpy uint8 .1, 5, 32. and numpy", id="batch"),
    pytest.param(CODES[:, :0], CODES[:, :0], "numpy uint8 .5, 0.", id="no width"),
    pytest.param(CODES[:0, :16], CODES, "numpy uint8 .0, 16. and numpy uint8 .5, 32.", id="width of nothing"),
    pytest.param(np.ones((5, 12)), np.ones((5, 12)), "numpy float64 .5, 12.", id="no whole bytes"),
    pytest.param(np.full((5, 256), np.nan), bits.unpack(CODES), "float64 .5, 256. .* with the value nan", id="NaN"),
    pytest.param(bits.unpack(CODES) * 0.5, bits.unpack(CODES), "with the value -?0.5", id="halves"),
    pytest.param(bits.unpack(CODES), bits.unpack(CODES) * 0, "with the value -?0", id="zeros"),
    pytest.param(np.array([["a"]]), CODES, "numpy <U1 .1, 1.", id="text"),
]


@pytest.mark.parametrize(("codes0", "codes1", "words"), WRONG)
def test_refuses_with_what_it_got_and_wanted(codes0: Any, codes1: Any, words: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s)uint8 .N, bits / 8..* floats .N, bits., got .*{words}") as caught:
        match(codes0, codes1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threshold", [-0.1, 1.01, 30, float("nan"), float("inf")])
def test_refuses_a_threshold_that_is_no_ratio(threshold: float) -> None:
    with pytest.raises(UsageError, match="ratio of Hamming distances"):
        match(CODES, CODES, "smnn", threshold)
    with pytest.raises(UsageError, match="ratio of Hamming distances"):
        HammingMatcher("snn", threshold)
    assert len(match(CODES, CODES, "mnn", threshold)[1]) == 5  # not used without a ratio test


def test_refuses_an_unknown_mode() -> None:
    with pytest.raises(UsageError, match="'fginn'; choose one of nn, mnn, snn, smnn"):
        match(CODES, CODES, "fginn")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="'adalam'"):
        HammingMatcher("adalam")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", [packed_torch, signs_torch])
def test_module_gives_what_the_function_gives(mode: str, form: Callable[[np.ndarray], torch.Tensor]) -> None:
    codes0, codes1 = noisy_copies(200)
    matcher = HammingMatcher(mode, 0.7)
    assert_same(matcher(form(codes0), form(codes1)), match(codes0, codes1, mode, 0.7))
    assert not list(matcher.parameters())
    assert repr(matcher) == f"HammingMatcher(match_mode='{mode}', th=0.7)"


class PixelPairs(torch.nn.Module):
    """A stand-in descriptor: the order of 256 pairs of smoothed pixels."""

    def __init__(self, *, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.register_buffer("pairs", torch.randint(0, 1024, (2, 256), generator=torch.manual_seed(1)))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        smooth = torch.nn.functional.avg_pool2d(patches, 5, 1, 2).flatten(1)
        signs = torch.where(smooth[:, self.pairs[0]] >= smooth[:, self.pairs[1]], 1.0, -1.0).to(patches.dtype)
        return bits.pack(signs) if self.packed else signs


def blobs(seed: int) -> torch.Tensor:
    """A picture (1, 1, 160, 200) of smooth blobs in [0, 1]."""
    noise = torch.rand(1, 1, 20, 25, generator=torch.manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (160, 200), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_inside_kornias_local_feature_matcher(mode: str, packed: bool) -> None:
    describe = KF.LAFDescriptor(PixelPairs(packed=packed), patch_size=32)
    feature = KF.LocalFeature(KF.ScaleSpaceDetector(100), describe, scaling_coef=1.5)
    matcher = KF.LocalFeatureMatcher(feature, HammingMatcher(mode, 0.8))
    image0 = blobs(0)
    image1 = torch.roll(image0, (16, 16), (2, 3))
    with torch.no_grad():
        found = matcher({"image0": image0, "image1": image1})
        nothing = matcher({"image0": torch.zeros_like(image0), "image1": image1})
    moved = found["keypoints1"] - found["keypoints0"]
    right = ((moved - 16).norm(dim=1) < 1).sum()
    assert right >= 20
    if mode in ("snn", "smnn"):
        assert right > 0.8 * len(moved)
        assert ((found["confidence"] >= 0.2 - 1e-6) & (found["confidence"] <= 1)).all()
    assert nothing["keypoints0"].shape == (0, 2) or BEFORE_0_9  # where the detector finds its number in anything


MEMORY = """
import resource
import numpy as np, torch
from kornia_bingan import bits
from kornia_bingan.matching import hamming as matching
codes = np.random.default_rng(0).integers(0, 256, (2, 100_000, 32), np.uint8)
queries, base = torch.from_numpy(codes[0]), torch.from_numpy(codes[1])
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
matching._nearest_faiss(queries[:10], base[:10], 2, 1)
matching._nearest_products(queries[:10], base[:10], 2)
before = peak_mib()
matching._nearest_faiss(queries[:2_000], base, 2, 1)
matching._nearest_products(queries[:600], base, 2)
print(peak_mib() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kibibytes on Linux only")
def test_memory_against_100_000_codes() -> None:
    """Both searches go through the queries in chunks, so a part of 100,000 queries shows their peak."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500


def test_probability_of_matches() -> None:
    calibration = Calibration(4.0, -8.0, -2.0)
    p = match_probability(np.array([0, 64, 256]), np.array([0.0, 1.0, 1.0]), 256, calibration)
    np.testing.assert_allclose(p, 1 / (1 + np.exp([-4.0, 0.0, 6.0])))
    assert match_probability(np.zeros(0), np.zeros(0), 256, calibration).shape == (0,)
    for distances, ratios, message in (
        ([1, 2], [0.5], "per match"),
        ([257], [0.5], "between 0 and 256"),
        ([1], [1.5], "ratios between 0 and 1"),
        ([1], [np.nan], "ratios between 0 and 1"),
    ):
        with pytest.raises(UsageError, match=message):
            match_probability(np.array(distances), np.array(ratios), 256, calibration)


@pytest.mark.parametrize("mode", ["SMNN", "Mnn", "snn", "NN"])
def test_modes_are_kornias_in_any_case(mode: str) -> None:
    codes = torch.randint(0, 256, (9, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    matcher = HammingMatcher(mode)
    assert matcher.match_mode == mode.lower()
    for found, expected in zip(matcher(codes, codes), match(codes, codes, mode.lower()), strict=True):  # type: ignore[call-overload]
        assert torch.equal(found, expected)
    with pytest.raises(UsageError, match="the match mode is 'FGINN'"):
        HammingMatcher("FGINN")


def test_no_codes_match_nothing_whatever_their_width() -> None:
    """Kornia before 0.9 gives an image without keypoints 128 columns."""
    distances, indices = HammingMatcher()(torch.empty(0, 128), torch.ones(5, 256))
    assert (distances.shape, indices.shape) == ((0, 1), (0, 2))


def test_a_calibration_cannot_be_changed_for_all_who_hold_it() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Calibration(4.0, -8.0, -2.0).ratio = 0.0  # type: ignore[misc]
