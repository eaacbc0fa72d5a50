from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kornia_bingan.cli import entry
from kornia_bingan.errors import UsageError
from kornia_bingan.search import duplicates
from kornia_bingan.search.duplicates import Group, find_duplicates, group_codes
from kornia_bingan.search.index import update_index
from kornia_bingan.search.page import write_duplicates_page
from tests.helpers.photos import texture

LITE = "bingan256-lite"


def flipped(code: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    bits = np.unpackbits(code)
    bits[:count] ^= 1
    return np.packbits(bits)


def test_groups_go_on_through_others() -> None:
    rng = np.random.default_rng(0)
    one, two, alone = rng.integers(0, 256, (3, 32), dtype=np.uint8)
    chain = [flipped(one, 4 * step) for step in range(6)]  # the ends differ in 20 bits
    codes = np.stack([two, chain[3], alone, chain[0], chain[5], two, chain[1], chain[4], chain[2]])
    assert [rows.tolist() for rows in group_codes(codes, 4)] == [[1, 3, 4, 6, 7, 8], [0, 5]]
    assert [rows.tolist() for rows in group_codes(codes, 3)] == [[0, 5]]
    assert [rows.tolist() for rows in group_codes(codes, 0)] == [[0, 5]]
    assert group_codes(codes[2:3], 256) == group_codes(codes[:0], 4) == []
    assert [rows.tolist() for rows in group_codes(codes, 256)] == [list(range(9))]


def test_groups_do_not_depend_on_parts_or_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 4, (300, 1), dtype=np.uint8) * 3
    codes = np.concatenate([codes, rng.integers(0, 256, (300, 1), dtype=np.uint8)], 1)
    expected = {tuple(rows.tolist()) for rows in group_codes(codes, 2)}
    monkeypatch.setattr(duplicates, "_QUERIES", 7)
    assert {tuple(rows.tolist()) for rows in group_codes(codes, 2)} == expected
    order = rng.permutation(len(codes))
    assert {tuple(sorted(order[rows].tolist())) for rows in group_codes(codes[order], 2)} == expected


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(4):
        picture = texture(96, 96, seed)
        cv2.imwrite(str(folder / f"{seed}.png"), picture)
        if seed < 2:
            cv2.imwrite(str(folder / f"{seed} darker.jpg"), (0.7 * picture).astype(np.uint8))
    cv2.imwrite(str(folder / "0 small.png"), cv2.resize(texture(96, 96, 0), (48, 48), interpolation=cv2.INTER_AREA))
    return folder


@pytest.mark.parametrize("store", ["", "lancedb://"])
def test_changed_copies_are_found(pictures: Path, tmp_path: Path, store: str) -> None:
    index = f"{store}{tmp_path / 'index'}"
    summary = update_index(pictures, index, LITE, kind="patch")
    assert (summary.photos, summary.bits) == (7, 256)
    groups = find_duplicates(index)
    assert [group.names for group in groups] == [("0 darker.jpg", "0 small.png", "0.png"), ("1 darker.jpg", "1.png")]
    assert all(group.distances[0] == 0 and max(group.distances) <= 40 for group in groups)
    assert [len(group.names) for group in find_duplicates(index, 256)] == [7]


def test_the_commands_index_and_group_pictures(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, page = tmp_path / "index", tmp_path / "page.html"
    assert entry.main(["index", str(pictures), str(index), "--code", "patch"]) == 0
    capsys.readouterr()
    assert entry.main(["duplicates", str(index), "--json", "--out", str(page)]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert [group["names"] for group in groups] == [["0 darker.jpg", "0 small.png", "0.png"], ["1 darker.jpg", "1.png"]]
    text = page.read_text(encoding="utf-8")
    assert "5 photos in 2 groups" in text
    assert text.count("<figure>") == len(re.findall('<figure><img [^>]*src="data:image/', text)) == 5
    assert entry.main(["index", str(pictures), str(index)]) == 2
    assert "give the same --descriptor and --code" in capsys.readouterr().err
    assert entry.main(["search", str(index), str(pictures / "1.png"), "--top", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["found"]
    assert [one["name"] for one in found] == ["1.png", "1 darker.jpg"]
    assert found[0]["distance"] == 0


def test_pictures_that_do_not_fit_on_the_page_are_counted(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_index(pictures, tmp_path / "index", LITE, kind="patch")
    monkeypatch.setattr("kornia_bingan.search.page.MOST_SHOWN", 4)
    groups = [Group(("0.png", "1.png", "2.png"), (0, 1, 2)), Group(("3.png", "gone.png"), (0, 3))]
    write_duplicates_page(tmp_path / "page.html", tmp_path / "index", groups)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "5 photos in 2 groups" in text
    assert "1 photos are not shown" in text
    assert text.count("<figure>") == 4


def test_wrong_use_is_said(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="describes patches, which gives no codes of kind 'picture'"):
        update_index(pictures, tmp_path / "index", LITE, kind="picture")
    with pytest.raises(UsageError, match="describes whole pictures, which gives no codes of kind 'patch'"):
        update_index(pictures, tmp_path / "index", "bingan64-pictures", kind="patch")
    update_index(pictures, tmp_path / "index", "bingan64-pictures", kind="picture")
    with pytest.raises(UsageError, match="64 bits of kind 'picture'; say by --most"):
        find_duplicates(tmp_path / "index")
    assert find_duplicates(tmp_path / "index", 64)
    with pytest.raises(UsageError, match="most is -1"):
        find_duplicates(tmp_path / "index", -1)
    with pytest.raises(UsageError, match="holds no index"):
        find_duplicates(tmp_path / "absent")
    (tmp_path / "index" / "names.json").write_text('["other.png"]')
    with pytest.raises(UsageError, match=r"no code of other\.png"):
        find_duplicates(tmp_path / "index", 4)
