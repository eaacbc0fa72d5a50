"""hloc from photos to a model with our codes: python examples/hloc_model.py PHOTOS OUT

Needs hloc (git clone --recursive https://github.com/cvg/Hierarchical-Localization, then pip install -e it).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hloc import extract_features, match_features, pairs_from_exhaustive, reconstruction, triangulation

import kornia_bingan.hloc  # noqa: F401  hloc finds our models by name from here on


def main(photos: Path, out: Path) -> Any:
    """Make a model of photos, then find its points once more with its cameras held; gives a pycolmap.Reconstruction."""
    features = extract_features.main(extract_features.confs["bingan256"], photos, out)
    pairs = out / "pairs.txt"
    pairs_from_exhaustive.main(pairs, features=features)
    matches = match_features.main(match_features.confs["bingan-ratio"], pairs, features.stem, out)
    reconstruction.main(out / "model", photos, pairs, features, matches)
    # hloc's other way to verify pairs writes none that pycolmap 4.2 uses, with any features
    return triangulation.main(
        *(out / "points", out / "model", photos, pairs, features, matches), estimate_two_view_geometries=True
    )


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])).summary())
