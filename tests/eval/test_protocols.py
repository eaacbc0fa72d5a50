"""Homography sequences, two-view pose and thresholds on data whose truth is known by construction."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from eval.cost import speed
from eval.harness import options
from eval.harness.data import HomographySequence, PosedPair, find_scenes, pairs_of_scene, read_scene
from eval.quality import calibrate, hpatches, m95, pairs, robustness, thresholds
from eval.show import pictures
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.matching import Calibration, match_probability
from tests.helpers.photos import texture
from tests.helpers.scenes import copy_scene

NAMES = "rootsift,orb"
OURS = "bingan256-lite"
WORDS = ("--peers", NAMES, "--ours", OURS, "--regions", "usual")


@pytest.fixture(scope="module", autouse=True)
def _few_keypoints() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for module in (hpatches, m95, pairs, robustness, speed):
            patched.setattr(module, "MAX_KEYPOINTS", 500)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene of three views and a homography sequence of two pictures."""
    folder = tmp_path_factory.mktemp("protocols") / "made"
    copy_scene(folder / "room", 3, half=True)
    sequence = folder / "homography" / "oxford_made"
    sequence.mkdir(parents=True)
    image = texture(300, 400, 2)
    H = np.array([[0.9, 0.1, 10], [-0.1, 0.95, 25], [1e-4, 0, 1.0]])
    cv2.imwrite(str(sequence / "1.png"), image)
    cv2.imwrite(str(sequence / "2.png"), cv2.warpPerspective(image, H, (400, 300)))
    np.savetxt(sequence / "H_1_2", H)
    return folder


@pytest.fixture(scope="module")
def ratios(data: Path) -> Iterator[Path]:
    path = data.parent / "thresholds.json"
    words = [str(data), *WORDS, "--cache", str(data.parent / "cache"), "--out", str(path)]
    assert thresholds.main(words) == 0
    with pytest.MonkeyPatch.context() as patched:
        for module in (hpatches, pairs, pictures, robustness):
            patched.setattr(module, "read_thresholds", lambda: thresholds.read_thresholds(path))
        yield path


def keypoints_at(xy: np.ndarray) -> Keypoints:
    one = np.ones(len(xy), np.float32)
    return Keypoints(xy.astype(np.float32), 8 * one, 0 * one, one, np.full(len(xy), 257, np.int32))


def test_thresholds_are_ratios_and_named(ratios: Path, data: Path) -> None:
    found = thresholds.read_thresholds(ratios)
    assert {"rootsift", "orb", OURS, f"{OURS}/float"} == set(found)
    assert all(0.3 < found[name] <= 1 for name in ("rootsift", OURS))
    assert str(data.parent) not in ratios.read_text()
    with pytest.raises(UsageError, match="teblid256 has no threshold"):
        thresholds.threshold_of(found, "teblid256")
    with pytest.raises(UsageError, match="makes it"):
        thresholds.read_thresholds(ratios.parent / "absent.json")


def test_pictures_of_two_sizes_and_perfect_matches_give_no_error() -> None:
    """The second picture is twice as large; the truth maps pixel centres, so errors are in the second's pixels."""
    H = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1.0]])
    xy = np.random.default_rng(0).uniform(10, 190, (60, 2))
    images = (texture(200, 200), texture(400, 400))
    codes = np.random.default_rng(1).integers(0, 256, (60, 32), dtype=np.uint8)
    sequence = HomographySequence("made", "other", images, (H,))
    points = [keypoints_at(xy), keypoints_at(2 * xy + 0.5)]
    (result,) = hpatches.evaluate(lambda _image, _points: codes, "hamming", 0.9, sequence, points)
    assert (result.matches, result.correct, result.repeatable, result.visible) == (60, 60, 60, 60)
    assert result.within == (1.0, 1.0, 1.0, 1.0)
    assert result.corner_error_px < 0.05
    assert hpatches.corner_error_px(np.eye(3), np.array([[1, 0, 3], [0, 1, 4], [0, 0, 1.0]]), (100, 50)) == 5


def sequence_result(sequence: str, number: int, error_px: float) -> hpatches.PairResult:
    share = (1.0, 1.0, 1.0, 1.0) if error_px == 0 else (0.0, 0.0, 0.0, 0.0)
    return hpatches.PairResult(sequence, "oxford", number, 10, share, 10, 10, int(10 * share[0]), error_px)


def test_intervals_of_homographies_are_over_sequences() -> None:
    """One of two sequences succeeds in all of its pairs, the other in none: with two draws all or nothing may come."""
    results = [sequence_result("good", k, 0.0) for k in range(20)]
    results += [sequence_result("bad", k, float("inf")) for k in range(20)]
    scores = hpatches.summarise(results)
    assert scores["auc"]["3"] == 0.5
    assert scores["auc3_interval"] == [0, 1]
    assert scores["mma3_interval"] == [0, 1]


def test_intervals_of_poses_are_over_photos_or_over_pairs_without_a_common_one(data: Path) -> None:
    image, eye = np.zeros((2, 2), np.uint8), np.eye(3)

    def made(names: list[tuple[str, str]]) -> list[PosedPair]:
        return [PosedPair(" ".join(n), n, image, image, eye, eye, eye, np.ones(3)) for n in names]

    counts = pairs.draws_of(made([("a", "b"), ("b", "c"), ("d", "e")]), None)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 1])
    assert set(counts[:, 2]) == {0, 1, 2}
    counts = pairs.draws_of(made([("a", "b"), ("a", "c"), ("b", "c"), ("x", "y")]), ["1", "1", "1", "2"])
    assert (counts[:, 3] == 1).all()
    assert {tuple(row) for row in counts[:, :3]} == {(1, 1, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2)}
    results = [{"error_deg": e, "matches": 1, "inliers": 1} for e in (0.0, None, None, 0.0)]
    scores = pairs.summarise(results, counts)
    assert scores["auc"]["10"] == 0.5
    # the pair of the second scene and (1 of 3) or (2 of 2) or (0 of 2) of the first
    assert scores["auc10_interval"] == [pytest.approx(1 / 3, abs=1e-4), 1]
    scene = read_scene(data / "room")
    assert pairs_of_scene(scene, 1)[0].photos == (f"room/{scene.names[0]}", f"room/{scene.names[1]}")


def test_homography_command(data: Path, ratios: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "hpatches.json"
    words = [str(data), *WORDS, "--out", str(out), "--cache", str(data.parent / "cache")]
    assert hpatches.main(words) == 0
    rows = {row["descriptor"]: row for row in json.loads(out.read_text())["results"]}
    for name in ("rootsift", OURS):
        assert rows[name]["mma"]["3"] > 0.9
        assert rows[name]["auc"]["3"] > 0.7
        assert rows[name]["matching_score"] <= rows[name]["repeatable"]
    assert "AUC@3" in capsys.readouterr().out


def test_pose_errors_by_hand() -> None:
    turn = cv2.Rodrigues(np.array([0, np.deg2rad(10), 0]))[0]
    t = np.array([1.0, 0, 0])
    assert pairs.pose_error_deg(turn, t, np.eye(3), t) == pytest.approx(10)
    assert pairs.pose_error_deg(np.eye(3), -t, np.eye(3), t) == pytest.approx(0)
    assert pairs.pose_error_deg(np.eye(3), np.array([1.0, 1, 0]), np.eye(3), t) == pytest.approx(45)


def test_true_points_give_the_true_pose(data: Path) -> None:
    scene = read_scene(data / "room")
    pair = pairs_of_scene(scene, 1)[0]
    points = np.random.default_rng(0).uniform([-1, -1, 4], [1, 1, 7], (200, 3))
    moved = points @ pair.R.T + pair.t
    projected = [p @ K.T for p, K in ((points, pair.K0), (moved, pair.K1))]
    xy0, xy1 = (p[:, :2] / p[:, 2:] for p in projected)
    pose = pairs.estimate_pose(xy0, xy1, pair)
    assert pose is not None
    assert pairs.pose_error_deg(pose[0], pose[1], pair.R, pair.t) < 0.05
    assert pairs.estimate_pose(xy0[:4], xy1[:4], pair) is None


def test_cameras_may_be_those_of_a_model(data: Path, tmp_path: Path) -> None:
    """The text format of COLMAP's documentation; its first pixel has the centre (0.5, 0.5)."""
    scene, model = read_scene(data / "room"), tmp_path / "room" / "sparse" / "0"
    model.mkdir(parents=True)
    shutil.copytree(data / "room" / "images", tmp_path / "room" / "images")
    assert scene.cameras is not None
    cameras, images = [], []
    for number, (name, camera) in enumerate(zip(scene.names, scene.cameras, strict=True), 1):
        K, R = camera.K, camera.R
        focal = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
        cameras.append(" ".join(map(str, [number, "PINHOLE", camera.width, camera.height, *map(float, focal)])))
        turn = pycolmap.Rotation3d(R).quat  # x, y, z, w
        images.append(" ".join(map(str, [number, turn[3], *turn[:3], *camera.t, number, name])) + "\n")
    (model / "cameras.txt").write_text("\n".join(cameras) + "\n")
    (model / "images.txt").write_text("\n".join(images) + "\n")
    (model / "points3D.txt").write_text("")
    assert find_scenes(tmp_path, with_cameras=True) == [tmp_path / "room"]
    found = read_scene(tmp_path / "room").cameras
    assert found is not None
    for camera, expected in zip(found, scene.cameras, strict=True):
        for name in "KRt":
            np.testing.assert_allclose(getattr(camera, name), getattr(expected, name), atol=1e-6)
        assert (camera.width, camera.height) == (expected.width, expected.height)
    (model / "cameras.txt").write_text("\n".join(cameras).replace("PINHOLE", "SIMPLE_RADIAL") + "\n")
    with pytest.raises(UsageError, match="is SIMPLE_RADIAL; undistort it by bingan scene"):
        read_scene(tmp_path / "room")


def test_pose_command_with_scenes(data: Path, ratios: Path, tmp_path: Path) -> None:
    scene = read_scene(data / "room")
    pair = pairs_of_scene(scene, 1)[0]
    folder = tmp_path / "two"
    (folder / "images").mkdir(parents=True)
    cv2.imwrite(str(folder / "images" / "a.png"), pair.image0)
    cv2.imwrite(str(folder / "images" / "b.png"), pair.image1)
    entry = {"image0": "a.png", "image1": "b.png", "K0": pair.K0.tolist(), "K1": pair.K1.tolist()}
    entry |= {"R_0to1": pair.R.tolist(), "t_0to1": pair.t.tolist(), "size0": [400, 300], "size1": [400, 300]}
    (folder / "pairs.json").write_text(json.dumps({"pairs": [entry]}))
    out = tmp_path / "pairs.json"
    words = [str(folder), "--scenes", str(data), *WORDS, "--out", str(out), "--cache", str(data.parent / "cache")]
    assert pairs.main(words) == 0
    rows = {(row["part"], row["descriptor"]): row for row in json.loads(out.read_text())["results"]}
    assert rows["scenes", OURS]["auc"]["10"] > 0.8
    assert rows["pairs", OURS]["inliers"] > 50
    assert isinstance(pair, PosedPair)
    assert options.RESULTS.name == "results"


def test_pictures_of_matches(data: Path, ratios: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    words = [str(data), *WORDS, "--out", str(out), "--cache", str(data.parent / "cache")]
    assert pictures.main(words) == 0
    rows = json.loads((out / "pictures.json").read_text())["results"]
    expected = {f"{name}-{peer}.jpg" for name in ("room", "oxford_made") for peer in ("rootsift", "orb", OURS)}
    assert {row["file"] for row in rows} == expected
    for row in rows:
        image = cv2.imread(str(out / row["file"]))
        assert image.shape[1] == pictures.WIDTH
        correct, matches = (
            int(word.replace(",", "")) for word in re.findall(r"[\d,]*\d(?= |$)", row["text"].split(": ")[1])
        )
        assert 0 <= correct <= matches
        if OURS in row["file"]:
            assert correct > 0.8 * matches > 20
            green = (image[:, :, 1].astype(int) - image[:, :, 2] > 60).sum()
            assert green > 1000


def test_wrong_matches_are_red_and_on_top() -> None:
    images = (np.zeros((40, 60), np.uint8), np.zeros((30, 60), np.uint8))
    xy = np.array([[10.0, 10], [10, 10]])
    drawn = pictures.draw(images, xy, xy, np.array([False, True]), width=240)
    assert drawn.shape == (80, 240, 3)
    assert np.abs(drawn[20, 80].astype(int) - pictures.RED).max() < 20


def test_speed_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = data / "homography" / "oxford_made" / "1.png"
    out = tmp_path / "speed.json"
    assert speed.main([str(photo), *WORDS[:4], "--repeats", "2", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert [row["descriptor"] for row in record["results"]] == [
        "rootsift",
        "orb",
        OURS,
        f"{OURS}/float",
        f"{OURS}, as commands run it",
    ]
    for row in record["results"]:
        assert row["keypoints_per_second"] == pytest.approx(record["keypoints"] / row["seconds"], rel=0.01)
    assert "keypoints / s" in capsys.readouterr().out
    flat = tmp_path / "flat.png"
    cv2.imwrite(str(flat), np.full((100, 100), 90, np.uint8))
    with pytest.raises(UsageError, match=r"flat\.png has no keypoints"):
        speed.main([str(flat), "--peers", NAMES])
    with pytest.raises(UsageError, match="--threads is 0"):
        speed.main([str(photo), "--threads", "0"])


@pytest.mark.parametrize("change", ["rotation", "scale", "tilt"])
def test_geometric_changes_and_their_homographies_agree(change: str) -> None:
    image = cv2.GaussianBlur(texture(200, 300, 1), (0, 0), 3)
    apply, strengths, _ = robustness.CHANGES[change]
    for strength in strengths[:4]:
        copy, H = apply(np.asarray(image), strength)
        there = cv2.warpPerspective(image, H, copy.shape[::-1], flags=cv2.INTER_AREA)
        inside = cv2.warpPerspective(np.full_like(image, 255), H, copy.shape[::-1]) == 255
        inside = cv2.erode(inside.astype(np.uint8), np.ones((9, 9))) > 0
        assert inside.mean() > 0.3
        assert np.abs(copy.astype(int) - there)[inside].mean() < 4, strength


def test_changes_of_grey_values_stay_in_range() -> None:
    image = texture(60, 80, 1)
    for change in ("brightness", "gamma", "blur", "jpeg", "noise"):
        apply, strengths, _ = robustness.CHANGES[change]
        for strength in strengths:
            copy, H = apply(image, strength)
            assert copy.dtype == np.uint8
            assert copy.shape == image.shape
            np.testing.assert_array_equal(H, np.eye(3))
    np.testing.assert_array_equal(robustness.CHANGES["gamma"][0](image, 1)[0], image)
    assert robustness.CHANGES["brightness"][0](image, 0.5)[0].mean() == pytest.approx(image.mean() / 2, rel=0.02)


def test_robustness_command(
    data: Path, ratios: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {name: (apply, strengths[:2], unit) for name, (apply, strengths, unit) in robustness.CHANGES.items()}
    monkeypatch.setattr(robustness, "CHANGES", {name: few[name] for name in ("rotation", "noise")})
    out = tmp_path / "robustness.json"
    words = [str(data), *WORDS, "--out", str(out), "--cache", str(data.parent / "cache")]
    assert robustness.main(words) == 0
    rows = {(row["change"], row["descriptor"]): row for row in json.loads(out.read_text())["results"]}
    assert set(rows) == {(c, p) for c in ("rotation", "noise") for p in ("rootsift", "orb", OURS, f"{OURS}/float")}
    assert rows["noise", OURS]["score"][0] > 0.9, "the same picture"
    assert rows["noise", OURS]["score"][1] < rows["noise", OURS]["score"][0]
    assert out.with_suffix(".svg").is_file()
    assert "rotation (degrees)" in capsys.readouterr().out


def test_a_logistic_model_is_found_again() -> None:
    rng = np.random.default_rng(0)
    distance, ratio = rng.uniform(0, 128, 40_000), rng.uniform(0.3, 1, 40_000)
    truth = Calibration(6.0, -9.0, -4.0)
    p = match_probability(distance, ratio, 256, truth)
    correct = rng.random(len(p)) < p
    found = calibrate.fit(distance, ratio, correct, np.ones(len(p)), 256)
    assert vars(found) == pytest.approx(vars(truth), rel=0.06)
    judged = calibrate.reliability(match_probability(distance, ratio, 256, found), correct)
    assert judged["calibration_error"] < 0.01
    assert judged["brier"] < 0.25
    assert calibrate.reliability(np.full(100, 0.9), np.arange(100) < 50)["calibration_error"] == pytest.approx(0.4)
    with pytest.raises(UsageError, match="right and wrong"):
        calibrate.fit(distance, ratio, np.ones(len(p), bool), np.ones(len(p)), 256)


def test_calibration_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "calibration.json"
    assert calibrate.main([str(data), "--ours", OURS, "--out", str(out), "--cache", str(data.parent / "cache")]) == 0
    record = json.loads(out.read_text())
    assert record["bits"] == 256
    assert record["calibration"]["distance"] < 0
    assert record["results"] == [], "one scene cannot be left out"
    assert "Calibration(" in capsys.readouterr().out
