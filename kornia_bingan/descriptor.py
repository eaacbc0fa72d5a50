"""Patches become descriptors and codes: the module that goes into ``kornia.feature.LAFDescriptor``."""

from __future__ import annotations

import warnings
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kornia_bingan import bits
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints, Support, check_inside, support_regions
from kornia_bingan.network.inference import FoldedNetwork, Precision
from kornia_bingan.network.published import OfPictures, PatchDiscriminator, PatchTrunk
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.patches import PATCH_SIZE, Pyramid, build_pyramid, cut_patches
from kornia_bingan.work.files import sha256_of

Output = Literal["code", "packed", "descriptor"]
OUTPUTS = ("code", "packed", "descriptor")
SHIPPED = "bingan256"
"""The weights for those who name none."""
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

    Weights that correct support regions (``bingan256-affine``) do so where there is a picture: :func:`describe`, what
    is built on it, and :func:`kornia_bingan.kornia.local_feature`. ``forward`` describes patches as they are; give it
    those of :meth:`regions`.

    ``torch.compile``, ``torch.export``, ``torch.jit.trace`` and ``torch.jit.script`` take it; their graphs check no
    values, and all but a scripted one describe a batch in one piece.

    Args:
        network: a network of :mod:`kornia_bingan.network.published`, or a
            :class:`kornia_bingan.network.inference.FoldedNetwork`; None builds the published one, untrained, and the
            first codes from an untrained one come with a warning.
        pretrained: load ``bingan256`` instead, as :meth:`from_pretrained` does.
        output: what ``forward`` gives.

    Raises:
        UsageError: network is no network, or is given beside ``pretrained``.

    Source: Zieba et al., "BinGAN", NIPS 2018: the penultimate layer of the discriminator, thresholded at 0.
    """

    patch_size = PATCH_SIZE

    def __init__(
        self,
        network: PatchDiscriminator | PatchTrunk | FoldedNetwork | None = None,
        *,
        pretrained: bool = False,
        output: Output = "code",
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f"output is '{output}'; choose one of {', '.join(OUTPUTS)}")
        if network is not None and (pretrained or not isinstance(network, nn.Module)):
            raise UsageError(
                f"the network is a {type(network).__name__} and pretrained is {pretrained}; give BinGAN a network, or "
                "load weights by BinGAN(pretrained=True) or BinGAN.from_pretrained(NAME)"
            )
        self.name = "untrained"
        self.sha256: str | None = None
        if pretrained:
            network, self.name, self.sha256 = _load(SHIPPED)
        self.network = PatchDiscriminator() if network is None else network
        self.output = output
        self.bits = self.network.bits
        self.batch, self.cuda_batch = BATCH, _CUDA_BATCH  # TorchScript sees no constants of modules
        self.may_be_untrained = True
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = SHIPPED,
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
        network, name, sha256 = _load(name_or_path)
        model = cls(network if precision is None else FoldedNetwork(network, precision), output=output)
        model.name, model.sha256 = name, sha256
        return model

    def forward(self, patches: Tensor) -> Tensor:
        """Turn patches (B, 1, 32, 32) in [0, 1] into what ``output`` says.

        Raises:
            ValueError: the shape is another, the dtype is no float, or a value is NaN or outside [0, 1].
        """
        # TorchScript leaves out what stands here
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check(patches)
            if bits.is_recording():
                return self._coded(self._described(patches), patches)
        elif patches.dim() != 4 or list(patches.shape[1:]) != [1, 32, 32] or not patches.is_floating_point():
            raise ValueError("patches are float (B, 1, 32, 32) in [0, 1]")
        descriptors = patches.new_zeros(0, self.bits)
        if len(patches):
            batch = self.batch if patches.device.type == "cpu" else self.cuda_batch
            descriptors = torch.cat([self._described(piece) for piece in torch.split(patches, batch)])
        return self._coded(descriptors, patches)

    @torch.no_grad()
    def regions(self, pyramid: Pyramid, lafs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn and stretch support regions as their patches say, so that two views of one surface agree.

        Weights that do not correct regions give them back as they are. Positions and areas never change.

        Args:
            pyramid: of the picture, see :func:`kornia_bingan.patches.build_pyramid`.
            lafs: support regions, float32 (N, 2, 3).

        Returns:
            float32, shape (N, 2, 3).
        """
        frames = self.network.frames
        if frames is None or not len(lafs):
            return lafs
        patches = torch.from_numpy(cut_patches(pyramid, lafs))
        values = next(frames.parameters())
        batch = self.batch if values.device.type == "cpu" else self.cuda_batch
        pieces = [frames(piece.to(values)).float().cpu() for piece in torch.split(patches, batch)]
        corrected = lafs.copy()
        corrected[:, :, :2] = lafs[:, :, :2] @ torch.cat(pieces).numpy()
        return corrected

    def _check(self, patches: Tensor) -> None:
        size = (1, PATCH_SIZE, PATCH_SIZE)
        if not isinstance(patches, Tensor):
            raise ValueError(
                f"patches are a float tensor (B, 1, 32, 32) in [0, 1], got {bits.dtype_and_shape(patches)}"
            )
        if patches.ndim != 4 or tuple(patches.shape[1:]) != size or not patches.is_floating_point():
            raise ValueError(f"patches are float (B, 1, 32, 32) in [0, 1], got {patches.dtype} {tuple(patches.shape)}")
        if bits.is_recording():
            return
        if len(patches):
            low, high = (float(x) for x in torch.aminmax(patches.detach()))
            # The resampling of others may overshoot a little; 255 or -1 is another range.
            if not (low >= -0.01 and high <= 1.01):  # also true for NaN
                raise ValueError(f"patches must be finite and in [0, 1], got values from {low:g} to {high:g}")
        self._warn_if_untrained()

    def _warn_if_untrained(self) -> None:
        if self.may_be_untrained and not self.training:
            self.may_be_untrained = False
            if _is_untrained(self.network):
                warnings.warn(
                    "this BinGAN is untrained, and its codes match badly; BinGAN(pretrained=True) and "
                    "BinGAN.from_pretrained load trained weights",
                    stacklevel=2,
                )

    def _described(self, patches: Tensor) -> Tensor:
        return self.network.describe(self.network.prepare(patches))

    def _coded(self, descriptors: Tensor, patches: Tensor) -> Tensor:
        if self.output == "descriptor":
            return descriptors.to(patches.dtype)
        if self.output == "code":
            return torch.where(descriptors >= 0, 1.0, -1.0).to(patches.dtype)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return bits.pack_by_sums(descriptors >= 0) if bits.is_recording() else bits.pack(descriptors)
        return bits.pack_by_sums(descriptors >= 0)


def _load(name_or_path: str | Path) -> tuple[PatchDiscriminator | PatchTrunk, str, str]:
    path = find_weights(name_or_path)
    network = load_weights(path)
    if isinstance(network, OfPictures):
        raise UsageError(f"{path} describes whole pictures, not patches; it is for bingan index")
    return network, path.stem, sha256_of(path)


def _is_untrained(network: PatchDiscriminator | PatchTrunk | FoldedNetwork) -> bool:
    """Say whether what any training changes, the bias of the code layer or the mean before it, is still 0."""
    offset: object
    if isinstance(network, FoldedNetwork):
        offset = network.layers[-1].bias
    elif isinstance(network, PatchTrunk):
        offset = network.code_normalisation.running_mean
    else:
        offset = network.code_layer.bias
    return isinstance(offset, Tensor) and not offset.any()


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
    patches = cut_patches(pyramid, model.regions(pyramid, support_regions(keypoints, support)))
    model._warn_if_untrained()
    values = next(chain(model.parameters(), model.buffers()))
    # A folded network casts by itself, after it has standardised.
    device, dtype = values.device, torch.float32 if isinstance(model.network, FoldedNetwork) else values.dtype
    codes = np.empty((len(patches), model.bits // 8), np.uint8)
    batch = model.batch if device.type == "cpu" else model.cuda_batch
    for start in range(0, len(patches), batch):
        piece = torch.from_numpy(patches[start : start + batch]).to(device, dtype)
        low = model._described(piece)
        codes[start : start + len(piece)] = bits.pack(low).cpu().numpy()
    return codes
