from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from kornia_bingan import cli
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.fetch import local_photos
from tests.helpers.photos import write_photos

FEW = ["--descriptor", "bingan256-lite", "--max-keypoints", "200"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = write_photos(tmp_path / "photos", 3)
    (folder / "sub dir").mkdir()
    (folder / "photo1.png").rename(folder / "sub dir" / "\u00fc 1.PNG")
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


@pytest.fixture
def url(photos: Path) -> Iterator[str]:
    """The same photos in memory."""
    store = fsspec.filesystem("memory")
    store.put(f"{photos}/", "/bucket/photos/", recursive=True)
    yield "memory://bucket/photos"
    store.rm("/bucket", recursive=True)


def test_a_url_gives_the_files_of_a_folder(photos: Path, url: str, tmp_path: Path) -> None:
    for number, source in enumerate((str(photos), url, f"file://{photos}")):
        assert cli.main(["describe", source, str(tmp_path / f"out{number}"), *FEW]) == 0
        files = {path.relative_to(tmp_path / f"out{number}"): path for path in tmp_path.glob(f"out{number}/**/*.npz")}
        assert len(files) == 3
        for name, path in files.items():
            assert path.read_bytes() == (tmp_path / "out0" / name).read_bytes()
    fetched = sorted(path.name for path in (tmp_path / "out1.photos").rglob("*") if path.is_file())
    assert fetched == [".fetched.json", ".lock", "photo0.png", "photo2.png", "\u00fc 1.PNG"]


def test_photos_are_fetched_once_changed_ones_again_and_gone_ones_are_removed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.filesystem("memory")
    real, fetched = type(store).get_file, []

    def get_file(self: object, path: str, *arguments: object, **settings: object) -> None:
        fetched.append(path)
        real(self, path, *arguments, **settings)

    monkeypatch.setattr(type(store), "get_file", get_file)
    folder = local_photos(url, tmp_path / "out")
    assert folder == tmp_path / "out.photos"
    assert len(fetched) == 3
    assert local_photos(url, tmp_path / "out") == folder
    assert len(fetched) == 3
    store.pipe_file("/bucket/photos/photo0.png", b"changed")
    store.rm_file("/bucket/photos/photo2.png")
    (folder / "sub dir" / "\u00fc 1.PNG").write_bytes(b"cut")
    local_photos(url, tmp_path / "out")
    assert sorted(fetched[3:]) == ["/bucket/photos/photo0.png", "/bucket/photos/sub dir/\u00fc 1.PNG"]
    assert (folder / "photo0.png").read_bytes() == b"changed"
    assert not (folder / "photo2.png").exists()


def test_a_transfer_that_breaks_off_leaves_no_half_and_goes_on(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.filesystem("memory")
    real = type(store).get_file

    def get_half(self: object, path: str, target: str, **settings: object) -> None:
        real(self, path, target, **settings)
        if "photo2" in path:
            Path(target).write_bytes(Path(target).read_bytes()[:100])

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "get_file", get_half)
        with pytest.raises(JobError, match=r"photos cannot be fetched: photo2\.png arrived with 100 of \d+ bytes"):
            local_photos(url, tmp_path / "out")
    folder = tmp_path / "out.photos"
    assert sorted(path.name for path in folder.iterdir()) == [".fetched.json", ".lock", "photo0.png"]
    assert list(json.loads((folder / ".fetched.json").read_text())) == ["photo0.png"]
    local_photos(url, tmp_path / "out")
    assert len(list(folder.rglob("*.[pP][nN][gG]"))) == 3


def test_bad_urls_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, sentence in (
        ("nowhere://a", "is no URL that fsspec knows"),
        ("memory://empty", "holds no photos"),
        ("smb://a/b", r"needs fsspec .* and its part for such URLs: .*smbprotocol"),
    ):
        with pytest.raises((UsageError, JobError), match=sentence):
            local_photos(url, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"pip install 'kornia_bingan\[remote\]'"):
        local_photos("memory://a", tmp_path / "out")
    assert local_photos("plain/folder", tmp_path / "out") == Path("plain/folder")
