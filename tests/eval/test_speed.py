from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from eval.cost import speed, speed_changes, speed_matching, speed_networks, speed_pipeline, train_speed
from eval.harness.timing import machine_rates, take_turns
from eval.show import speed_tables
from kornia_bingan import bits
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import detect, support_regions
from kornia_bingan.matching import match
from kornia_bingan.network.inference import FoldedNetwork
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.patches import build_pyramid
from kornia_bingan.work.files import write_json
from kornia_bingan.work.provenance import provenance
from tests.helpers.once import lite_onnx
from tests.helpers.photos import texture


def test_functions_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    seconds = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}
    assert all(value > 1e6 for value in machine_rates().values())


def test_cv2_matches_as_we_do() -> None:
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (900, 32), np.uint8)
    first, second = speed_matching.two_sets(real, 400, rng)
    assert first.shape == second.shape == (400, 32)
    _, expected = match(first, second, "smnn", speed_matching.RATIO)
    assert len(expected) == pytest.approx(120, abs=15)
    np.testing.assert_array_equal(speed_matching.cv2_mutual(first, second), expected)


def test_every_part_gives_its_rows_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_networks, "export_onnx", lambda name, path: shutil.copy(lite_onnx(), path))
    rates = machine_rates()  # once for all parts, and each function runs once after its warm-up
    for part in (speed_networks, speed_matching, speed_pipeline):
        monkeypatch.setattr(part, "machine_rates", lambda: rates)
    for part in (speed_networks, speed_matching, speed_pipeline, speed_changes):
        monkeypatch.setattr(part, "take_turns", lambda functions, *_: take_turns(functions, 1))
    rng = np.random.default_rng(0)
    image = texture(200, 300)
    keypoints = detect(image, "dog", 150)
    views = speed_networks.two_views(build_pyramid(image), support_regions(keypoints)[:32])
    networks = speed_networks.measure(["bingan256-lite"], views)
    by_form = {row["form"]: row for row in networks if row["network"] == "bingan256-lite"}
    assert by_form[speed_networks.REFERENCE]["flipped_bits"] == 0
    assert by_form["folded, float32"]["flipped_bits"] < 1e-4
    assert 0 < by_form["folded, bfloat16"]["flipped_bits"] < 0.01
    assert by_form["folded, bfloat16"]["flipped_bits"] < by_form["onnxruntime, int8"]["flipped_bits"] < 0.1
    assert {row["network"] for row in networks} >= {"published", "hardnet", "sosnet", "hynet", "tfeat"}
    codes = rng.integers(0, 256, (100, 32), np.uint8)
    matching = speed_matching.measure(codes, 100 * rng.random((200, 128), np.float32), sizes=(100,))
    assert matching[0]["matcher"] == "ours"
    assert "COLMAP, SIFT" in {row["matcher"] for row in matching}
    cutting = speed_pipeline.cutting(image, keypoints)
    record = {
        "command": "made by a test",
        "networks": [{"threads": 1, **row} for row in networks],
        "matching": [{"threads": 1, **row} for row in matching],
        "cutting": [{"threads": 1, **row} for row in cutting],
        "pipeline": [{"pipeline": "ours", "stage": "map", "seconds": 1.25}],
        "memory": [{"job": "match", "peak_mb": 1000.5, "above_start_mb": 3.0}],
        "provenance": provenance(),
    }
    threaded: Any = record
    record["optimisations"] = [
        *speed_changes.of_networks(threaded["networks"]),
        *speed_changes.of_layers(["bingan256-lite"], views[0]),
        *speed_changes.of_arrays(build_pyramid(image), np.tile(support_regions(keypoints), (10, 1, 1))),
        *speed_changes.of_matching([{"matcher": "faiss, both directions", "codes": 8000, "times_slower": 1.4}]),
    ]
    for name in (speed_tables.SPEED, speed_tables.FLOAT32):
        write_json(tmp_path / f"{name}.json", record)
    monkeypatch.setattr("eval.show.markdown.RESULTS", tmp_path)
    tables = {name: table() for name, table in speed_tables.TABLES.items() if name.startswith("speed-")}
    assert all("made by a test" in text for text in tables.values())
    assert "| ours | map | 1.25 |" in tables["speed-pipeline"]
    assert tables["speed-optimisations"].count("\n| bingan256-lite |") == 8
    assert tables["speed-optimisations"].count("\n|  | ") == 4


@torch.no_grad()
def test_former_forms_compute_the_same() -> None:
    patches = torch.rand(20, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in ("bingan256", "bingan256-lite"):
        now = FoldedNetwork(load_weights(find_weights(name)), "float32")  # type: ignore[arg-type]
        expected = now.describe(patches)
        if now.quartered:
            former = speed_changes._with_whole_first_layer(now)
            assert not former.quartered
            torch.testing.assert_close(former.describe(patches), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(speed_changes.packed_by_sums(expected >= 0), bits.pack(expected))


def test_memory_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), texture(150, 200))
    describing, matching = speed_pipeline.memory(tmp_path / "photo.png", "bingan256-lite", 2000, (1000, 1000))
    assert describing["job"] == "describe a picture of 1 megapixels with bingan256-lite"
    assert describing["peak_mb"] < 1024
    assert describing["above_start_mb"] > 1000 * 1000 * 4 / 1e6, "the picture in floating point alone"
    assert 0 <= matching["above_start_mb"] < 100


def test_reconstruction_beside_colmap(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_pipeline, "MAX_KEYPOINTS", 1000)
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((shared_data / "validate" / "herz_jesus" / "images").iterdir())[:3]:
        cv2.imwrite(str(photos / path.name), cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_4))
    rows = speed_pipeline.end_to_end(photos, ["bingan256-lite"], 1)
    seconds = {(row["pipeline"], row["stage"]): row["seconds"] for row in rows}
    assert seconds["COLMAP, SIFT", "before mapping"] > 0
    total = sum(seconds["bingan256-lite", stage] for stage in speed_pipeline.BEFORE_MAPPING)
    assert seconds["bingan256-lite", "before mapping"] == pytest.approx(total, abs=0.05)


def test_unknown_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no part 'everything'"):
        speed.main([str(tmp_path / "photo.png"), "--parts", "everything"])


def test_steps_of_training_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_speed, "PATCHES", 2)
    monkeypatch.setattr(train_speed, "WARM_UP", 0)
    seconds = train_speed.measure(1)
    assert set(seconds) == {"straightforward", "ours float32", "ours bfloat16"}
    assert min(seconds.values()) > 0
