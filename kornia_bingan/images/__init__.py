"""A folder becomes a list of photos, and a photo becomes a grey array; masks, EXIF and photos under a URL."""

from __future__ import annotations

from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import read_image

__all__ = ["list_images", "read_image"]
