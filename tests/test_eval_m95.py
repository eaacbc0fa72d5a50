from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval import m95
from eval.data import read_scene
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints, detect
from kornia_bingan.scene import render_scene
from tests.conftest import texture


def keypoints_at(xy: np.ndarray) -> Keypoints:
    one = np.ones(len(xy), np.float32)
    return Keypoints(xy.astype(np.float32), 8 * one, 0 * one, one, np.full(len(xy), 257, np.int32))


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m95") / "room"
    render_scene(folder, 3)
    return folder


def test_true_points_lie_on_their_epipolar_lines(scene_folder: Path) -> None:
    scene = read_scene(scene_folder)
    assert scene.cameras is not None
    a, b = list(scene.cameras.values())[:2] if isinstance(scene.cameras, dict) else scene.cameras[:2]
    points = np.random.default_rng(0).uniform([-1, -0.5, 0], [1, 0.5, 1], (50, 3)) + a.center + 4 * a.R[2]
    F = m95.fundamental_matrix(a, b)
    xy0, xy1 = a.project(points), b.project(points)
    assert m95.epipolar_errors_px(F, xy0, xy1).max() < 1e-6
    moved = xy1 + np.random.default_rng(1).normal(0, 30, xy1.shape)
    assert np.median(m95.epipolar_errors_px(F, xy0, moved)) > 5


def test_the_epipolar_error_is_the_larger_of_both() -> None:
    """Moved sideways and enlarged by s, a point at height y0 lies at s y0: r off there is r / s off in the other."""
    for enlarged, expected in ((2.0, 3.0), (0.5, 6.0)):
        F = np.array([[0, 0, 0], [0, 0, -1], [0, enlarged, 0]])
        xy0, xy1 = np.array([[5.0, 10.0]]), np.array([[70.0, 10 * enlarged + 3]])
        assert m95.epipolar_errors_px(F, xy0, xy1).tolist() == [expected]


def test_transfer_error_is_that_in_the_coarser_picture() -> None:
    H = np.diag([2.0, 2.0, 1.0])
    xy0 = np.array([[10.0, 20.0]])
    assert m95.transfer_errors_px(H, xy0, np.array([[20.0, 40.0]])).tolist() == [0]
    assert m95.transfer_errors_px(H, xy0, np.array([[24.0, 40.0]])).tolist() == [2]


def test_a_perfect_descriptor_keeps_all_its_matches() -> None:
    """Codes that name their keypoint, on a picture and itself moved by 7 pixels; every second name is wrong."""
    xy = np.random.default_rng(0).uniform(20, 180, (40, 2))
    H = np.array([[1, 0, 7], [0, 1, 0], [0, 0, 1.0]])
    points = (keypoints_at(xy), keypoints_at(xy + np.array([7, 0])))
    images = (texture(200, 200), texture(200, 200, 1))
    codes = np.random.default_rng(1).integers(0, 256, (40, 32), dtype=np.uint8)
    problem = m95.Problem("a", "scene", images, points, ((0, 1),), "homography", H[None])
    result = m95.evaluate(lambda _image, _points: codes, problem, "hamming")
    assert result.correct.all()
    assert len(result.correct) == 40
    wrong = np.roll(codes, 1, axis=0)
    calls = iter([codes, wrong])
    result = m95.evaluate(lambda _image, _points: next(calls), problem, "hamming")
    assert not result.correct.any()


def problem_of(kind: m95.Kind, pairs: tuple[tuple[int, int], ...]) -> m95.Problem:
    return m95.Problem("a", "scene", (), (), pairs, kind, np.zeros((len(pairs), 3, 3)))


def result_of(counts: list[int]) -> m95.Result:
    """So many right matches a pair, and none wrong."""
    pair = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    ratio = np.full(len(pair), 0.5, np.float32)
    return m95.Result(len(counts), pair, ratio, ratio, np.ones(len(pair), bool))


def test_draws_of_a_scene_are_of_photos_and_those_of_a_sequence_of_its_other_pictures() -> None:
    """Of three photos one is drawn twice and one not at all, or each once: the pairs have 1, 10 and 100 matches."""
    result = result_of([1, 10, 100])
    drawn = m95.resampled_m95(problem_of("epipolar", ((0, 1), (0, 2), (1, 2))), result, 200)
    assert set(drawn) == {111, 2, 20, 200}
    drawn = m95.resampled_m95(problem_of("homography", ((0, 1), (0, 2), (0, 3))), result, 200)
    assert set(drawn) == {a + b + c for a in (1, 10, 100) for b in (1, 10, 100) for c in (1, 10, 100)}


def test_totals_draw_sequences_but_not_scenes_and_compare_with_ours() -> None:
    rows, draws = [], {}
    for name, peers in (("s", (10, 30)), ("t", (20, 20))):
        for peer, count in zip(("rootsift", "bingan256"), peers, strict=True):
            rows.append({"data": name, "group": "oxford", "descriptor": peer, "m95": count})
            draws[name, peer] = np.full(300, float(count))
    root, ours = m95.totals(rows, draws, "bingan256")
    assert (root["m95"], root["m95_interval"]) == (30, [20, 40])
    assert (ours["times_rootsift"], ours["times_rootsift_interval"]) == (pytest.approx(5 / 3), [1, 3])
    assert (root["ours_times"], root["ours_times_interval"]) == (pytest.approx(5 / 3), [1, 3])
    assert (ours["ours_times"], ours["ours_times_interval"]) == (1, [1, 1])
    root, _ = m95.totals([{**row, "group": "scene"} for row in rows], draws)
    assert root["m95_interval"] == [30, 30]
    assert "ours_times" not in root


def test_the_command_writes_a_record_and_a_picture(
    scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m95.json"
    words = [
        str(scene_folder.parent),
        "--peers",
        "rootsift,orb",
        "--regions",
        "usual",
        "--out",
        str(out),
        "--cache",
        str(tmp_path / "cache"),
    ]
    assert m95.main(words) == 0
    first = json.loads(out.read_text())
    score = {row["descriptor"]: row["m95"] for row in first["results"]}
    assert score["rootsift"] > score["orb"]
    assert score["bingan256"] > score["orb"]
    assert str(tmp_path) not in out.read_text()
    assert m95.main(words) == 0, "the second run takes the cache"
    assert json.loads(out.read_text())["results"] == first["results"]
    assert "x rootsift" in capsys.readouterr().out
    with pytest.raises(UsageError):
        m95.main([str(tmp_path / "absent")])


def test_sequences_with_homographies(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "homography" / "oxford_made"
    folder.mkdir(parents=True)
    image = texture(240, 320, 2)
    H = np.array([[0.9, 0.1, 10], [-0.1, 0.95, 15], [0, 0, 1.0]])
    cv2.imwrite(str(folder / "1.png"), image)
    cv2.imwrite(str(folder / "2.png"), cv2.warpPerspective(image, H, (320, 240)))
    np.savetxt(folder / "H_1_2", H)
    out = tmp_path / "m95.json"
    assert m95.main([str(tmp_path / "data"), "--peers", "rootsift", "--regions", "usual", "--out", str(out)]) == 0
    score = {row["descriptor"]: row["m95"] for row in json.loads(out.read_text())["results"]}
    assert min(score.values()) > 0.3 * len(detect(image, "dog", 2000))
