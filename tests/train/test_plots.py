from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import Generator
from kornia_bingan.train import plots
from kornia_bingan.train.config import preset_config
from kornia_bingan.train.loop import train
from tests.helpers.photos import write_photos
from tests.train.test_loop import SMALL


def write_log(out: Path) -> None:
    rows = [{"step": 0, "kind": "validation", "fpr95": 80.0}]
    rows += [{"step": step, "kind": "train", "gan": 1.0 / step, "seconds": 2.0 * step} for step in range(1, 31)]
    rows += [{"step": 30, "kind": "validation", "fpr95": 40.0}]
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_log_is_read_by_name(tmp_path: Path) -> None:
    write_log(tmp_path)
    series = plots.read_log(tmp_path)
    assert series["val/fpr95"] == ([0, 30], [80.0, 40.0])
    assert len(series["gan"][0]) == 30
    assert set(series) == {"val/fpr95", "gan"}


def test_curves_fall_where_the_values_fall(tmp_path: Path) -> None:
    write_log(tmp_path)
    picture = cv2.imread(str(plots.draw_log(tmp_path)))
    assert picture is not None
    panel = picture[:, 480:960]  # gan, val/fpr95
    blue = (panel.astype(int) - [160, 60, 20]).__abs__().sum(2) < 60
    rows, columns = np.nonzero(blue)
    assert rows[columns < 100].mean() < rows[columns > 380].mean() - 50


def test_patches_of_both_kinds(tmp_path: Path) -> None:
    real = np.zeros((70, 1, 32, 32), np.float32)
    real[0] = 1
    picture = cv2.imread(str(plots.draw_patches(tmp_path, real, Generator(1), 0)), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape == (256, 256 + 16 + 256)
    assert (picture[:32, :32] == 255).all()
    assert (picture[32:, :256] == 0).all()
    assert picture[:, 272:].std() > 0
    alone = cv2.imread(str(plots.draw_patches(tmp_path, real[:3], None, 0)), cv2.IMREAD_GRAYSCALE)
    assert alone is not None
    assert alone.shape == (256, 256)


def test_a_run_leaves_pictures_and_tensorboard(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    data = write_photos(tmp_path / "photos", 4)
    changes = {**SMALL, "steps": 2, "lambda_gan": 0.1, "tensorboard": True}
    train(preset_config("photos", data, tmp_path / "run", **changes))
    assert {"curves.png", "patches.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"gan", "two_view", "generator", "val/fpr95", "val/ones_mean"} <= set(tags["scalars"])
    assert tags["images"] == ["patches, real and generated"]
    assert [event.step for event in events.Scalars("gan")] == [1, 2]


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write_log(tmp_path)
    with pytest.raises(UsageError, match=r"kornia_bingan\[tensorboard\]"):
        plots.write_tensorboard(tmp_path)
