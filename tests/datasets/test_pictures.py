"""Small labelled pictures: three layouts that agree, damaged ones, views, and training on them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kornia_bingan import BinGAN
from kornia_bingan.datasets.pictures import read_picture_set, reduce_picture
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import ImageDiscriminator
from kornia_bingan.network.weights import load_weights
from kornia_bingan.train.batches import open_source
from kornia_bingan.train.config import preset_config
from kornia_bingan.train.loop import train
from kornia_bingan.train.picture_jitter import NO_PICTURE_JITTER, PictureJitter, blurred, draw_views, recolour
from tests.train.test_loop import log_of

CLASSES = ("bird", "ship")


def pictures_of(split: str, cls: int, count: int) -> np.ndarray:
    """Noise around a colour and a direction of the class, RGB uint8 (count, 32, 32, 3)."""
    rng = np.random.default_rng([len(split), cls])
    base = np.zeros((32, 32, 3)) + np.array([[200, 80, 60], [40, 90, 190]][cls])
    base += 40 * np.sin(np.arange(32) / (2 + cls))[:, None, None]
    return np.clip(base + rng.normal(0, 25, (count, 32, 32, 3)), 0, 255).astype(np.uint8)


COUNTS = {"train": 20, "test": 5}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "tree"
    for split, count in COUNTS.items():
        for cls, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number, picture in enumerate(pictures_of(split, cls, count)):
                cv2.imwrite(str(folder / split / name / f"{number:03}.png"), picture[:, :, ::-1])
    return folder


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    index: dict[str, Any] = {"tile": 32, "sheets": []}
    for split, count in COUNTS.items():
        for cls, name in enumerate(CLASSES):
            tiles = np.zeros((8, 5, 32, 32, 3), np.uint8)
            tiles.reshape(-1, 32, 32, 3)[:count] = pictures_of(split, cls, count)
            file = f"{split}_{name}.png"
            cv2.imwrite(str(tmp_path / file), tiles.transpose(0, 2, 1, 3, 4).reshape(256, 160, 3)[:, :, ::-1])
            sheet = {"file": file, "split": split, "cls": name, "first": 0, "count": count, "columns": 5}
            index["sheets"].append(sheet)
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def write_batches(folder: Path, *, labels: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, split, part in [(f"data_batch_{n}", "train", slice(4 * n - 4, 4 * n)) for n in range(1, 6)] + [
        ("test_batch", "test", slice(None))
    ]:
        parts = [pictures_of(split, cls, COUNTS[split])[part] for cls in range(2)]
        data = np.concatenate(parts).transpose(0, 3, 1, 2).reshape(-1, 3072)
        batch = {b"data": data, b"labels": [cls for cls in range(2) for _ in parts[cls]], b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [name.encode() for name in CLASSES[:labels]]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return folder


def contents(pictures: np.ndarray, labels: np.ndarray) -> set[tuple[int, bytes]]:
    return {(int(label), picture.tobytes()) for picture, label in zip(pictures, labels, strict=True)}


def test_the_three_layouts_agree(tree: Path, sheets: Path, tmp_path: Path) -> None:
    write_batches(tmp_path / "official" / "cifar-10-batches-py")
    read = [read_picture_set(folder) for folder in (tree, sheets, tmp_path / "official")]
    for split, count in COUNTS.items():
        sets = [getattr(each, split) for each in read]
        truth = {(cls, p.tobytes()) for cls in range(2) for p in pictures_of(split, cls, count)}
        for each in sets:
            assert each.classes == CLASSES
            assert contents(each.pictures, each.labels) == truth
    labels = read[0].train.labels
    assert 0 < np.flatnonzero(labels == 1)[0] < 10, "not sorted by class"
    np.testing.assert_array_equal(read_picture_set(tree).train.labels, labels)


def test_damaged_sets_are_named(tree: Path, sheets: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither CIFAR-10's python batches"):
        read_picture_set(tmp_path / "absent")
    batches = write_batches(tmp_path / "b")
    (batches / "data_batch_3").write_bytes((batches / "data_batch_3").read_bytes()[:500])
    with pytest.raises(UsageError, match=r"data_batch_3 is no batch of CIFAR-10, or is damaged"):
        read_picture_set(batches)
    (batches / "data_batch_3").unlink()
    with pytest.raises(UsageError, match=r"data_batch_3 is missing"):
        read_picture_set(batches)
    (batches / "data_batch_3").write_bytes(pickle.dumps({b"labels": [0]}))
    with pytest.raises(UsageError, match=r"data_batch_3 has no 'data'"):
        read_picture_set(batches)
    (batches / "data_batch_3").write_bytes(pickle.dumps({b"data": np.zeros((2, 100), np.uint8), b"labels": [0, 1]}))
    with pytest.raises(UsageError, match=r"it must be \(N, 3072\)"):
        read_picture_set(batches)
    with pytest.raises(UsageError, match=r"a label is 1, but there are 1 classes"):
        read_picture_set(write_batches(tmp_path / "c", labels=1))
    index = json.loads((sheets / "index.json").read_text())
    for change, message in (
        ({"count": 41}, "too small for 41 tiles"),
        ({"split": "other"}, "the split of train_bird.png is 'other'"),
        ({"file": "absent.png"}, "absent.png"),
    ):
        changed = {**index, "sheets": [{**index["sheets"][0], **change}, *index["sheets"][1:]]}
        (sheets / "index.json").write_text(json.dumps(changed))
        with pytest.raises(UsageError, match=message):
            read_picture_set(sheets)
    (sheets / "index.json").write_text("{}")
    with pytest.raises(UsageError, match=r"index\.json is no index of sheets"):
        read_picture_set(sheets)
    few = tmp_path / "few"
    for split in COUNTS:
        (few / split / "bird").mkdir(parents=True)
        cv2.imwrite(str(few / split / "bird" / "1.png"), np.zeros((40, 50, 3), np.uint8))
    with pytest.raises(UsageError, match=r"bird has 1 pictures; a class needs 2"):
        read_picture_set(few)


def test_a_pickle_with_anything_else_is_refused(tmp_path: Path) -> None:
    batches = write_batches(tmp_path / "b")

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("harm",))

    (batches / "data_batch_1").write_bytes(pickle.dumps({b"data": Harm(), b"labels": []}))
    with pytest.raises(UsageError, match=r"data_batch_1 .*it wants builtins\.print"):
        read_picture_set(batches)


def test_larger_pictures_lose_their_sides() -> None:
    picture = np.zeros((64, 200, 3), np.uint8)
    picture[:, 68:132] = 255
    assert (reduce_picture(picture) == 255).all()
    assert reduce_picture(np.zeros((8, 9, 3), np.uint8)).shape == (32, 32, 3)


def views_of(pictures: np.ndarray, jitter: PictureJitter) -> np.ndarray:
    return draw_views(torch.from_numpy(pictures), jitter, np.random.default_rng(0)).numpy()


def test_views_without_changes_are_the_pictures() -> None:
    pictures = pictures_of("train", 0, 4)
    views = views_of(pictures, NO_PICTURE_JITTER)
    np.testing.assert_allclose(views.transpose(0, 2, 3, 1), pictures / 255, atol=1e-6)
    mirrored = views_of(pictures, PictureJitter(1, 1, 0, grey=0))
    np.testing.assert_allclose(mirrored, views[..., ::-1])
    grey = views_of(pictures, PictureJitter(1, 0, 0, grey=1))
    np.testing.assert_allclose(grey[:, 0], grey[:, 2], atol=1e-6)


def test_crops_show_a_part_at_the_old_size() -> None:
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, None, :, None] * 8, (200, 32, 32, 3)).copy()
    views = 255 * views_of(ramp, PictureJitter(0.25, 0, 0, grey=0))
    widths = (views[:, 0, 16, -1] - views[:, 0, 16, 0]) / 8 / 31 * 32
    assert 12 < widths.min() < 20
    assert 26 < widths.max() <= 32.5
    assert views.min() >= 0


def test_smaller_views_show_the_whole_picture_where_nothing_is_cropped() -> None:
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, None, :, None] * 8, (3, 32, 32, 3)).copy()
    views = 255 / 8 * views_of(ramp, PictureJitter(1, 0, 0, grey=0, side=16))
    assert views.shape == (3, 3, 16, 16)
    # a pixel of the small view covers two: its middle lies between theirs, but for a crop that is up to 3 px narrower
    assert np.abs(views[:, 0, 8] - (2 * np.arange(16) + 0.5)).max() < 4.5
    assert views_of(ramp[:0], PictureJitter(side=24, blur=0.5)).shape == (0, 3, 24, 24)


def test_blurred_pixels_are_mixed_with_their_neighbours() -> None:
    views = torch.zeros(2, 3, 3, 3)
    views[:, :, 1, 1] = 1
    mixed = blurred(views, np.array([0.25, 0.0]))[:, 0]
    np.testing.assert_allclose(mixed[0], np.outer([1, 2, 1], [1, 2, 1]) / 16)
    assert torch.equal(mixed[1], views[1, 0])
    np.testing.assert_allclose(blurred(torch.full((1, 3, 4, 4), 0.3), np.array([0.2])), 0.3, rtol=1e-6)
    sharp, soft = (views_of(pictures_of("train", 0, 4), PictureJitter(1, 0, 0, grey=0, blur=blur)) for blur in (0, 1))
    assert (soft.std((1, 2, 3)) < sharp.std((1, 2, 3))).all()


def test_colours_stay_in_range_and_grey_stays_grey() -> None:
    rng = np.random.default_rng(0)
    views = torch.from_numpy(rng.random((20, 3, 8, 8)).astype(np.float32))
    changed = recolour(views, PictureJitter(), rng)
    assert changed.dtype == torch.float32
    assert 0 <= changed.min() <= changed.max() <= 1
    changed = recolour(views[:, :1].expand(-1, 3, -1, -1), PictureJitter(), rng)
    assert np.ptp(changed.numpy(), axis=1).max() < 1e-5


def test_the_published_network_for_pictures() -> None:
    network = ImageDiscriminator(32)
    convolutions = [layer.weight.shape for layer in network.layers]
    assert [tuple(shape[:2]) for shape in convolutions] == [
        (96, 3),
        (96, 96),
        (96, 96),
        (192, 96),
        (192, 192),
        (192, 192),
        (192, 192),
        (192, 192),
        (192, 192),
    ]
    x = network.prepare(torch.rand(40, 3, 32, 32))
    assert float(x.min()) >= -127.5 / 128
    network.train().initialise(x)
    taps = network.eval()(x)
    assert [tuple(tap.shape) for tap in taps] == [(40, 192), (40, 32), (40, 32), (40, 2)]
    torch.testing.assert_close(taps.low, taps.matching)
    torch.testing.assert_close(network.describe(x), taps.low)


SMALL = {"steps": 2, "batch_size": 6, "validate_every": 2, "validation_pairs": 10, "threads": 1, "device": "cpu"}


@pytest.mark.usefixtures("_few_initial_patches")
def test_training_with_the_published_objective(tree: Path, tmp_path: Path) -> None:
    result = train(preset_config("cifar10", tree, tmp_path / "run", **SMALL, log_every=1, bits=16))
    assert set(log_of(tmp_path / "run", "train")[0]) >= {"gan", "dmr", "bre", "generator"}
    assert 0 < result["validation"]["map"] <= 100
    picture = cv2.imread(str(tmp_path / "run" / "patches.png"))
    assert picture.shape == (256, 256 + 16 + 256, 3)
    assert np.ptp(picture[:32, :32].reshape(-1, 3), axis=0).max() > 0
    network = load_weights(Path(result["weights"]))
    assert isinstance(network, ImageDiscriminator)
    with pytest.raises(UsageError, match="describes whole pictures, not patches"):
        BinGAN.from_pretrained(result["weights"])


def test_two_views_keep_the_classes_of_simple_pictures_apart(tree: Path, tmp_path: Path) -> None:
    changes = {**SMALL, "steps": 6, "batch_size": 12, "log_every": 1, "bits": 24, "nested": (8,)}
    config = preset_config("cifar10-two-view", tree, tmp_path / "run", **changes)
    result = train(config)
    untrained, *_, learnt = (line["map"] for line in log_of(tmp_path / "run", "validation"))
    assert learnt == result["validation"]["map"]
    assert learnt > 95  # the untrained network reaches 98 on pictures so simple; codes that collapse do not
    assert learnt >= untrained
    with pytest.raises(UsageError, match=r"nested is \(24,\)"):
        train(preset_config("cifar10-two-view", tree, tmp_path / "other", **{**changes, "nested": (24,)}))
    with pytest.raises(UsageError, match="has 40 pictures to learn from; a batch of 64 needs more"):
        open_source(preset_config("cifar10", tree, tmp_path / "x", **{**SMALL, "batch_size": 64}))
