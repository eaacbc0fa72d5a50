from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cost import scale
from eval.show import speed_tables
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import read_image
from tests.helpers.photos import write_photos


def test_costs_go_on_by_their_power_law() -> None:
    rows = [
        {"kind": "codes", "stage": "match", "photos": photos, "seconds": 0.002 * photos**1.5, "bytes": 32 * photos}
        for photos in (100, 1000, 10_000)
    ]
    rows.append({"kind": "photos", "stage": "map", "photos": 100, "seconds": 1.0})
    fitted = scale.growth(rows)
    assert [(row["cost"], row["exponent"]) for row in fitted] == [("seconds", 1.5), ("bytes", 1.0)]
    assert fitted[0]["at 1,000,000"] == pytest.approx(2_000_000)
    assert fitted[1]["at 100,000,000"] == 3_200_000_000


def test_photos_come_again_under_a_warp(tmp_path: Path) -> None:
    write_photos(tmp_path / "scene" / "images", 2, (480, 1280))
    scale.write_photos([tmp_path / "scene"], 4, tmp_path / "photos")
    pictures = [read_image(tmp_path / "photos" / name) for name in list_images(tmp_path / "photos")[0]]
    assert [picture.shape for picture in pictures] == [(240, 640)] * 4
    assert np.abs(pictures[0].astype(float) - pictures[2]).mean() > 5
    (tmp_path / "empty" / "images").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds no photos"):
        scale.write_photos([tmp_path / "empty"], 1, tmp_path / "none")


def test_pairs_of_synthetic_photos_are_those_of_one_place() -> None:
    rows = {row["stage"]: row for row in scale.codes_here(None, count=40, with_retrieval=True)}
    assert rows["pairs, retrieval"]["true_pairs"] == 1
    assert rows["pairs, retrieval"]["bytes"] == 40 * 600 * 32
    assert rows["pairs, sequential"]["pairs"] == sum(min(10, 39 - k) for k in range(40))
    assert rows["match, sample scaled up"]["bytes"] >= 8 * 300 * rows["pairs, retrieval"]["pairs"]


def test_a_run_writes_rows_growth_plot_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "scene" / "images", 3)
    run_in_child = scale.run_in_child

    def run(function: str, arguments: dict[str, Any], stage: str) -> Any:
        """Two processes less; the third shows that what runs there can be reached."""
        here = function.endswith(":codes_here")
        return scale.codes_here(None, **arguments) if here else run_in_child(function, arguments, stage=stage)

    monkeypatch.setattr(scale, "run_in_child", run)
    out = tmp_path / "scale.json"
    words = [str(tmp_path / "scene"), "--sizes", "10", "--codes", "10,20", "--out", str(out), "--most-retrieval", "10"]
    assert scale.main(words) == 0
    record = json.loads(out.read_text())
    stages = [row["stage"] for row in record["results"] if row["kind"] == "photos"]
    assert stages[:3] == ["describe", "match", "verify"]
    assert stages[-1] == "map, global"
    assert all(row["seconds"] > 0 and row["bytes"] > 0 for row in record["results"][:3])
    assert [row["photos"] for row in record["results"] if row["stage"] == "pairs, retrieval"] == [10]
    assert (tmp_path / "scale.svg").read_text().startswith("<svg")
    monkeypatch.setattr("eval.show.markdown.RESULTS", tmp_path)
    shutil.copy(out, tmp_path / "scale-codes.json")
    assert "| codes only | 20 | pairs, gps |" in speed_tables.TABLES["scale"]()
    assert "| codes only | pairs, gps | bytes | 1.00 | 19,200,000,000 |" in speed_tables.growth()


def test_sizes_are_numbers_of_photos() -> None:
    with pytest.raises(UsageError, match="'10,few' are no numbers"):
        scale.main(["scene", "--sizes", "10,few"])
