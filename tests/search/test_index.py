from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kornia_bingan import BinGAN, cli, descriptor
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.published import ImageDiscriminator
from kornia_bingan.network.weights import find_weights, save_weights
from kornia_bingan.search import index as search_index
from kornia_bingan.search.faiss_store import FaissStore, Stamp
from kornia_bingan.search.index import Found, encoder, photo_codes, update_index
from kornia_bingan.work.run_folder import alone_in
from tests.helpers.browser import BROWSER, ask
from tests.helpers.photos import texture
from tests.helpers.programs import run_program

LITE = "bingan256-lite"


def view(seed: int, shift: int) -> np.ndarray:
    """A place seen from beside: a window into a large texture."""
    return texture(300, 520, seed)[20 : 20 + 240, shift : shift + 320]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three views each of four places."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for place in range(4):
        for number in range(3):
            name = f"sub/p{place}.png" if number == 2 else f"p{place} {number}.png"
            cv2.imwrite(str(folder / name), view(place, 60 * number))
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A network for whole pictures, which describes a photo in a moment."""
    torch.manual_seed(0)
    save_weights(tmp_path / "picture.safetensors", ImageDiscriminator(128).eval(), {})
    return str(tmp_path / "picture.safetensors")


@pytest.fixture(params=["", "lancedb://"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an index in each store."""
    return f"{request.param}{tmp_path / 'index'}"


def test_views_of_one_place_are_found(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    summary = update_index(photos, index, LITE)
    assert (summary.photos, summary.added, summary.skipped) == (12, 12, ())
    found = search_index.search_index(index, photos / "p1 1.png", 3)
    assert found[0] == Found("p1 1.png", 0)
    assert {one.name for one in found} == {"p1 0.png", "p1 1.png", "sub/p1.png"}
    assert [one.distance for one in found] == sorted(one.distance for one in found)
    assert len(search_index.search_index(index, photos / "p1 1.png", 99)) == 12
    other = tmp_path / "elsewhere.png"
    cv2.imwrite(str(other), view(2, 90))
    assert "p2" in search_index.search_index(index, other, 1)[0].name


def test_new_changed_and_gone_photos(photos: Path, index: str, weights: str) -> None:
    update_index(photos, index, weights)
    (photos / "p0 0.png").unlink()
    cv2.imwrite(str(photos / "zz.png"), view(7, 0))
    cv2.imwrite(str(photos / "p1 0.png"), view(8, 0))
    os.utime(photos / "p1 0.png", (1, 1))
    shutil.copy(photos / "p2 0.png", photos / "z copy.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    summary = update_index(photos, index, weights)
    assert (summary.photos, summary.added, summary.changed, summary.removed) == (12, 1, 1, 1)
    skipped = {item.name: item.reason for item in summary.skipped}
    assert skipped.keys() == {"z copy.png", "broken.jpg"}
    assert skipped["z copy.png"] == "the same picture as p2 0.png"
    assert skipped["broken.jpg"].startswith("is not a JPEG")
    assert search_index.search_index(index, photos / "zz.png", 1, weights)[0] == Found("zz.png", 0)
    assert "p0 0.png" not in {one.name for one in search_index.search_index(index, photos / "zz.png", 99, weights)}
    again = update_index(photos, index, weights)
    assert (again.photos, again.added, again.changed, again.removed) == (12, 0, 0, 0)
    if "://" not in index:
        assert len(list((Path(index) / "parts").glob("*.npz"))) == 1


@pytest.mark.parametrize(
    # LanceDB counts versions down from 2^64 - 1: the first is the empty table, the second has two photos
    ("store", "written"),
    [("", "parts/[0-9]*.npz"), ("lancedb://", f"photos.lance/_versions/{2**64 - 3}.manifest")],
)
def test_a_killed_run_goes_on(store: str, written: str, photos: Path, weights: str, tmp_path: Path) -> None:
    whole = update_index(photos, f"{store}{tmp_path / 'whole'}", weights)
    folder = tmp_path / "index"
    index = f"{store}{folder}"
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom kornia_bingan.search import index as search_index\n"
        "search_index.PART = 2\n"
        f"encode, about = search_index.encoder(Path({weights!r}))\n"
        "def encode_or_die(path):\n"
        f"    if list(Path({str(folder)!r}).glob({written!r})):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return encode(path)\n"
        "search_index.encoder = lambda *_, **__: (encode_or_die, about)\n"
        f"search_index.update_index(Path({str(photos)!r}), {index!r}, {weights!r})"
    )
    done = run_program(program)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(UsageError, match="is not finished or damaged"):
        search_index.search_index(index, photos / "p1 1.png", 20, weights)
    summary = update_index(photos, index, weights)
    assert summary.photos == whole.photos
    assert 0 < summary.added < 12
    for name in ("codes.faiss", "names.json") if not store else ():
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found = search_index.search_index(index, photos / "p1 1.png", 20, weights)
    assert found == search_index.search_index(f"{store}{tmp_path / 'whole'}", photos / "p1 1.png", 20, weights)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such lock")
def test_a_second_process_is_refused(photos: Path, weights: str, tmp_path: Path) -> None:
    update_index(photos, tmp_path / "index", weights)
    with alone_in(tmp_path / "index"), pytest.raises(UsageError, match="another process works in"):
        update_index(photos, tmp_path / "index", weights)


@pytest.mark.parametrize("kind", [ImageDiscriminator, PictureNetwork])
def test_a_network_for_whole_pictures(
    kind: type[ImageDiscriminator] | type[PictureNetwork], photos: Path, tmp_path: Path
) -> None:
    save_weights(tmp_path / "picture.safetensors", kind(32).eval(), {})
    path = str(tmp_path / "picture.safetensors")
    summary = update_index(photos, tmp_path / "index", path)
    assert summary.bits == 32
    found = search_index.search_index(tmp_path / "index", photos / "p3 0.png", 1, path)
    assert found[0].distance == 0
    with pytest.raises(UsageError, match="no weights 'picture'"):
        search_index.search_index(tmp_path / "index", photos / "p3 0.png")


def test_bad_input_is_a_sentence(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.rmtree(photos / "sub")
    for path in [*photos.glob("p2 *"), *photos.glob("p3 *")]:
        path.unlink()
    update_index(photos, index, LITE)
    with pytest.raises(UsageError, match=r"was made with bingan256-lite \(sha256 .*, not with bingan256-published"):
        update_index(photos, index, "bingan256-published")
    with pytest.raises(UsageError, match=r"absent\.png"):
        search_index.search_index(index, photos / "absent.png")
    with pytest.raises(UsageError, match="top is 0"):
        search_index.search_index(index, photos / "p1 1.png", 0)
    with pytest.raises(UsageError, match="holds no index that this version reads"):
        search_index.search_index(photos, photos / "p1 1.png")
    with pytest.raises(UsageError, match="is not empty and holds no index"):
        update_index(photos, photos, "bingan256")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no photos"):
        update_index(tmp_path / "empty", tmp_path / "other", "bingan256")
    (tmp_path / "empty" / "a.jpg").write_bytes(b"")
    (tmp_path / "empty" / "b.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises((JobError, UsageError), match=r"empty"):
        update_index(tmp_path / "empty", tmp_path / "other", "bingan256")
    (index / "codes.faiss").write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"codes\.faiss is damaged or missing"):
        search_index.search_index(index, photos / "p1 1.png")
    (part,) = (index / "parts").glob("*.npz")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"npz is damaged; delete it"):
        update_index(photos, index, LITE)


def test_commands(photos: Path, index: str, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "found.html"
    own = ["--descriptor", weights]
    assert cli.main(["index", str(photos), index, *own]) == 0
    assert "added" in capsys.readouterr().out
    query = str(photos / "p1 1.png")
    assert cli.main(["search", index, query, "--top", "3", "--out", str(page), "--json", *own]) == 0
    found = json.loads(capsys.readouterr().out)["found"]
    assert found[0]["name"] == "p1 1.png"
    assert page.is_file()
    assert cli.main(["search", index, query, *own]) == 0
    assert "distance" in capsys.readouterr().out
    assert cli.main(["search", str(photos), query]) == 2
    assert cli.main(["search", "s3://bucket/index", query]) == 2
    assert "neither a folder nor lancedb://PATH" in capsys.readouterr().err
    if BROWSER is not None and "://" not in index:
        script = """
        const shown = [...document.querySelectorAll(".photo img")];
        return {count: shown.length, wide: shown.filter(image => image.naturalWidth > 100).length,
                text: document.querySelector(".photo figcaption").textContent};
        """
        answer = ask(page, script, tmp_path)
        assert answer["problems"] == []
        assert (answer["count"], answer["wide"]) == (3, 3)
        assert "p1 1.png, 0 of 128 bits differ" in answer["text"]


def test_thermal_photos_are_indexed_by_what_is_seen_in_them(tmp_path: Path) -> None:
    """Each by its own range, so that its code does not change when others come."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for place in range(2):
        cv2.imwrite(str(photos / f"{place}.png"), 29_000 + 3 * (1 + place) * view(place, 0).astype(np.uint16))
    query = tmp_path / "query.png"
    cv2.imwrite(str(query), view(1, 30))
    model = BinGAN.from_pretrained("bingan256-lite")
    assert len(photo_codes(model, photos / "0.png")) > 50
    summary = update_index(photos, tmp_path / "index", LITE)
    assert (summary.photos, summary.skipped) == (2, ())
    assert [found.name for found in search_index.search_index(tmp_path / "index", query)] == ["1.png", "0.png"]


def test_a_photo_has_changed_if_its_size_or_its_time_has(tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(b"12345")
    os.utime(photo, ns=(5, 7_000_000_000))
    stamp = Stamp(5, 7_000_000_000, "")
    assert search_index._is_current(photo, stamp)
    assert not search_index._is_current(photo, Stamp(6, 7_000_000_000, ""))
    assert not search_index._is_current(photo, Stamp(5, 8_000_000_000, ""))
    assert not search_index._is_current(tmp_path / "gone.png", stamp)


def test_photos_of_another_size_or_another_time_are_described_again(photos: Path, index: str, weights: str) -> None:
    update_index(photos, index, weights)
    before = (photos / "p0 0.png").stat()
    with open(photos / "p0 0.png", "ab") as file:
        file.write(b"more")
    os.utime(photos / "p0 0.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(photos / "p1 0.png", ns=(1, 1))
    summary = update_index(photos, index, weights)
    assert (summary.photos, summary.added, summary.changed, summary.removed) == (12, 0, 2, 0)


def test_what_decides_a_code_stays_as_it_is_in_old_indices() -> None:
    _, about = encoder(find_weights("bingan256-lite"))
    sizes = {key: about[key] for key in ("weights", "kind", "bits", "max_keypoints")}
    assert sizes == {"weights": "bingan256-lite", "kind": "keypoints", "bits": 2048, "max_keypoints": 1000}


def test_photos_are_described_at_1024_pixels_or_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    monkeypatch.setattr(descriptor, "describe", lambda _model, image, _keypoints: shapes.append(image.shape))
    for width in (2048, 1024, 300):
        cv2.imwrite(str(tmp_path / "a.png"), texture(100, width))
        photo_codes(None, tmp_path / "a.png")  # type: ignore[arg-type]
    assert shapes == [(50, 1024), (100, 1024), (100, 300)]


def test_a_bit_of_a_picture_is_set_from_zero_on(tmp_path: Path) -> None:
    class Thresholds(torch.nn.Module):
        """Of a white picture, whose samples are 1."""

        def prepare(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def describe(self, x: torch.Tensor) -> torch.Tensor:
            return x.max() - torch.tensor([[1.0, 1.002, 0.998, 1.5, 0.5, 3.0, 1.0, -1.0]])

    cv2.imwrite(str(tmp_path / "white.png"), np.full((40, 50), 255, np.uint8))
    code = search_index._code_of_picture(Thresholds(), tmp_path / "white.png")  # type: ignore[arg-type]
    assert np.unpackbits(code).tolist() == [1, 0, 1, 0, 1, 0, 1, 1]


def test_photos_are_stored_in_parts(
    photos: Path, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    add = FaissStore.add
    monkeypatch.setattr(FaissStore, "add", lambda self, rows: (sizes.append(len(rows)), add(self, rows)))
    monkeypatch.setattr(search_index, "PART", 5)
    update_index(photos, tmp_path / "index", weights)
    assert sizes == [5, 5, 2, 12], "the last is the whole index"


def test_finds_of_one_photo_are_equal() -> None:
    assert len({Found("a.png", 1), Found("a.png", 1), Found("a.png", 2)}) == 2
