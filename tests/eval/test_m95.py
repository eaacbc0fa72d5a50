from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eval.harness import problems
from eval.harness.columns import table_of
from eval.harness.peers import load_peers
from eval.quality import m95
from kornia_bingan.datasets.rendered import cameras_on_arc
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints, detect
from tests.helpers.photos import texture, write_wall


def keypoints_at(xy: np.ndarray) -> Keypoints:
    one = np.ones(len(xy), np.float32)
    return Keypoints(xy.astype(np.float32), 8 * one, 0 * one, one, np.full(len(xy), 257, np.int32))


def test_true_points_lie_on_their_epipolar_lines() -> None:
    a, b = cameras_on_arc(3, 0)[:2]
    points = np.random.default_rng(0).uniform([-1, -0.5, 0], [1, 0.5, 1], (50, 3)) + a.center + 4 * a.R[2]
    F = problems.fundamental_matrix(a, b)
    xy0, xy1 = a.project(points), b.project(points)
    assert problems.epipolar_errors_px(F, xy0, xy1).max() < 1e-6
    moved = xy1 + np.random.default_rng(1).normal(0, 30, xy1.shape)
    assert np.median(problems.epipolar_errors_px(F, xy0, moved)) > 5


def test_the_epipolar_error_is_the_larger_of_both() -> None:
    """Moved sideways and enlarged by s, a point at height y0 lies at s y0: r off there is r / s off in the other."""
    for enlarged, expected in ((2.0, 3.0), (0.5, 6.0)):
        F = np.array([[0, 0, 0], [0, 0, -1], [0, enlarged, 0]])
        xy0, xy1 = np.array([[5.0, 10.0]]), np.array([[70.0, 10 * enlarged + 3]])
        assert problems.epipolar_errors_px(F, xy0, xy1).tolist() == [expected]


def test_a_match_in_the_epipole_is_wrong() -> None:
    """A camera that moves along its axis of view: every line goes through (0, 0), which has none itself."""
    F = np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 0]])
    xy0, xy1 = np.array([[0.0, 0], [3, 4], [3, 4]]), np.array([[5.0, 1], [6, 8], [0, 0]])
    assert problems.epipolar_errors_px(F, xy0, xy1).tolist() == [np.inf, 0, np.inf]


def test_transfer_error_is_that_in_the_coarser_picture() -> None:
    H = np.diag([2.0, 2.0, 1.0])
    xy0 = np.array([[10.0, 20.0]])
    assert problems.transfer_errors_px(H, xy0, np.array([[20.0, 40.0]])).tolist() == [0]
    assert problems.transfer_errors_px(H, xy0, np.array([[24.0, 40.0]])).tolist() == [2]


def test_a_perfect_descriptor_keeps_all_its_matches() -> None:
    """Codes that name their keypoint, on a picture and itself moved by 7 pixels; every second name is wrong."""
    xy = np.random.default_rng(0).uniform(20, 180, (40, 2))
    H = np.array([[1, 0, 7], [0, 1, 0], [0, 0, 1.0]])
    points = (keypoints_at(xy), keypoints_at(xy + np.array([7, 0])))
    images = (texture(200, 200), texture(200, 200, 1))
    codes = np.random.default_rng(1).integers(0, 256, (40, 32), dtype=np.uint8)
    problem = problems.Problem("a", "scene", images, points, ((0, 1),), "homography", H[None])
    result = m95.evaluate(lambda _image, _points: codes, problem, "hamming")
    assert result.correct.all()
    assert len(result.correct) == 40
    for off, right in ((2.4, True), (2.6, False)):
        H_moved = (H + off * np.eye(3, k=2))[None]
        moved = problems.Problem("a", "scene", images, points, ((0, 1),), "homography", H_moved)
        assert (m95.evaluate(lambda _image, _points: codes, moved, "hamming").correct == right).all()
    wrong = np.roll(codes, 1, axis=0)
    calls = iter([codes, wrong])
    result = m95.evaluate(lambda _image, _points: next(calls), problem, "hamming")
    assert not result.correct.any()


def problem_of(kind: problems.Kind, pairs: tuple[tuple[int, int], ...]) -> problems.Problem:
    return problems.Problem("a", "scene", (), (), pairs, kind, np.zeros((len(pairs), 3, 3)))


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


def test_a_draw_without_a_precise_threshold_counts_nothing() -> None:
    right = result_of([3])
    none = m95.Result(1, right.pair, right.ratio, right.ratio_two_way, np.zeros(3, bool))
    problem = problem_of("homography", ((0, 1),))
    assert m95.resampled_m95(problem, right).tolist() == [3] * m95.NUM_RESAMPLES
    assert m95.resampled_m95(problem, none, 7).tolist() == [0] * 7


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
    assert (root["least_times_rootsift"], ours["least_times_rootsift"]) == (1, 1)
    root, _ = m95.totals([{**row, "group": "scene"} for row in rows], draws)
    assert root["m95_interval"] == [30, 30]
    assert "ours_times" not in root


def test_one_match_of_rootsift_counts_as_one() -> None:
    rows = [{"data": "s", "group": "scene", "descriptor": name, "m95": n} for name, n in (("rootsift", 1), ("orb", 3))]
    orb = m95.totals(rows, {("s", row["descriptor"]): np.full(5, float(row["m95"])) for row in rows})[1]
    assert (orb["times_rootsift"], orb["times_rootsift_interval"], orb["least_times_rootsift"]) == (3, [3, 3], 3)


def rows_of_two() -> list[dict[str, Any]]:
    """What a record holds of two descriptors; read from text, so that no two names are one object."""
    row = {"data": "room", "group": "scene", "curve": {"num_matches": [2, 4], "num_correct": [2, 3]}}
    return [json.loads(json.dumps({**row, "descriptor": name, "m95": n})) for name, n in (("rootsift", 3), ("orb", 2))]


def test_the_table_is_sorted_by_the_sum_and_gives_the_interval() -> None:
    sums = [{"part": "scene", "descriptor": "orb", "data": ["room"], "m95": 2, "times_rootsift": 0.5}]
    sums[0]["times_rootsift_interval"] = [0.25, 0.75]
    sums[0]["m95_interval"] = [1.0, 3.0]
    best = {"descriptor": "rootsift", "m95": 3, "times_rootsift": None, "times_rootsift_interval": None}
    rows = [{**row, "m95_interval": [1.0, 4.0]} for row in rows_of_two()]
    record: dict[str, Any] = {"results": rows, "constants": {}, "peers": {}}
    record["peers"] = {"orb": {"num_bytes": 32}, "rootsift": {"num_bytes": 512}}
    record["totals"] = [*sums, {**sums[0], **best}, {**sums[0], "part": "evd"}]
    header, cells = table_of(m95.columns(record, "scene"), m95.totals_of(record, "scene"), "text")
    assert header == ["descriptor", "bytes", "room (95 % interval)", "sum (interval)", "x RootSIFT (interval)"]
    assert cells == [
        ["rootsift", "512", "3 (1 to 4)", "3 (1 to 3)", ""],
        ["orb", "32", "2 (1 to 4)", "2 (1 to 3)", "0.500 (0.250 to 0.750)"],
    ]


def test_the_picture_has_a_panel_a_scene_and_a_line_a_descriptor() -> None:
    """Precision 1 is at the top of the panel and 0.5 at its bottom; 3 of 4 is in the middle."""
    peers = load_peers(["rootsift", "orb"], Path("nowhere"))[0]
    drawn = m95.picture(rows_of_two(), peers)
    paths = re.findall(r'<path d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', drawn)
    top, bottom = (float(n) for n in re.search(r'<path d="M\d+ (\d+)V(\d+)H', drawn).groups())
    assert [[float(y) for y in path[1::2]] for path in paths] == [[top, (top + bottom) / 2]] * 2
    assert drawn.count('font-weight="bold"') == 1


def test_the_command_writes_a_record_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wall(tmp_path / "data" / "wall")
    out = tmp_path / "new" / "folder" / "m95.json"
    words = [
        str(tmp_path / "data"),
        "--peers",
        "rootsift,orb,hashsift256",
        "--ours",
        "bingan256-lite",
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
    assert list(score) == ["rootsift", "orb", "bingan256-lite", "bingan256-lite/float"]
    assert min(score.values()) > 300
    assert first["constants"] == {
        "max_keypoints": 2000,
        "max_gap": 4,
        "threshold_px": 2.5,
        "precision": 0.95,
        "num_resamples": 500,
        "first": "bingan256-lite",
    }
    assert str(tmp_path) not in out.read_text()
    assert m95.main(words) == 0, "the second run takes the cache"
    assert json.loads(out.read_text())["results"] == first["results"]
    shown = capsys.readouterr().out
    assert "x RootSIFT" in shown
    assert "absent: hashsift256: hashsift256.npy is not in the folder of peers" in shown
    with pytest.raises(UsageError):
        m95.main([str(tmp_path / "absent")])


def test_sequences_with_homographies(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "homography" / "oxford_made"
    folder.mkdir(parents=True)
    image = texture(160, 200, 2)
    H = np.array([[0.9, 0.1, 10], [-0.1, 0.95, 15], [0, 0, 1.0]])
    cv2.imwrite(str(folder / "1.png"), image)
    cv2.imwrite(str(folder / "2.png"), cv2.warpPerspective(image, H, (200, 160)))
    np.savetxt(folder / "H_1_2", H)
    out = tmp_path / "m95.json"
    words = ["--peers", "rootsift", "--regions", "usual", "--ours", "", "--no-cache", "--out", str(out)]
    assert m95.main([str(tmp_path / "data"), *words]) == 0
    score = {row["descriptor"]: row["m95"] for row in json.loads(out.read_text())["results"]}
    assert min(score.values()) > 0.3 * len(detect(image, "dog", 2000))
