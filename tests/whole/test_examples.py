"""The programs of ``examples/`` run; hloc's is in tests/test_hloc.py."""

from __future__ import annotations

import itertools
import json
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kornia_bingan import BinGAN, bits
from kornia_bingan.descriptor import describe
from kornia_bingan.keypoints import Keypoints
from tests.helpers.once import lite_onnx
from tests.helpers.photos import texture

EXAMPLES = Path(__file__).parents[2] / "examples"


def opencv_for_cpp() -> list[str]:
    """What a compiler is told to find OpenCV."""
    if shutil.which("g++") is None or shutil.which("pkg-config") is None:
        pytest.skip("there is no C++ compiler, or no pkg-config")
    asked = subprocess.run(["pkg-config", "--cflags", "--libs", "opencv4"], capture_output=True, text=True, check=False)
    if asked.returncode:
        pytest.skip("OpenCV for C++ is not installed (Debian's package is libopencv-dev)")
    return asked.stdout.split()


def test_codes_of_the_cpp_program_are_ours(tmp_path: Path) -> None:
    options = opencv_for_cpp()
    program, network, picture = tmp_path / "describe", lite_onnx(), tmp_path / "picture.png"
    source = str(EXAMPLES / "describe.cpp")
    subprocess.run(["g++", "-O1", "-std=c++17", source, "-o", str(program), *options], check=True)
    image = texture(203, 311, 3)
    cv2.imwrite(str(picture), image)
    printed = subprocess.run([program, network, picture], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in printed.splitlines()]
    assert len(rows) > 200
    numbers = np.array([row[:4] for row in rows], np.float32)
    none = np.zeros(len(rows), np.float32)
    points = Keypoints(numbers[:, :2], numbers[:, 2], numbers[:, 3], none, none.astype(np.int32))
    expected = describe(BinGAN.from_pretrained("bingan256-lite"), image, points, support=6.0)
    codes = np.array([list(bytes.fromhex(row[4])) for row in rows], np.uint8)
    differ = np.unpackbits(codes ^ expected, axis=1).mean()
    # cv::remap of OpenCV 4 rounds positions to 1/32 pixel; codes of other patches would differ in half of the bits
    assert differ < 0.01
    assert bits.hamming_distances(codes, expected).argmin(1).tolist() == list(range(len(rows)))
    assert subprocess.run([program], capture_output=True, check=False).returncode == 2


def test_the_panorama_finds_how_the_camera_turned() -> None:
    """Photos of one far wall by a camera that turns by 12 degrees, of which its focal length and turns are known."""
    program = runpy.run_path(str(EXAMPLES / "panorama.py"))
    focal, width, height = 500.0, 400, 300
    inside = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    wall = cv2.cvtColor(texture(600, 1000, 4), cv2.COLOR_GRAY2BGR)
    onto_wall = np.array([[focal, 0, 499.5], [0, focal, 299.5], [0, 0, 1]])
    photos = []
    for index in range(3):
        turn, _ = cv2.Rodrigues(np.array([0, np.deg2rad(12 * (index - 1)), 0]))
        way = inside @ turn @ np.linalg.inv(onto_wall)
        photos.append(cv2.warpPerspective(wall, way, (width, height)))
    cameras = program["cameras_of"](program["features_of"](photos, 400))
    assert [camera.focal for camera in cameras] == pytest.approx([focal] * 3, rel=0.02)
    for first, second in itertools.pairwise(cameras):
        turned, _ = cv2.Rodrigues((first.R.T @ second.R).astype(np.float64))
        assert np.rad2deg(np.linalg.norm(turned)) == pytest.approx(12, abs=0.2)
    panorama = program["blend"](photos, cameras)
    assert panorama.shape[1] == pytest.approx(2 * np.deg2rad(12) * focal + width, rel=0.05)
    assert height - 20 < panorama.shape[0] < height + 60


def test_the_notebook_runs_from_its_first_cell_to_its_last(capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "what cells give is not stored"
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["codes0"].shape == (500, 32)
    assert names["error_px"] < 0.5
    assert names["inliers"].sum() > 100
    assert len(names["cv_matches"]) >= len(names["indices"])  # without a ratio test there are more
    assert "of them agree with one homography" in capsys.readouterr().out
