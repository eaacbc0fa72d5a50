from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan import cli, search_index
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.network import ImageDiscriminator
from kornia_bingan.runs import alone_in
from kornia_bingan.search_index import update_index
from kornia_bingan.weights import save_weights
from tests.browser import BROWSER, ask
from tests.conftest import texture


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


def test_views_of_one_place_are_found(photos: Path, tmp_path: Path) -> None:
    summary = update_index(photos, tmp_path / "index", "bingan256")
    assert (summary.photos, summary.added, summary.skipped) == (12, 12, ())
    found = search_index.search_index(tmp_path / "index", photos / "p1 1.png", 3)
    assert found[0] == search_index.Found("p1 1.png", 0)
    assert {one.name for one in found} == {"p1 0.png", "p1 1.png", "sub/p1.png"}
    assert [one.distance for one in found] == sorted(one.distance for one in found)
    assert len(search_index.search_index(tmp_path / "index", photos / "p1 1.png", 99)) == 12
    other = tmp_path / "elsewhere.png"
    cv2.imwrite(str(other), view(2, 90))
    assert "p2" in search_index.search_index(tmp_path / "index", other, 1)[0].name


def test_new_changed_and_gone_photos(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    update_index(photos, index, "bingan256")
    (photos / "p0 0.png").unlink()
    cv2.imwrite(str(photos / "new.png"), view(7, 0))
    cv2.imwrite(str(photos / "p1 0.png"), view(8, 0))
    os.utime(photos / "p1 0.png", (1, 1))
    shutil.copy(photos / "p2 0.png", photos / "z copy.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    summary = update_index(photos, index, "bingan256")
    assert (summary.photos, summary.added, summary.changed, summary.removed) == (12, 1, 1, 1)
    assert {item.name: item.reason for item in summary.skipped}["z copy.png"] == "the same picture as p2 0.png"
    assert "broken.jpg" in {item.name for item in summary.skipped}
    assert search_index.search_index(index, photos / "new.png", 1)[0] == search_index.Found("new.png", 0)
    assert "p0 0.png" not in {one.name for one in search_index.search_index(index, photos / "new.png", 99)}
    assert len(list((index / "parts").glob("*.npz"))) == 1


def test_a_killed_run_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = update_index(photos, tmp_path / "whole", "bingan256")
    index = tmp_path / "index"
    program = (
        "from pathlib import Path\nfrom kornia_bingan import search_index\nsearch_index.PART = 2\n"
        f"search_index.update_index(Path({str(photos)!r}), Path({str(index)!r}), 'bingan256')"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(index.glob("parts/[0-9]*.npz")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (index / "names.json").exists(), "the run was not killed in the middle"
    with pytest.raises(UsageError, match="is not finished or damaged"):
        search_index.search_index(index, photos / "p1 1.png")
    summary = update_index(photos, index, "bingan256")
    assert summary.photos == whole.photos
    assert 0 < summary.added < 12
    for name in ("codes.faiss", "names.json"):
        assert (index / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such lock")
def test_a_second_process_is_refused(photos: Path, tmp_path: Path) -> None:
    update_index(photos, tmp_path / "index", "bingan256-lite")
    with alone_in(tmp_path / "index"), pytest.raises(UsageError, match="another process works in"):
        update_index(photos, tmp_path / "index", "bingan256-lite")


def test_a_network_for_whole_pictures(photos: Path, tmp_path: Path) -> None:
    network = ImageDiscriminator(32).eval()
    save_weights(tmp_path / "picture.safetensors", network, {})
    path = str(tmp_path / "picture.safetensors")
    summary = update_index(photos, tmp_path / "index", path)
    assert summary.bits == 32
    found = search_index.search_index(tmp_path / "index", photos / "p3 0.png", 1, path)
    assert found[0].distance == 0
    with pytest.raises(UsageError, match="no weights 'picture'"):
        search_index.search_index(tmp_path / "index", photos / "p3 0.png")


def test_bad_input_is_a_sentence(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    update_index(photos, index, "bingan256")
    with pytest.raises(UsageError, match=r"was made with bingan256 \(sha256 .*, not with bingan256-published"):
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
        update_index(photos, index, "bingan256")


def test_commands(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index, page = str(tmp_path / "index"), tmp_path / "found.html"
    assert cli.main(["index", str(photos), index]) == 0
    assert "added" in capsys.readouterr().out
    query = str(photos / "p1 1.png")
    assert cli.main(["search", index, query, "--top", "3", "--out", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["found"]
    assert found[0]["name"] == "p1 1.png"
    assert page.is_file()
    assert cli.main(["search", index, query]) == 0
    assert "distance" in capsys.readouterr().out
    assert cli.main(["search", str(photos), query]) == 2
    if BROWSER is not None:
        script = """
        const shown = [...document.querySelectorAll(".photo img")];
        return {count: shown.length, wide: shown.filter(image => image.naturalWidth > 100).length,
                text: document.querySelector(".photo figcaption").textContent};
        """
        answer = ask(page, script, tmp_path)
        assert answer["problems"] == []
        assert (answer["count"], answer["wide"]) == (3, 3)
        assert "p1 1.png, 0 of 2048 bits differ" in answer["text"]
