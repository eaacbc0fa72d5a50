"""Our codes in other people's programs: what one writes there, and how many matches of a known pair are right.

    python -m eval hosts [--hosts NAME[,NAME ...]] [--out FILE.json]

Protocol. The pair is a drawn texture of 640 x 480 pixels and the same seen through a known homography (20 degrees, 0.85
times as large, a little perspective), with noise of 2 grey levels; up to 1,000 keypoints a picture. A match is right
within 3 pixels of where the homography puts it. The lines that are counted are those of ``Host.ours``, which are run;
``Host.theirs`` is what one writes there with any feature. All of it stands in this file.

Every host that is asked for has to be there: ``PYTHONPATH`` may name checkouts of hloc, glue-factory, ORB_SLAM2,
OpenSfM (its C++ built) and deep-image-matching (``src``), which no package index has, and a folder of vismatch without
what else it asks for. What says no version is named by the commit of its checkout. DBoW2, of ORB_SLAM2, is compiled for
its row by ``g++`` with OpenCV's headers.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.harness.columns import Column, text_of
from eval.harness.command import Names, Out, command_line
from eval.harness.options import RESULTS
from eval.harness.records import check_clean, write_json
from eval.quality import opensfm
from kornia_bingan.datasets.rendered import draw_texture
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work.provenance import provenance

RIGHT_PX = 3.0
_DBOW2 = (
    "DBoW2/BowVector",
    "DBoW2/FeatureVector",
    "DBoW2/FORB",
    "DBoW2/ScoringObject",
    "DUtils/Random",
    "DUtils/Timestamp",
)


@dataclass(frozen=True)
class Host:
    """A program of others.

    Attributes:
        module: what is imported, whose version is told.
        tested: what of it runs here.
        ours: what is written for our codes.
        theirs: what is written for any feature; at the end, ``xy0`` and ``xy1`` (M, 2) are the matches.
    """

    module: str
    tested: str
    ours: str
    theirs: str


_OF_KEYPOINTS = """
xy0 = np.array([keypoints0[m.queryIdx].pt for m in matches])
xy1 = np.array([keypoints1[m.trainIdx].pt for m in matches])
"""
_PATCHES = """
from kornia_bingan.keypoints import detect, support_regions
from kornia_bingan.network.onnx import export_onnx
from kornia_bingan.patches import build_pyramid, cut_patches
export_onnx("bingan256", folder / "codes.onnx")
points = [detect(image, "dog", 1000) for image in (image0, image1)]
patches0, patches1 = (cut_patches(build_pyramid(i), support_regions(p)) for i, p in zip((image0, image1), points))
"""
_FRAMES = """
from kornia_bingan.keypoints import detect, support_regions
from kornia_bingan.network.onnx import export_onnx
export_onnx("bingan256", folder / "codes.onnx", input="image")
points = [detect(image, "dog", 1000) for image in (image0, image1)]
lafs0, lafs1 = (support_regions(each) for each in points)
grey0, grey1 = (image[None, None].astype(np.float32) / 255 for image in (image0, image1))
"""
_BY_BITS = """
matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(codes0, codes1)
xy0 = np.array([points[0].xy[m.queryIdx] for m in matches])
xy1 = np.array([points[1].xy[m.trainIdx] for m in matches])
"""

HOSTS = {
    "Kornia": Host(
        "kornia",
        "LocalFeatureMatcher",
        """
from kornia_bingan import BinGAN, HammingMatcher
from kornia_bingan.kornia import OpenCVDetector
describe = KF.LAFDescriptor(BinGAN.from_pretrained(precision="auto"), patch_size=32)
matcher = KF.LocalFeatureMatcher(KF.LocalFeature(OpenCVDetector("dog", 1000), describe), HammingMatcher("smnn", 0.8))
""",
        """
import torch
tensors = [torch.from_numpy(image)[None, None] / 255 for image in (image0, image1)]
with torch.no_grad():
    found = matcher({"image0": tensors[0], "image1": tensors[1]})
xy0, xy1 = found["keypoints0"].numpy(), found["keypoints1"].numpy()
""",
    ),
    "OpenCV": Host(
        "cv2",
        "detectAndCompute, BFMatcher",
        """
from kornia_bingan.opencv import BinGANExtractor
extractor = BinGANExtractor(max_keypoints=1000)
""",
        """
keypoints0, codes0 = extractor.detectAndCompute(image0, None)
keypoints1, codes1 = extractor.detectAndCompute(image1, None)
matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(codes0, codes1)
"""
        + _OF_KEYPOINTS,
    ),
    "cv2.detail": Host(
        "cv2",
        "BestOf2NearestMatcher, as stitching uses it",
        """
from kornia_bingan.opencv import BinGANExtractor
extractor = BinGANExtractor(max_keypoints=1000)
for each, photo in zip(features, photos, strict=True):
    each.keypoints, codes = extractor.detectAndCompute(photo, None)
    each.descriptors = cv2.UMat(codes)
""",
        """
found = cv2.detail.BestOf2NearestMatcher(False, 0.2).apply2(features)[1]
matches = found.getMatches()
keypoints0, keypoints1 = (each.getKeypoints() for each in features)
"""
        + _OF_KEYPOINTS,
    ),
    "cv2.dnn": Host(
        "cv2",
        "the file of bingan export",
        """
network = cv2.dnn.readNetFromONNX(str(folder / "codes.onnx"))
network.setInput(patches0)
codes0 = network.forward("codes").astype(np.uint8)
network.setInput(patches1)
codes1 = network.forward("codes").astype(np.uint8)
""",
        _BY_BITS,
    ),
    "onnxruntime": Host(
        "onnxruntime",
        "the file of bingan export",
        """
session = onnxruntime.InferenceSession(str(folder / "codes.onnx"), providers=["CPUExecutionProvider"])
codes0, codes1 = (session.run(["codes"], {"patches": patches})[0] for patches in (patches0, patches1))
""",
        _BY_BITS,
    ),
    "cv2.dnn (image)": Host(
        "cv2",
        "the file of bingan export --input image",
        """
network = cv2.dnn.readNetFromONNX(str(folder / "codes.onnx"))
def describe(grey, lafs):
    network.setInput(grey, "image")
    network.setInput(lafs, "lafs")
    return network.forward("codes").astype(np.uint8)
""",
        "codes0, codes1 = describe(grey0, lafs0), describe(grey1, lafs1)" + _BY_BITS,
    ),
    "onnxruntime (image)": Host(
        "onnxruntime",
        "the file of bingan export --input image",
        """
session = onnxruntime.InferenceSession(str(folder / "codes.onnx"), providers=["CPUExecutionProvider"])
codes0 = session.run(["codes"], {"image": grey0, "lafs": lafs0})[0]
codes1 = session.run(["codes"], {"image": grey1, "lafs": lafs1})[0]
""",
        _BY_BITS,
    ),
    "hloc": Host(
        "hloc",
        "extract_features, match_features; a test goes on to triangulation",
        """
import kornia_bingan.hloc
settings, matching = extract_features.confs["bingan256"], match_features.confs["bingan-ratio"]
""",
        """
from hloc.utils.io import get_keypoints, get_matches
settings["model"]["max_keypoints"] = 1000
(folder / "pairs.txt").write_text("0.png 1.png")
features = extract_features.main(settings, folder, folder, image_list=["0.png", "1.png"])
indices, _ = get_matches(match_features.main(matching, folder / "pairs.txt", features.stem, folder), "0.png", "1.png")
xy0, xy1 = (get_keypoints(features, f"{k}.png")[indices[:, k]] for k in (0, 1))
""",
    ),
    "vismatch": Host(
        "vismatch",
        "the matcher orb-nn with ours in it",
        """
from kornia_bingan.opencv import BinGANExtractor
matcher = vismatch.get_matcher("orb-nn", lowe_thresh=0.8)
matcher.det_descr = BinGANExtractor(max_keypoints=1000)
""",
        """
found = matcher(*(np.float32(cv2.merge([image] * 3)).transpose(2, 0, 1) / 255 for image in (image0, image1)))
xy0, xy1 = found["matched_kpts0"], found["matched_kpts1"]
""",
    ),
    "glue-factory": Host(
        "gluefactory",
        "two_view_pipeline with its nearest neighbours",
        """
extractor = {"name": "kornia_bingan.hloc", "max_keypoints": 1000}
matcher = {"name": "matchers.nearest_neighbor_matcher", "ratio_thresh": 0.894}
""",
        """
import torch
from gluefactory.models import get_model
pipeline = get_model("two_view_pipeline")({"extractor": extractor, "matcher": matcher}).eval()
views = {f"view{k}": {"image": torch.from_numpy(i)[None, None] / 255} for k, i in enumerate((image0, image1))}
with torch.no_grad():
    found = pipeline(views)
rows = found["matches0"][0] >= 0
xy0 = found["keypoints0"][0][rows].numpy() - 0.5
xy1 = found["keypoints1"][0][found["matches0"][0][rows]].numpy() - 0.5
""",
    ),
    "OpenSfM": Host(
        "opensfm.features",
        "its features.py and matching.py",
        opensfm.OURS
        + """config["feature_type"] = "ORB"
config["matcher_type"] = "BRUTEFORCE"
""",
        """
(points0, codes0, _), (points1, codes1, _) = (
    features.extract_features(cv2.merge([image] * 3), config, False) for image in (image0, image1)
)
pairs = np.array(matching.match_brute_force_symmetric(codes0, codes1, config))
xy0 = features.denormalized_image_coordinates(points0[pairs[:, 0]], 640, 480)
xy1 = features.denormalized_image_coordinates(points1[pairs[:, 1]], 640, 480)
cv2.ORB_create = cv2.ORB.create
""",
    ),
    "deep-image-matching": Host(
        "deep_image_matching",
        "ImageMatcher, before its geometric verification",
        """
from kornia_bingan.opencv import BinGANExtractor
cv2.ORB_create = lambda nfeatures, **_: BinGANExtractor(max_keypoints=nfeatures, packed=False)
matcher = {"name": "kornia_matcher", "match_mode": "smnn", "th": 0.894}
""",
        """
import yaml
(folder / "config.yaml").write_text(yaml.dump({"extractor": {"name": "orb", "n_features": 1000}, "matcher": matcher}))
asked = {"images": folder, "outs": folder / "out", "strategy": "bruteforce", "tiling": "none", "quality": "high"}
config = dim.Config({**asked, "pipeline": "orb+kornia_matcher", "config_file": folder / "config.yaml"})
features, _ = dim.ImageMatcher(config).run()
points = [dim.io.h5.get_features(features, f"{k}.png")["keypoints"] for k in (0, 1)]
pairs = dim.io.h5.get_matches(features.parent / "raw_matches.h5", "0.png", "1.png")
xy0, xy1 = (points[k][pairs[:, k]] for k in (0, 1))
cv2.ORB_create = cv2.ORB.create
""",
    ),
    "ORB_SLAM2": Host(
        "Thirdparty.DBoW2",
        "its DBoW2, with the rule of SearchByBoW: the nearest code of the same node, ratio 0.8",
        """
extractor = BinGANExtractor(max_keypoints=1000)
subprocess.run([sys.executable, "-m", "kornia_bingan.cli", "vocabulary", folder, vocabulary], check=True)
""",
        """
(keypoints0, codes0), (keypoints1, codes1) = (extractor.detectAndCompute(i, None) for i in (image0, image1))
nodes0, nodes1 = (nodes_of(vocabulary, codes) for codes in (codes0, codes1))
matches = []
for node in sorted(set(nodes0) & set(nodes1) - {""}):
    rows0, rows1 = (np.flatnonzero(np.array(nodes) == node) for nodes in (nodes0, nodes1))
    found = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(codes0[rows0], codes1[rows1], k=2)
    sure = [pair[0] for pair in found if len(pair) == 2 and pair[0].distance < 0.8 * pair[1].distance]
    matches += [cv2.DMatch(int(rows0[m.queryIdx]), int(rows1[m.trainIdx]), m.distance) for m in sure]
"""
        + _OF_KEYPOINTS,
    ),
}

_BEFORE = {
    "Kornia": "import kornia.feature as KF",
    "vismatch": "import vismatch",
    "hloc": "from hloc import extract_features, match_features",
    "OpenSfM": """
from opensfm import features, matching
from opensfm.config import default_config
config = default_config() | {"feature_min_frames": 1000}
""",
    "cv2.detail": """
photos = [image0, image1]
features = cv2.detail.computeImageFeatures(cv2.ORB.create(1), photos)
""",
    "cv2.dnn": _PATCHES,
    "onnxruntime": _PATCHES + "import onnxruntime",
    "cv2.dnn (image)": _FRAMES,
    "onnxruntime (image)": _FRAMES + "import onnxruntime",
    "deep-image-matching": "import deep_image_matching as dim",
    "ORB_SLAM2": """
import subprocess
import sys
from Thirdparty import DBoW2
from eval.quality.hosts import draw_more, nodes_of
from kornia_bingan.opencv import BinGANExtractor
vocabulary = folder / "vocabulary.txt"
draw_more(folder, 10)
""",
}
"""What is run before and not counted: what one writes with any feature, and patches, which a program cuts itself."""


def known_pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
    """Draw the pair, grey uint8 (480, 640), and give the homography from the first to the second."""
    rng = np.random.default_rng(0)
    image = draw_texture(480, 640, rng)
    way = np.vstack([cv2.getRotationMatrix2D((319.5, 239.5), 20, 0.85), [1e-4, 5e-5, 1]])
    seen = cv2.warpPerspective(image, way, (640, 480), flags=cv2.INTER_AREA) + rng.normal(0, 2, image.shape)
    return image, np.clip(seen, 0, 255).round().astype(np.uint8), way


def draw_more(folder: Path, count: int) -> None:
    """Draw further textures: a word that all photos of a vocabulary have weighs nothing."""
    for index in range(1, 1 + count):
        texture = draw_texture(480, 640, np.random.default_rng(index))
        cv2.imwrite(str(folder / f"more{index}.png"), texture)


def nodes_of(vocabulary: Path, codes: NDArray[np.uint8]) -> list[str]:
    """Give the node of each code by the DBoW2 of a checkout of ORB_SLAM2, compiled beside the vocabulary.

    Raises:
        JobError: it cannot be compiled.
    """
    program = vocabulary.with_name("dbow2_nodes")
    if not program.exists():
        checkout = Path(next(iter(import_module("Thirdparty.DBoW2").__path__))).parents[1]
        parts = [checkout / "Thirdparty" / "DBoW2" / f"{part}.cpp" for part in _DBOW2]
        sources = [Path(__file__).with_name("dbow2_nodes.cpp"), *parts]
        words = ["g++", "-O1", "-w", f"-I{checkout}", "-I/usr/include/opencv4", *map(str, sources), "-lopencv_core"]
        try:
            subprocess.run([*words, "-o", str(program)], capture_output=True, text=True, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", None) or str(error)
            raise JobError(f"DBoW2 of {checkout} cannot be compiled; is libopencv-dev there? {told[:300]}") from error
    done = subprocess.run([program, vocabulary], input=codes.tobytes(), capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def measure(host: Host, before: str) -> dict[str, Any]:
    """Run a host's program; gives its version, the lines of ours, and how many matches are right.

    Raises:
        JobError: the host cannot be imported.
    """
    try:
        module = import_module(host.module)
    except ImportError as error:
        raise JobError(f"{host.module} cannot be imported ({error}); install it, or leave it out of --hosts") from error
    image0, image1, way = known_pair()
    with tempfile.TemporaryDirectory() as folder:
        names = {"cv2": cv2, "np": np, "folder": Path(folder), "image0": image0, "image1": image1}
        for index, image in enumerate((image0, image1)):
            cv2.imwrite(os.path.join(folder, f"{index}.png"), image)
        for source in (before, host.ours, host.theirs):
            exec(source, names)
    xy0, xy1 = (np.asarray(names[name], np.float64).reshape(-1, 2) for name in ("xy0", "xy1"))
    there = cv2.perspectiveTransform(xy0[:, None], way)[:, 0]
    right = np.linalg.norm(there - xy1, axis=1) < RIGHT_PX
    return {
        "version": version_of(module),
        "lines": len(host.ours.split("\n")) - 2,
        "matches": len(xy0),
        "right": int(right.sum()),
    }


def version_of(module: ModuleType) -> str | None:
    """Give the version that a module says, or the commit of the checkout that it is in, or None."""
    if version := getattr(module, "__version__", None):
        return str(version)
    folder = Path(module.__file__).parent if module.__file__ else Path(next(iter(module.__path__)))
    words = ["git", "-C", str(folder), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or None


COLUMNS = (
    Column("program", "host"),
    Column("version", "version"),
    Column("lines for ours", "lines", "d"),
    Column("what ran", "tested"),
    Column("matches", "matches", ",d"),
    Column("right", lambda row: row["right"] / row["matches"], ".1%"),
)


@command_line("hosts")
def main(hosts: Names = tuple(HOSTS), out: Out = RESULTS / "hosts.json") -> int:
    """Run the programs.

    Args:
        hosts: which of them; the rows of others stay in the record.
    """
    if unknown := [name for name in hosts if name not in HOSTS]:
        raise UsageError(f"the host is '{unknown[0]}'; choose of {', '.join(HOSTS)}")
    check_clean(out)
    found = measured_before(out)
    for name in hosts:
        row = measure(HOSTS[name], _BEFORE.get(name, ""))
        found[name] = {"host": name, "tested": HOSTS[name].tested, **row, "provenance": provenance()}
    print(text_of(COLUMNS, [found[name] for name in hosts]))
    rows = [found[name] for name in HOSTS if name in found]
    write_json(out, {"protocol": "hosts", "command": "python -m eval hosts", "results": rows})
    return 0


def measured_before(out: Path) -> dict[str, dict[str, Any]]:
    """Give the rows of a record, each with its provenance, by their host; none where there is no record."""
    record = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"results": []}
    return {row["host"]: {"provenance": record.get("provenance"), **row} for row in record["results"]}
