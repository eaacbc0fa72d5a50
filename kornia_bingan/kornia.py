"""The descriptor for Kornia users: detectors without downloads, LAFs of the right size, and packed codes.

A LAF here covers the support region: it maps the square [-1, 1]^2 to it, so its scale is half the side in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import kornia.feature as KF
import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_bingan import bits
from kornia_bingan import keypoints as kp
from kornia_bingan.descriptor import BinGAN
from kornia_bingan.errors import UsageError
from kornia_bingan.matching.context import ContextModel, match_in_context
from kornia_bingan.network.weights import context_of
from kornia_bingan.opencv import OpenCVDetects, detect_with, inside_keypoints, supports_of
from kornia_bingan.work.options import Detector

HESSIAN_SIGMA = 1.05 / 0.88
"""Sigma at which Kornia's Hessian detector finds a round blob over that of a DoG detector (1.05 and 0.88 of the blob's,
measured on Gaussian blobs of sigma 3 to 14 pixels)."""

LEVEL_HALF_SIDE = 22.0
"""Half the side of the support region of Kornia's ``MultiResolutionDetector``, in pixels of the pyramid level on which
it found a keypoint. (Its LAF scale is ``s_mult`` such pixels, 22 by default, whatever the response. For CornerGFTT,
CornerHarris, BlobHessian and a DoG alike, 20 to 37 give the most right matches on pictures of planes, and 15 a tenth
less; ours of ORB, which also finds corners on levels, are 20.)"""


class OpenCVDetector(nn.Module):
    """A detector of OpenCV as a detector of Kornia.

    ``forward(image, mask)`` takes float images (B, 1, H, W) or RGB (B, 3, H, W) in [0, 1], which are rounded to 8 bits,
    and optionally a mask (1 or B, 1, H, W) that is not 0 where keypoints are wanted. It gives the support regions as
    LAFs, float32 (B, N, 2, 3), and responses, float32 (B, N), on the image's device. N is the largest number in the
    batch; images with fewer get LAFs of zeros behind theirs (see ``kornia.feature.laf_is_filled``), and without any
    keypoint N is 0. The LAFs need no further scaling: ``scaling_coef`` is 1.

    Args:
        detector: ``dog`` or ``orb`` of :func:`kornia_bingan.keypoints.detect`, or an object with OpenCV's ``detect``.
        max_keypoints: per image, for ``dog`` and ``orb``; an object has its own limit.
        support: half the side of a support region over the size of its keypoint; None takes what suits the detector, as
            :class:`kornia_bingan.opencv.BinGANExtractor` does.
    """

    def __init__(
        self,
        detector: Detector | OpenCVDetects = "dog",
        max_keypoints: int = 4096,
        *,
        support: float | None = None,
    ) -> None:
        super().__init__()
        if detector not in get_args(Detector) and not callable(getattr(detector, "detect", None)):
            raise UsageError(f"the detector must be dog, orb or an object with detect(image, mask), got {detector!r}")
        self.detector = detector
        self.max_keypoints = max_keypoints
        if support is not None:
            kp.check_support(support)
        self.support = support

    @torch.no_grad()
    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the keypoints of a batch of images; see the class.

        Raises:
            UsageError: the image is not float (B, 1 or 3, H, W) in [0, 1], the mask has another size, or a detector of
                one's own gave a keypoint inside the image that has no size, or one that is not finite.
        """
        pixels = grey_8_bits(image)
        batch, _, height, width = image.shape
        if mask is not None and (mask.shape[1:] != (1, height, width) or len(mask) not in (1, batch)):
            raise UsageError(f"the mask is {tuple(mask.shape)}; give (1, 1, {height}, {width}) or one per image")
        allowed = None if mask is None else np.uint8(255) * (mask[:, 0] != 0).expand(batch, -1, -1).cpu().numpy()
        found = [self._detect(pixels[i], None if allowed is None else allowed[i]) for i in range(batch)]
        lafs = torch.zeros(batch, max(map(len, found), default=0), 2, 3, dtype=torch.float32)
        responses = torch.zeros(lafs.shape[:2], dtype=torch.float32)
        for i, keypoints in enumerate(found):
            support = supports_of(self.detector, keypoints) if self.support is None else self.support
            lafs[i, : len(keypoints)] = torch.from_numpy(kp.support_regions(keypoints, support))
            responses[i, : len(keypoints)] = torch.from_numpy(keypoints.response)
        return lafs.to(image.device), responses.to(image.device)

    def _detect(self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> kp.Keypoints:
        if isinstance(self.detector, str):
            return kp.detect(image, self.detector, self.max_keypoints, mask)
        return inside_keypoints(detect_with(self.detector, image, mask), image.shape)[1]


def local_feature(
    model: BinGAN | str | Path = "bingan256",
    detector: nn.Module | None = None,
    *,
    scaling_coef: float | None = None,
) -> KF.LocalFeature:
    """Join a detector and the descriptor, for ``kornia.feature.LocalFeatureMatcher`` and :func:`extract_codes`.

    Args:
        model: a :class:`kornia_bingan.BinGAN`, a shipped name or a weights file.
        detector: a detector of Kornia, or None for ``OpenCVDetector()``, whose keypoints the weights were trained on.
            ``kornia.feature.ScaleSpaceDetector`` needs no download either; with its defaults it is upright, and it
            finds a few keypoints in the rounding errors of a uniform image. Before Kornia 0.9 give it
            ``nms_module=kornia.geometry.ConvQuadInterp3d(10)``: its default there averages around every pixel, so that
            a blob got several regions, of half to one and a half times its size.
        scaling_coef: turns the detector's LAFs into the support regions that the weights were trained on: half a side
            of 10 sigma of a DoG detector. None takes 1 for :class:`OpenCVDetector` and computes it for Kornia's
            ``ScaleSpaceDetector``, ``MultiResolutionDetector`` and ``KeyNetDetector``; another detector needs a number.

    Returns:
        ``kornia.feature.LocalFeature``: an image (B, 1 or 3, H, W) in [0, 1] becomes LAFs (B, N, 2, 3), responses
        (B, N) and descriptors (B, N, bits); no keypoints give (B, 0, bits).

    Raises:
        UsageError: there are no such weights, or the scaling of this detector is not known.
    """
    module = OpenCVDetector() if detector is None else detector
    network = model if isinstance(model, BinGAN) else BinGAN.from_pretrained(model, precision="auto")
    scale = _scaling(module) if scaling_coef is None else scaling_coef
    return KF.LocalFeature(module, _LAFDescriptor(network, patch_size=network.patch_size), scale)


class _LAFDescriptor(KF.LAFDescriptor):  # type: ignore[misc]
    """Kornia's, with the corrections of support regions that the weights have, if any.

    Before 0.9 Kornia's gives no keypoints the width of SIFT.
    """

    def forward(self, img: Tensor, lafs: Tensor) -> Tensor:
        """Turn LAFs (B, N, 2, 3) of images (B, 1 or 3, H, W) into descriptors (B, N, bits)."""
        if lafs.shape[1]:
            frames = self.descriptor.network.frames
            if frames is not None:
                grey = rgb_to_grayscale(img) if img.shape[1] == 3 else img
                patches = KF.extract_patches_from_pyramid(grey, lafs, self.patch_size).flatten(0, 1)
                weight = next(frames.parameters())
                changes = torch.cat([frames(piece.to(weight)) for piece in patches.split(self.descriptor.batch)])
                lafs = torch.cat([lafs[..., :2] @ changes.view(*lafs.shape[:2], 2, 2).to(lafs), lafs[..., 2:]], -1)
            described: Tensor = super().forward(img, lafs)
            return described
        empty: Tensor = self.descriptor(img.new_zeros(0, 1, self.patch_size, self.patch_size))
        return empty.expand(len(lafs), 0, empty.shape[1])


def _scaling(detector: nn.Module) -> float:
    if isinstance(detector, OpenCVDetector):
        return 1.0
    if isinstance(detector, KF.ScaleSpaceDetector):
        # Its LAF scale is mr_size sigma; OpenCV's size, which BLOB_SUPPORT multiplies, is 2 sigma of a DoG detector.
        sigma = 1.0 if detector.scale_space_response else HESSIAN_SIGMA
        return float(2 * kp.BLOB_SUPPORT / (detector.mr_size * sigma))
    if isinstance(detector, KF.MultiResolutionDetector):
        return float(LEVEL_HALF_SIDE / detector.mr_size)
    raise UsageError(
        f"the LAF scale of {type(detector).__name__} is not known; give scaling_coef so that a LAF's scale becomes "
        "12 times the sigma of the blob that a DoG detector would find"
    )


@torch.no_grad()
def extract_codes(feature: nn.Module, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Turn one image into support regions and packed codes, without the empty slots of Kornia's detectors.

    Args:
        feature: of :func:`local_feature`, or a ``kornia.feature.LocalFeature`` with a :class:`kornia_bingan.BinGAN`.
        image: float (1, 1, H, W) or RGB (1, 3, H, W) in [0, 1].
        mask: what the detector takes, usually (1, 1, H, W), not 0 where keypoints are wanted.

    Returns:
        - LAFs, shape (N, 2, 3), pixel centres at integers.
        - Codes, uint8, shape (N, bits / 8), row i for LAF i. An image without structure gives (0, 2, 3) and
          (0, bits / 8), on the image's device.

    Raises:
        UsageError: the image is not float (1, 1 or 3, H, W) in [0, 1].
    """
    _check_image(image)
    if len(image) != 1:
        raise UsageError(f"extract_codes takes one image (1, C, H, W), got {tuple(image.shape)}; call it for each")
    lafs, responses, descriptors = feature(image, mask)
    filled = lafs[0].ne(0).any(-1).any(-1)  # kornia.feature.laf_is_filled, since 0.9
    if not hasattr(KF, "laf_is_filled") and isinstance(feature.get_submodule("detector"), KF.ScaleSpaceDetector):
        filled &= responses[0] != 0  # slots without a keypoint held some LAF
    if not filled.any():  # Kornia before 0.9 gives no keypoints the width of SIFT
        model = feature.get_submodule("descriptor.descriptor")
        assert isinstance(model, BinGAN)
        return lafs[0][filled], torch.empty(0, model.bits // 8, dtype=torch.uint8, device=lafs.device)
    kept = descriptors[0][filled]
    return lafs[0][filled], kept if kept.dtype == torch.uint8 else bits.pack(kept)


class ContextMatcher(nn.Module):
    """:func:`kornia_bingan.matching.match_in_context` in the place of Kornia's ``GeometryAwareDescriptorMatcher``.

    ``forward`` takes the codes of two images, +1 / -1 floats (N, bits) or packed uint8 (N, bits / 8), and their LAFs,
    (1, N, 2, 3), without empty slots. It gives ``(distances, indices)``, float32 (M, 1) and int64 (M, 2), on the device
    of the codes; a distance is 1 - the probability that the match is right. The work is done on the processor.

    Args:
        weights: shipped name or weights file of the network that made the codes.
        threshold: least probability of a match, in [0, 1].
        agreement: move the probabilities by how many matches agree with one fundamental matrix; False for scenes where
            most things move.

    Raises:
        UsageError: there is no model of context for these weights.
    """

    def __init__(self, weights: str | Path = "bingan256", threshold: float = 0.5, *, agreement: bool = True) -> None:
        super().__init__()
        self.model = ContextModel.of(context_of(weights))
        self.threshold = threshold
        self.agreement = agreement

    @torch.no_grad()
    def forward(self, desc0: Tensor, desc1: Tensor, lafs0: Tensor, lafs1: Tensor) -> tuple[Tensor, Tensor]:
        """Match two sets of codes; see the class for shapes."""
        codes0, codes1 = (
            (each if each.dtype == torch.uint8 else bits.pack(each)).cpu().numpy() for each in (desc0, desc1)
        )
        points0, points1 = (keypoints_from_lafs(lafs.reshape(-1, 2, 3)) for lafs in (lafs0, lafs1))
        probability, indices = match_in_context(
            codes0, codes1, points0, points1, threshold=self.threshold, agreement=self.agreement, model=self.model
        )
        return 1 - torch.from_numpy(probability).to(desc0.device), torch.from_numpy(indices).to(desc0.device)

    def extra_repr(self) -> str:
        """Give the threshold for ``print(module)``."""
        return f"threshold={self.threshold}"


def lafs_from_keypoints(keypoints: kp.Keypoints, support: kp.Support = None) -> Tensor:
    """Turn keypoints into the LAFs of their support regions, float32, shape (1, N, 2, 3), for ``KF.LAFDescriptor``.

    ``support`` is that of :func:`kornia_bingan.keypoints.support_half_sides`.
    """
    return torch.from_numpy(kp.support_regions(keypoints, support))[None]


def keypoints_from_lafs(lafs: Tensor, responses: Tensor | None = None) -> kp.Keypoints:
    """Turn the LAFs of support regions into keypoints, the inverse of :func:`lafs_from_keypoints`.

    An affine shape is lost: the size is that of the square of equal area, the angle that of the LAF's first column.

    Args:
        lafs: support regions, shape (N, 2, 3), as from :func:`extract_codes`.
        responses: shape (N,); None gives 0.

    Returns:
        N keypoints; OpenCV's angles are in [0, 360), clockwise on screen: the negative of Kornia's.

    Raises:
        UsageError: another shape, or a LAF that is not finite or has no area, such as an empty slot (the message names
            the index).
    """
    if lafs.ndim != 3 or lafs.shape[1:] != (2, 3) or (responses is not None and responses.shape != lafs.shape[:1]):
        got = tuple(lafs.shape) if responses is None else f"{tuple(lafs.shape)} and {tuple(responses.shape)}"
        raise UsageError(f"keypoints_from_lafs needs LAFs (N, 2, 3) and, if any, responses (N,), got {got}")
    frames = lafs.detach().cpu().to(torch.float64).numpy()
    half_sides = np.sqrt(np.abs(frames[:, 0, 0] * frames[:, 1, 1] - frames[:, 0, 1] * frames[:, 1, 0]))
    usable = np.isfinite(frames).all((1, 2)) & (half_sides > 0)
    if not usable.all():
        index = int(np.argmin(usable))
        raise UsageError(f"LAF {index} is not finite or has no area: {frames[index].tolist()}")
    angle_deg = np.rad2deg(np.arctan2(frames[:, 1, 0], frames[:, 0, 0])).astype(np.float32)
    angle_deg[angle_deg < 0] += np.float32(360)
    angle_deg[angle_deg >= 360] = 0  # a tiny negative angle rounds to 360
    strength = np.zeros(len(frames)) if responses is None else responses.detach().cpu().float().numpy()
    return kp.Keypoints(
        xy=frames[:, :, 2].astype(np.float32),
        size=(half_sides / kp.BLOB_SUPPORT).astype(np.float32),
        angle_deg=angle_deg,
        response=strength.astype(np.float32),
        # SIFT's field for its first octave; with 0, support_regions would take a size of 31 for a keypoint of ORB.
        octave=np.full(len(frames), 255, np.int32),
    )


def grey_8_bits(image: Tensor) -> NDArray[np.uint8]:
    """Round float images (B, 1, H, W) or RGB (B, 3, H, W) in [0, 1] to grey uint8 (B, H, W).

    Raises:
        UsageError: the image is another.
    """
    _check_image(image)
    grey = image if image.shape[1] == 1 else rgb_to_grayscale(image)
    pixels: NDArray[np.uint8] = (grey[:, 0].float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return pixels


def _check_image(image: Tensor) -> None:
    if (
        not isinstance(image, Tensor)
        or image.ndim != 4
        or image.shape[1] not in (1, 3)
        or not image.is_floating_point()
    ):
        got = bits.dtype_and_shape(image)
        raise UsageError(f"the image must be a float tensor (B, 1, H, W) or RGB (B, 3, H, W) in [0, 1], got {got}")
    if image.numel():
        low, high = (float(x) for x in torch.aminmax(image.detach()))
        # As in BinGAN: a resampled image may overshoot a little; 255 or -1 is another range.
        if not (low >= -0.01 and high <= 1.01):  # also true for NaN
            raise UsageError(f"the image must be finite and in [0, 1], got values from {low:g} to {high:g}")
