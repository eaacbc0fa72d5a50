"""Whatever bytes a file holds, and whatever numbers an array: an answer or the package's own error, nothing between."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from kornia_bingan import PatchTrunk, colmap
from kornia_bingan.errors import UsageError
from kornia_bingan.images.exif import read_exif
from kornia_bingan.images.read import ImageError, image_size, read_color, read_image
from kornia_bingan.network.weights import load_weights, save_weights
from tests.helpers.photos import texture

COLOUR = np.dstack([texture(24, 32, seed) for seed in range(3)])
FEW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pictures() -> dict[str, bytes]:
    found = {
        kind: cv2.imencode(kind, COLOUR)[1].tobytes() for kind in (".jpg", ".png", ".tif", ".webp", ".bmp", ".ppm")
    }
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "AVIF", exif=exif)
    return {**found, ".avif": buffer.getvalue()}


PICTURES = pictures()
EDITS = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=4)


def edited(data: bytes, edits: list[tuple[float, bytes]], kept: float) -> bytes:
    """Overwrite bytes at some places of a file, each as a share of its length, and cut off its end."""
    changed = bytearray(data)
    for place, junk in edits:
        start = int(place * len(data))
        changed[start : start + len(junk)] = junk
    return bytes(changed[: round(kept * len(data))])


def read_everything(path: Path) -> None:
    read_exif(path)
    said = ""
    try:
        grey = read_image(path)
    except ImageError as refused:
        said = str(refused)
    if said:
        assert str(path) in said
        return
    assert grey.dtype == np.uint8
    assert grey.flags.c_contiguous
    assert grey.shape == read_color(path).shape[:2] == image_size(path)[::-1]


@FEW
@given(kind=st.sampled_from(sorted(PICTURES)), edits=EDITS, kept=st.one_of(st.just(1.0), st.floats(0, 1)))
def test_damaged_pictures_are_read_or_refused_by_name(
    tmp_path: Path, kind: str, edits: list[tuple[float, bytes]], kept: float
) -> None:
    path = tmp_path / f"picture{kind}"
    path.write_bytes(edited(PICTURES[kind], edits, kept))
    read_everything(path)


STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"P5 ", b"P6 4 4 255\n"]


@FEW
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_random_bytes_are_no_picture_or_a_whole_one(tmp_path: Path, start: bytes, rest: bytes) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(start + rest)
    read_everything(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, PatchTrunk(layers=((2, 2), (2, 2))), {})
    return path.read_bytes()


@FEW
@given(edits=EDITS, kept=st.one_of(st.just(1.0), st.floats(0, 1)), in_header=st.booleans())
def test_damaged_weights_are_refused_by_name(
    tmp_path: Path, weights: bytes, edits: list[tuple[float, bytes]], kept: float, in_header: bool
) -> None:
    if in_header:  # the numbers are most of the file
        share = (8 + int.from_bytes(weights[:8], "little")) / len(weights)
        edits = [(place * share, junk) for place, junk in edits]
    data = edited(weights, edits, kept)
    path = tmp_path / "small.safetensors"
    path.write_bytes(data)
    said = str(path)
    try:
        load_weights(path)
    except UsageError as refused:
        said = str(refused)
    assert str(path) in said
    assert path.read_bytes() == data
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


KEYPOINTS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8]),
    st.tuples(st.integers(0, 6), st.sampled_from([2, 2, 3, 4, 6])),
)
MATCHES = hnp.arrays(
    st.sampled_from([np.int32, np.int64, np.uint32, np.uint8, np.float32]),
    st.tuples(st.integers(0, 4), st.sampled_from([2, 2, 2, 1, 3])),
    elements=st.integers(0, 6),
)


@FEW
@given(first=KEYPOINTS, second=KEYPOINTS, matches=MATCHES, turned=st.booleans())
def test_a_database_is_whole_or_not_there(
    tmp_path_factory: pytest.TempPathFactory,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    matches: NDArray[np.int32],
    turned: bool,
) -> None:
    folder = tmp_path_factory.mktemp("database")
    path = folder / "d.db"
    given_rows = {"a": first, "b": second}
    before = {name: rows.copy() for name, rows in given_rows.items()}
    try:
        colmap.write_features(path, given_rows, colmap.Camera(100, 100))
    except UsageError:
        assert list(folder.iterdir()) == []
        return
    finally:
        for name, rows in before.items():
            np.testing.assert_array_equal(given_rows[name], rows)
    found = colmap.read_features(path)
    for name, rows in before.items():
        np.testing.assert_allclose(found[name].xy, rows[:, :2].astype(np.float32), rtol=1e-6, atol=1)
    pair = ("b", "a") if turned else ("a", "b")
    name = said = f"pair {pair[0]} - {pair[1]}"
    written = 0
    try:
        written = colmap.write_matches(path, {pair: matches}, verification=False).matches
    except UsageError as refused:
        said = str(refused)
    assert name in said
    assert written == (len(matches) if said == name else 0)
    assert colmap.read_verification(path).matches == written
    assert [other.name for other in folder.iterdir()] == ["d.db"]
