"""Whether this installation works: versions, optional parts, weights, and a self-test of the whole way to geometry."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from kornia_bingan import colmap
from kornia_bingan.datasets.rendered import draw_texture
from kornia_bingan.descriptor import BinGAN, describe
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import detect
from kornia_bingan.matching import match
from kornia_bingan.matching.geometry import homography_inliers
from kornia_bingan.network.weights import find_weights, list_models, load_weights
from kornia_bingan.work.machine import has_bfloat16
from kornia_bingan.work.provenance import usable_cores, versions

OPTIONAL = {
    "report": (("jinja2", "plotly"), "report.html of a reconstruction and pages of search"),
    "tensorboard": (("tensorboard",), "curves of a training"),
    "onnx": (("onnx", "onnxscript"), "bingan export"),
    "heic": (("pillow_heif",), "HEIC photos"),
    "cluster": (("dask", "distributed"), "--workers and --scheduler"),
    "store": (("lancedb",), "an index that scales out, in LanceDB"),
}
LEAST_SHARE = 0.3
"""Of the keypoints of the self-test that must be found again as inliers; shipped weights reach 0.5 and more."""


@dataclass(frozen=True)
class Check:
    """One line of ``bingan doctor``.

    Attributes:
        name: what was looked at.
        state: good, missing (an optional part) or bad.
        found: what was found.
        advice: what to do, empty if nothing.
    """

    name: str
    state: str
    found: str
    advice: str = ""


def examine() -> list[Check]:
    """Look at everything; takes some seconds."""
    return [*_libraries(), *_machine(), *_parts(), *_weights(), self_test()]


def _libraries() -> list[Check]:
    advice = "pip install --force-reinstall 'kornia_bingan[opencv]'"
    checks = [
        Check(name, "bad", "not installed", advice) if version is None else Check(name, "good", version)
        for name, version in versions().items()
    ]
    if not hasattr(cv2, "SIFT"):  # the wheels of OpenCV share one folder: removing one of two leaves an empty one
        checks.append(Check("cv2", "bad", "its files are not whole", f"remove every opencv package, then {advice}"))
    return checks


def _machine() -> list[Check]:
    cores, threads = usable_cores(), torch.get_num_threads()
    more = "" if threads <= cores else f"set OMP_NUM_THREADS={cores}; more threads than cores are slower"
    cpu = torch.device("cpu")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none that torch can use"
    return [
        Check("threads", "bad" if more else "good", f"{threads} of torch, {cores} cores", more),
        Check(
            "bfloat16", "good", "computed by the processor" if has_bfloat16(cpu) else "not computed, float32 is used"
        ),
        Check("GPU", "good", f"{gpu}; codes are computed on the CPU, training takes a GPU by itself"),
    ]


def _parts() -> list[Check]:
    checks = []
    for extra, (packages, purpose) in OPTIONAL.items():
        absent = [package for package in packages if find_spec(package) is None]
        if absent:
            advice = f"pip install 'kornia_bingan[{extra}]'"
            checks.append(Check(extra, "missing", f"{', '.join(absent)} not installed: no {purpose}", advice))
        else:
            checks.append(Check(extra, "good", purpose))
    return checks


def _weights() -> list[Check]:
    checks = []
    for model in list_models():
        try:
            load_weights(find_weights(model.name))
        except UsageError as error:
            checks.append(Check(model.name, "bad", str(error), "install kornia_bingan again"))
        else:
            checks.append(Check(model.name, "good", f"sha256 {model.sha256[:12]}, {model.bits} bits"))
    return checks or [Check("weights", "bad", "none are installed", "install kornia_bingan again")]


def self_test(name: str = "bingan256") -> Check:
    """Describe a picture and a warped copy, match them, verify the matches by their homography and by COLMAP."""
    started = time.perf_counter()
    advice = "report this with the lines above"
    try:
        share, verified = _share_found_again(BinGAN.from_pretrained(name, precision="auto"))
    except Exception as error:  # whatever breaks is what the doctor is asked for
        return Check("self-test", "bad", f"{type(error).__name__}: {error}", advice)
    seconds = time.perf_counter() - started
    found = f"{share:.0%} of the keypoints of a warped picture found again, {seconds:.1f} s"
    if not verified:
        found += "; COLMAP did not verify the pair"
    is_good = verified and share >= LEAST_SHARE
    return Check("self-test", "good", found) if is_good else Check("self-test", "bad", found, advice)


def _share_found_again(model: BinGAN) -> tuple[float, bool]:
    picture = draw_texture(480, 640, np.random.default_rng(0))
    matrix = cv2.getRotationMatrix2D((320, 240), 20, 0.9)
    warped: NDArray[np.uint8] = np.asarray(cv2.warpAffine(picture, matrix, (640, 480)), np.uint8)
    first, second = (detect(image, "dog", 500) for image in (picture, warped))
    codes = describe(model, picture, first), describe(model, warped, second)
    _, indices = match(*codes, "smnn", 0.8)
    xy0, xy1 = first.xy[indices[:, 0]], second.xy[indices[:, 1]]
    _, inliers = homography_inliers(xy0, xy1, 1.5)
    # keypoints that the warp moved out of the picture cannot be found
    moved = first.xy @ matrix[:, :2].T + matrix[:, 2]
    visible = ((moved > 8) & (moved < [632, 472])).all(1)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        colmap.write_features(database, {"a": first, "b": second}, colmap.Camera(640, 480))
        state = colmap.write_matches(database, {("a", "b"): indices})
    return float(inliers.sum() / max(1, visible.sum())), state.verified == 1
