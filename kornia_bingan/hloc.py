"""Our codes in hloc (Hierarchical-Localization) and in glue-factory, which find a model by its name.

hloc finds it once this file is imported, which also puts our settings among its own::

    import kornia_bingan.hloc
    from hloc import extract_features, match_features

    features = extract_features.main(extract_features.confs["bingan256"], photos, outputs)
    matches = match_features.main(match_features.confs["bingan-ratio"], pairs, "feats-bingan256", outputs)

glue-factory imports this file by itself: ``extractor: {name: kornia_bingan.hloc}`` in its configuration, and its own
``matchers.nearest_neighbor_matcher``, whose L2 ratio is the root of a Hamming ratio.

Read from hloc at commit c13273b (1.5) and glue-factory at commit 2d17e3b.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kornia_bingan import bits
from kornia_bingan.descriptor import SHIPPED, BinGAN, describe
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints, detect
from kornia_bingan.kornia import grey_8_bits
from kornia_bingan.matching import match, match_in_context
from kornia_bingan.matching.context import ContextModel
from kornia_bingan.network.weights import context_of
from kornia_bingan.reconstruct.features import Features
from kornia_bingan.reconstruct.features_h5 import UNCERTAINTY_PX, hloc_arrays
from kornia_bingan.reconstruct.options import MatchOptions, check_matching
from kornia_bingan.work.options import KeypointOptions

NAME = "bingan"
"""What hloc calls our extractor and our matcher."""

EXTRACTOR = {"weights": SHIPPED, **vars(KeypointOptions())}
_MATCHES = MatchOptions(matcher="ratio")
MATCHER = {
    "weights": SHIPPED,
    "matcher": _MATCHES.matcher,
    "ratio": _MATCHES.ratio,
    "probability": _MATCHES.probability,
    "min_matches": _MATCHES.min_matches,
}
"""The settings of both, with their defaults; the matcher is ``ratio`` or ``context``."""


def extract(image: Tensor, model: BinGAN, detector: Any, max_keypoints: int) -> dict[str, Tensor]:
    """Find and describe the keypoints of one image.

    Args:
        image: float (1, 1, H, W) or RGB (1, 3, H, W) in [0, 1].
        model: describes.
        detector: ``dog`` or ``orb``.
        max_keypoints: the strongest that are kept.

    Returns:
        What :func:`kornia_bingan.reconstruct.features_h5.hloc_arrays` gives, without the size, on the image's device.

    Raises:
        UsageError: the image is another, or more than one.
    """
    pixels = grey_8_bits(image)
    if len(pixels) != 1:
        raise UsageError(f"one image is described at a time, got {len(pixels)}")
    keypoints = detect(pixels[0], detector, max_keypoints)
    arrays = hloc_arrays(Features((0, 0), keypoints, describe(model, pixels[0], keypoints)))
    del arrays["image_size"]
    return {name: torch.from_numpy(values).to(image.device) for name, values in arrays.items()}


def match_features(data: Mapping[str, Tensor], conf: Mapping[str, Any]) -> dict[str, Tensor]:
    """Match the features of two images, as hloc reads them from its files.

    Args:
        data: ``descriptors0`` and ``descriptors1``, float (1, bits, N), whose signs are the codes; for matches in
            context ``keypoints``, ``scales`` and ``oris`` of both, too.
        conf: ``weights``, ``matcher``, ``ratio``, ``probability`` and ``min_matches``, see
            :class:`kornia_bingan.reconstruct.options.MatchOptions`.

    Returns:
        - ``matches0``: row in image 1 of each keypoint of image 0, or -1, int64 (1, N0).
        - ``matching_scores0``: 1 - ratio, or the probability, and 0 without a match, float32 (1, N0).
    """
    codes0, codes1 = (bits.pack(data[f"descriptors{k}"][0].T).cpu().numpy() for k in (0, 1))
    if conf["matcher"] == "context":
        points0, points1 = _keypoints(data, 0), _keypoints(data, 1)
        model = ContextModel.of(context_of(conf["weights"]))
        values, indices = match_in_context(
            codes0,
            codes1,
            points0,
            points1,
            threshold=conf["probability"],
            min_matches=conf["min_matches"],
            model=model,
        )
    else:
        ratios, indices = match(codes0, codes1, "smnn", conf["ratio"])
        values = 1 - ratios
    matches, scores = torch.full((1, len(codes0)), -1), torch.zeros(1, len(codes0))
    rows = torch.from_numpy(indices[:, 0])
    matches[0, rows], scores[0, rows] = torch.from_numpy(indices[:, 1]), torch.from_numpy(values[:, 0])
    device = data["descriptors0"].device
    return {"matches0": matches.to(device), "matching_scores0": scores.to(device)}


def _keypoints(data: Mapping[str, Tensor], image: int) -> Keypoints:
    try:
        xy, scales, oris = (data[f"{name}{image}"][0].cpu().float().numpy() for name in ("keypoints", "scales", "oris"))
    except KeyError as error:
        raise UsageError(f"a match in context needs {error.args[0]}, which the features do not have") from None
    none = np.zeros(len(xy), np.float32)
    return Keypoints(xy, 2 * scales, oris, none, none.astype(np.int32))


def _register(package: ModuleType, model: type) -> None:
    """Put a class where hloc looks for it: alone in a module of that name, below one of its packages."""
    path = f"{package.__name__}.{NAME}"
    module = ModuleType(path, model.__doc__)
    model.__module__ = path
    module.__dict__[model.__name__] = model
    sys.modules[path] = package.__dict__[NAME] = module


def _is_there(package: str) -> bool:
    """Say whether a package can be imported; a mere folder of its name, such as a clone, has no origin."""
    found = find_spec(package)
    return found is not None and found.origin is not None


if _is_there("hloc"):
    from hloc import extract_features, extractors, matchers
    from hloc import match_features as host_matching
    from hloc.utils.base_model import BaseModel

    class BinGANExtractor(BaseModel):  # type: ignore[misc]
        """Keypoints and codes for ``hloc.extract_features``; settings and defaults are :data:`EXTRACTOR`."""

        default_conf = EXTRACTOR
        required_inputs = ("image",)
        detection_noise = UNCERTAINTY_PX

        def _init(self, conf: Mapping[str, Any]) -> None:
            self.model = BinGAN.from_pretrained(conf["weights"], precision="auto")

        def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found = extract(data["image"], self.model, self.conf["detector"], self.conf["max_keypoints"])
            # hloc's as_half rounds float32 to 11 bits, a pixel beyond 1,024; it leaves float64 as it is.
            found["keypoints"] = found["keypoints"].double()
            return {name: values[None] for name, values in found.items()}

    class BinGANMatcher(BaseModel):  # type: ignore[misc]
        """Matches for ``hloc.match_features``; settings and defaults are :data:`MATCHER`."""

        default_conf = MATCHER
        required_inputs = ("descriptors0", "descriptors1")

        def _init(self, conf: Mapping[str, Any]) -> None:
            if conf["matcher"] not in ("ratio", "context"):
                raise UsageError(f"the matcher is '{conf['matcher']}'; choose ratio or context")
            check_matching(
                MatchOptions(conf["matcher"], conf["ratio"], conf["probability"], conf["min_matches"]), conf["weights"]
            )

        def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return match_features(data, self.conf)

    _register(extractors, BinGANExtractor)
    _register(matchers, BinGANMatcher)
    for weights in ("bingan256", "bingan256-lite"):
        extract_features.confs[weights] = {
            "output": f"feats-{weights}",
            "model": {"name": NAME, "weights": weights},
            "preprocessing": {"grayscale": True},
        }
    for matcher in ("ratio", "context"):
        host_matching.confs[f"bingan-{matcher}"] = {
            "output": f"matches-bingan-{matcher}",
            "model": {"name": NAME, "matcher": matcher},
        }

if _is_there("gluefactory"):
    from gluefactory.models.base_model import BaseModel as GlueFactoryModel

    class GlueFactoryExtractor(GlueFactoryModel):  # type: ignore[misc]
        """Keypoints and codes for glue-factory; settings and defaults are :data:`EXTRACTOR`.

        Of the images of a batch as many keypoints are given as the poorest one has.
        """

        default_conf = EXTRACTOR
        required_data_keys = ("image",)

        def _init(self, conf: Mapping[str, Any]) -> None:
            self.model = BinGAN.from_pretrained(conf["weights"], precision="auto")
            self.set_initialized()

        def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found = []
            for index, image in enumerate(data["image"]):
                width, height = data["image_size"][index].int() if "image_size" in data else image.shape[:0:-1]
                whole = image[None, :, :height, :width]  # batches are padded
                found.append(extract(whole, self.model, self.conf.detector, self.conf.max_keypoints))
            count = min(len(each["scores"]) for each in found)
            names = {"scales": "scales", "oris": "oris", "scores": "keypoint_scores", "keypoints": "keypoints"}
            given = {to: torch.stack([each[name][:count] for each in found]) for name, to in names.items()}
            given["keypoints"] = given["keypoints"] + 0.5  # glue-factory counts from the corner of the first pixel
            given["oris"] = given["oris"].deg2rad()
            given["descriptors"] = torch.stack([each["descriptors"].T[:count] for each in found])
            return given

        def loss(self, pred: Any, data: Any) -> None:
            """Refuse: extractors of glue-factory are not trained with its losses."""
            raise NotImplementedError


if not (_is_there("hloc") or _is_there("gluefactory")):
    raise ModuleNotFoundError("kornia_bingan.hloc needs hloc or gluefactory, and neither can be imported")
