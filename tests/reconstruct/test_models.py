from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from kornia_bingan.colmap import read_model
from kornia_bingan.colmap.types import Verification
from kornia_bingan.reconstruct.models import in_no_model
from kornia_bingan.reconstruct.options import ReconstructOptions
from kornia_bingan.reconstruct.pipeline import reconstruct_photos
from kornia_bingan.reconstruct.summary import ModelPhotos, Summary
from kornia_bingan.work.options import FeatureOptions
from tests.helpers.photos import texture
from tests.helpers.scenes import copy_scene

OPTIONS = ReconstructOptions(FeatureOptions(descriptor="bingan256-lite", max_keypoints=600))


def test_a_photo_in_no_model_has_a_reason() -> None:
    verification = Verification(
        3, 1, 2, 70, {("lost", "shown"): 0, ("near", "shown"): 21, ("lost", "near"): 0, ("also", "near"): 17}
    )
    pairs = [("lost", "shown"), ("near", "shown"), ("lost", "near"), ("also", "near"), ("alien", "shown")]
    models = [ModelPhotos("model", 9, ["shown"]), ModelPhotos("models/1", 9, ["second", "shown"])]
    names = ["alien", "also", "listless", "lost", "near", "second", "shown"]
    assert {item.name: item.reason for item in in_no_model(names, models, pairs, verification)} == {
        "alien": "no matches with any photo",
        "also": "verified with 1 photo (17 inliers with near at most), but not registered",
        "listless": "compared with no other photo",
        "lost": "matches with 2 photos, but no verified pair",
        "near": "verified with 2 photos (21 inliers with shown at most), but not registered",
    }


def test_photos_of_two_places_give_two_models(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Four photos of one room, three of another, one of neither: each is said to be where it is."""
    photos = tmp_path / "photos"
    wanted = {}
    for folder, seed, count in (("one", 0, 4), ("two", 1, 3)):
        copy_scene(tmp_path / folder, count + 1, seed, half=True)
        (photos / folder).mkdir(parents=True)
        for path in sorted((tmp_path / folder / "images").iterdir())[:count]:
            shutil.copy(path, photos / folder)
        wanted[folder] = [f"{folder}/{path.name}" for path in sorted((photos / folder).iterdir())]
    cv2.imwrite(str(photos / "alien.png"), texture(300, 300))
    with caplog.at_level(logging.INFO):
        summary = reconstruct_photos(photos, tmp_path / "out", replace(OPTIONS, seed=1))
    assert [(model.folder, model.photos) for model in summary.models] == [
        ("model", wanted["one"]),
        ("models/1", wanted["two"]),
    ]
    assert (summary.images, summary.registered) == (8, 4)
    assert [item["name"] for item in summary.unregistered] == ["alien.png"]
    for model in summary.models:
        found = read_model(tmp_path / "out" / model.folder)
        assert list(found.names) == model.photos
        assert len(found.xyz) == model.points > 100
        assert found.rgb.any()
        assert f"{model.folder}: {len(model.photos)} photos, {model.points} points: {model.photos[0]}" in caplog.text
    assert "in no model: alien.png: " in caplog.text
    assert Summary.read(tmp_path / "out" / "summary.json") == summary
