"""Learned 256-bit local descriptors for Kornia, OpenCV and COLMAP.

    images -> patches -> network -> descriptor -> bits -> matches -> geometry -> report

The public names are imported on first use, so that ``bingan --help`` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kornia_bingan.descriptor import BinGAN
    from kornia_bingan.kornia import ContextMatcher
    from kornia_bingan.matching import HammingMatcher, match, match_in_context
    from kornia_bingan.network.published import Generator, ImageDiscriminator, PatchDiscriminator, PatchTrunk
    from kornia_bingan.network.weights import list_models

_MODULE_OF = {
    "BinGAN": "descriptor",
    "ContextMatcher": "kornia",
    "HammingMatcher": "matching",
    "match": "matching",
    "match_in_context": "matching",
    "Generator": "network.published",
    "ImageDiscriminator": "network.published",
    "PatchDiscriminator": "network.published",
    "PatchTrunk": "network.published",
    "list_models": "network.weights",
}
_SUBMODULES = {"bits", "colmap", "hloc", "kornia", "losses", "matching", "opencv"}

__all__ = [
    "BinGAN",
    "ContextMatcher",
    "Generator",
    "HammingMatcher",
    "ImageDiscriminator",
    "PatchDiscriminator",
    "PatchTrunk",
    "__version__",
    "list_models",
    "match",
    "match_in_context",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"kornia_bingan.{_MODULE_OF[name]}"), name)
    if name in _SUBMODULES:
        return import_module(f"kornia_bingan.{name}")
    raise AttributeError(f"module 'kornia_bingan' has no attribute '{name}'")
