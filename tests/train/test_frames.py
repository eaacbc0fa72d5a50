"""The frame network learns, alone, what its loss says; the geometry of views and corrections is by construction."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kornia_bingan import losses
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import PatchTrunk
from kornia_bingan.network.weights import load_weights, save_weights
from kornia_bingan.train.config import check_config, preset_config
from kornia_bingan.train.frames import corrected, frame_losses, middle, resampled
from kornia_bingan.train.jitter import NO_JITTER, Batch
from kornia_bingan.train.loop import train, train_step
from kornia_bingan.train.photos import VIEW_SIZE, Photo, cut_from, cut_on_device, draw_batch, load_photos
from kornia_bingan.train.state import TrainingState
from tests.helpers.photos import write_photos
from tests.train.test_loop import SMALL, log_of

LAYERS = ((8, 2), (16, 2))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 4)


@pytest.fixture(scope="module")
def photos(folder: Path) -> list[Photo]:
    return load_photos(folder, 100)[0]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trunk with random filters, whose bits are balanced on noise."""
    torch.manual_seed(0)
    network = PatchTrunk(64, LAYERS).train()
    for _ in range(30):
        network(network.prepare(torch.rand(64, 1, 32, 32)))
    path = tmp_path_factory.mktemp("start") / "trunk.safetensors"
    save_weights(path, network.eval(), {})
    return path


def views(photos: list[Photo], **jitter: float) -> Batch:
    rng = np.random.default_rng(0)
    return draw_batch(photos, cut_from(photos, CPU), 40, 4, replace(NO_JITTER, **jitter), rng, side=VIEW_SIZE)


def config(folder: Path, start: Path, out: Path, **changes: Any) -> Any:
    few = {key: value for key, value in SMALL.items() if key not in ("layers", "photos_per_batch")}
    return preset_config("frames", folder, out, **{**few, "start": str(start), "photos_per_batch": 3, **changes})


def test_views_show_the_region_and_its_surroundings(photos: list[Photo]) -> None:
    batch = views(photos)
    assert batch.patches0.shape == (40, 1, 48, 48)
    rng = np.random.default_rng(0)
    plain = draw_batch(photos, cut_from(photos, CPU), 40, 4, NO_JITTER, rng).patches0
    # of the same cells, but the pyramid's levels are chosen by the larger view: the same level for the same cell
    assert (middle(batch.patches0) - plain).abs().max() < 1e-3
    torch.testing.assert_close(batch.change0, torch.eye(2).expand(40, 2, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(resampled(batch.patches0, torch.eye(2).expand(40, 2, 2)), middle(batch.patches0))
    assert corrected(None, plain) is plain
    assert torch.equal(corrected(None, batch.patches0), middle(batch.patches0))


def test_the_inverse_of_a_change_corrects_it(photos: list[Photo]) -> None:
    batch = views(photos, rotation_deg=25.0, log2_stretch=0.4, log2_scale=0.3)
    assert batch.change0 is not None
    assert batch.change1 is not None
    np.testing.assert_allclose(np.linalg.det(batch.change0), 1, rtol=1e-4)
    assert (batch.change0 - batch.change1).abs().max() > 0.3
    undone = [torch.linalg.inv(change) for change in (batch.change0, batch.change1)]
    assert float(losses.same_region(batch.change0 @ undone[0], batch.change1 @ undone[1])) < 0.011  # 0.01 / 1.01
    # scale is not undone: the patch of the unchanged region at that scale differs between views only by resampling
    batch = views(photos, rotation_deg=25.0, log2_stretch=0.4)
    patches = [
        resampled(view, torch.linalg.inv(change))
        for view, change in ((batch.patches0, batch.change0), (batch.patches1, batch.change1))
        if change is not None
    ]
    before = (middle(batch.patches0) - middle(batch.patches1)).abs().mean()
    assert (patches[0] - patches[1]).abs().mean() < 0.25 * before


def test_a_gpus_views_are_those_of_opencv(photos: list[Photo]) -> None:
    photo_of, lafs = np.zeros(20, np.int64), photos[0].lafs[:20]
    expected, found = (cut(photos, CPU)(photo_of, lafs, VIEW_SIZE) for cut in (cut_from, cut_on_device))
    assert (expected - found).abs().max() < 2 / 255


def test_same_region_by_hand() -> None:
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    assert float(losses.same_region(turn[None], turn[None])) == pytest.approx(0.01 / 1.01, rel=1e-3)
    stretched = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    error = math.sqrt(1 + 0.25 + 1e-4)
    assert float(losses.same_region(torch.eye(2)[None], stretched[None])) == pytest.approx(error / (1 + error))
    both = losses.same_region(torch.stack([turn, torch.eye(2)]), torch.stack([turn @ stretched, torch.eye(2)]))
    assert float(both) == pytest.approx((error / (1 + error) + 0.01 / 1.01) / 2, rel=1e-4)


def test_margin_by_hand() -> None:
    rng = np.random.default_rng(0)
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, 5, 8)))
    distance = np.linalg.norm(a[:, None] - b, axis=2)
    others = np.where(np.eye(5, dtype=bool), np.inf, distance)
    nearest = np.minimum(others.min(1), others.min(0))
    expected = np.maximum(0, 0.5 + np.diag(distance) - nearest).mean()
    low0, low1 = torch.tensor(3 * a, requires_grad=True), torch.tensor(0.2 * b)
    found = losses.margin(low0, low1)
    assert float(found.detach()) == pytest.approx(expected)
    found.backward()  # type: ignore[no-untyped-call]
    assert low0.grad is not None
    ignore = torch.from_numpy(distance < np.sort(others.ravel())[0] + 1e-9)  # the nearest other is neither
    others[ignore.numpy()] = np.inf
    nearest = np.minimum(others.min(1), others.min(0))
    expected = np.maximum(0, 0.3 + np.diag(distance) - nearest).mean()
    assert float(losses.margin(low0, low1, ignore, 0.3).detach()) == pytest.approx(expected)
    alone = torch.eye(3, requires_grad=True)
    losses.margin(alone, torch.eye(3)).backward()  # type: ignore[no-untyped-call]
    assert alone.grad is not None
    assert alone.grad.abs().max() < 1e-3, "others have no gradient"


def test_a_step_moves_the_frame_network_alone(folder: Path, start: Path, photos: list[Photo], tmp_path: Path) -> None:
    state = TrainingState(config(folder, start, tmp_path / "run", precision="float32", learning_rate=1e-2))
    assert isinstance(state.network, PatchTrunk)
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    batch = views(photos, rotation_deg=20.0, log2_stretch=0.8)
    state.set_training()
    first = frame_losses(state, batch)
    assert set(first) == {"frames", "two_view"}
    state.step = 5
    records = [train_step(state, batch) for _ in range(25)]
    for name, value in state.network.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("frames."), name
    assert records[-1]["frames"] < 0.9 * records[0]["frames"]


def test_a_run_from_the_command_and_its_weights(folder: Path, start: Path, tmp_path: Path) -> None:
    result = train(config(folder, start, tmp_path / "run"))
    assert result["finished"]
    assert {"frames", "two_view"} < set(log_of(tmp_path / "run", "train")[0])
    network = load_weights(tmp_path / "run" / "weights.safetensors")
    assert isinstance(network, PatchTrunk)
    assert network.frames is not None
    given = load_weights(start).state_dict()
    for name, value in network.state_dict().items():
        assert name.startswith("frames.") or torch.equal(value, given[name])
    assert (tmp_path / "run" / "patches.png").exists()
    # training goes on from them, of the frames and of the codes
    for preset in ("frames", "adapt"):
        values = config(folder, tmp_path / "run" / "weights.safetensors", tmp_path / preset, steps=2)
        changes = {"preset": preset, "lambda_frames": 0.0} if preset == "adapt" else {}
        assert train(replace(values, **changes))["finished"]
        again = load_weights(tmp_path / preset / "weights.safetensors")
        assert isinstance(again, PatchTrunk)
        assert again.frames is not None
        same = torch.equal(again.frames.last.weight, network.frames.last.weight)
        assert same == (preset == "adapt")
        assert torch.equal(again.code_layer.weight, network.code_layer.weight) == (preset == "frames")


def test_bfloat16_ends_in_the_same_region(folder: Path, start: Path, tmp_path: Path) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        train(config(folder, start, out, steps=1, log_every=1, precision=precision))
        found[precision] = log_of(out, "train")[-1]["frames"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.1)


def test_wrong_use(folder: Path, start: Path, tmp_path: Path) -> None:
    fine = config(folder, start, tmp_path)
    check_config(fine)
    for changes in ({"start": ""}, {"network": "PatchDiscriminator"}):
        with pytest.raises(UsageError, match="lambda_frames needs weights to start from"):
            check_config(replace(fine, **changes))
    for changes in ({"tracks": (folder,)}, {"lambda_gan": 1.0}):
        with pytest.raises(UsageError, match="lambda_frames learns from photos"):
            check_config(replace(fine, **changes))
