"""Patches become descriptors and codes: the module that goes into ``kornia.feature.LAFDescriptor``."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_bingan import bits
from kornia_bingan.errors import UsageError
from kornia_bingan.files import sha256_of
from kornia_bingan.folded import FoldedNetwork, Precision
from kornia_bingan.keypoints import Keypoints, Support, check_inside, support_regions
from kornia_bingan.network import OfPictures, PatchDiscriminator, PatchTrunk
from kornia_bingan.patches import PATCH_SIZE, build_pyramid, cut_patches
from kornia_bingan.weights import find_weights, load_weights

Output = Literal["code", "packed", "descriptor"]
OUTPUTS = ("code", "packed", "descriptor")
BATCH = 256
"""Patches described at a time: their features stay in the processor's cache."""
_CUDA_BATCH = 4096


class BinGAN(nn.Module):
    """Describe grey patches of 32x32 pixels.

    ``forward`` takes float patches (B, 1, 32, 32) in [0, 1] and gives, by ``output``:

    - ``"code"``: +1 / -1 floats (B, bits) of the patches' dtype, for every matcher of Kornia;
    - ``"packed"``: uint8 (B, bits / 8), for OpenCV, faiss and :func:`kornia_bingan.match`;
    - ``"descriptor"``: the real values before the threshold at 0 (B, bits).

    B = 0 gives 0 rows of the same width and dtype. Long batches are cut into pieces.

    Args:
        network: a network of :mod:`kornia_bingan.network`, or a :class:`kornia_bingan.folded.FoldedNetwork`; None
            builds the published one, untrained. Use :meth:`from_pretrained` for a trained one.
        output: what ``forward`` gives.

    Source: Zieba et al., "BinGAN", NIPS 2018: the penultimate layer of the discriminator, thresholded at 0.
    """

    patch_size = PATCH_SIZE

    def __init__(
        self, network: PatchDiscriminator | PatchTrunk | FoldedNetwork | None = None, *, output: Output = "code"
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f"output is '{output}'; choose one of {', '.join(OUTPUTS)}")
        self.network = PatchDiscriminator() if network is None else network
        self.output = output
        self.bits = self.network.bits
        self.name = "untrained"
        self.sha256: str | None = None
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "bingan256",
        *,
        output: Output = "code",
        precision: Precision | None = None,
    ) -> BinGAN:
        """Load shipped weights by name, or a file that training wrote.

        Args:
            name_or_path: a shipped name or a file.
            output: what ``forward`` gives.
            precision: None loads the network as it was trained, in float32, to be trained further if you like. The
                others fold it for inference: ``float32`` gives the same codes faster, ``auto`` takes bfloat16 where the
                processor computes in it (several times faster; two bits in a thousand change).

        Raises:
            UsageError: there is no such name, file or precision, or the file is damaged or of another network.
        """
        path = find_weights(name_or_path)
        network = load_weights(path)
        if isinstance(network, OfPictures):
            raise UsageError(f"{path} describes whole pictures, not patches; it is for bingan index")
        model = cls(network if precision is None else FoldedNetwork(network, precision), output=output)
        model.name, model.sha256 = path.stem, sha256_of(path)
        return model

    def forward(self, patches: Tensor) -> Tensor:
        """Turn patches (B, 1, 32, 32) in [0, 1] into what ``output`` says.

        Raises:
            ValueError: the shape is another, the dtype is no float, or a value is NaN or outside [0, 1].
        """
        size = (1, PATCH_SIZE, PATCH_SIZE)
        if not isinstance(patches, Tensor):
            raise ValueError(
                f"patches are a float tensor (B, 1, 32, 32) in [0, 1], got {bits.dtype_and_shape(patches)}"
            )
        if patches.ndim != 4 or tuple(patches.shape[1:]) != size or not patches.is_floating_point():
            raise ValueError(f"patches are float (B, 1, 32, 32) in [0, 1], got {patches.dtype} {tuple(patches.shape)}")
        if len(patches):
            low, high = (float(x) for x in torch.aminmax(patches.detach()))
            # The resampling of others may overshoot a little; 255 or -1 is another range.
            if not (low >= -0.01 and high <= 1.01):  # also true for NaN
                raise ValueError(f"patches must be finite and in [0, 1], got values from {low:g} to {high:g}")
        descriptors = patches.new_zeros(0, self.bits)
        if len(patches):
            pieces = [
                self.network.describe(self.network.prepare(piece))
                for piece in torch.split(patches, _batch(patches.device))
            ]
            descriptors = torch.cat(pieces)
        if self.output == "descriptor":
            return descriptors.to(patches.dtype)
        if self.output == "packed":
            return bits.pack(descriptors)
        return torch.where(descriptors >= 0, 1.0, -1.0).to(patches.dtype)


def _batch(device: torch.device) -> int:
    return BATCH if device.type == "cpu" else _CUDA_BATCH


@torch.no_grad()
def describe(
    model: BinGAN, image: NDArray[np.uint8], keypoints: Keypoints, support: Support = None
) -> NDArray[np.uint8]:
    """Describe the support regions of an image's keypoints as packed codes.

    Args:
        model: any output mode; codes are computed here.
        image: grey uint8 (H, W).
        keypoints: N keypoints in this image's pixels.
        support: half the side of a support region over the keypoint's size; None recognises the keypoints of SIFT,
            default ORB and FAST (:func:`kornia_bingan.keypoints.support_half_sides`).

    Returns:
        uint8, shape (N, bits / 8), row i for keypoint i; N = 0 gives (0, bits / 8).

    Raises:
        UsageError: the image is no grey uint8 array, a keypoint is outside of it, not finite or has no size (the
            message names the index), or the model is in training mode, where codes are random.
    """
    if model.training:
        raise UsageError("the model is in training mode, where codes are random; call its eval() first")
    pyramid = build_pyramid(image)
    check_inside(keypoints, image.shape)
    patches = cut_patches(pyramid, support_regions(keypoints, support))
    device = next(chain(model.parameters(), model.buffers())).device
    codes = np.empty((len(patches), model.bits // 8), np.uint8)
    batch = _batch(device)
    for start in range(0, len(patches), batch):
        piece = torch.from_numpy(patches[start : start + batch]).to(device)
        low = model.network.describe(model.network.prepare(piece))
        codes[start : start + len(piece)] = bits.pack(low).cpu().numpy()
    return codes
