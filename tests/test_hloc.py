"""hloc at commit c13273b and glue-factory at commit 2d17e3b: themselves where they can be imported, else stand-ins that
find, set up and call models as their source does."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch

from kornia_bingan import bits
from kornia_bingan.cli import entry
from kornia_bingan.colmap import cameras_for, write_features
from kornia_bingan.errors import UsageError
from kornia_bingan.matching import match
from kornia_bingan.reconstruct.features import Features, features_path
from kornia_bingan.reconstruct.features_h5 import hloc_arrays
from tests.helpers.photos import texture
from tests.helpers.scenes import copy_scene

STAND_INS = {
    "hloc/__init__.py": "",
    "hloc/extractors/__init__.py": "",
    "hloc/matchers/__init__.py": "",
    "hloc/extract_features.py": "confs = {}",
    "hloc/match_features.py": "confs = {}",
    "hloc/utils/__init__.py": "",
    "hloc/utils/base_model.py": """
import inspect
from torch import nn
class BaseModel(nn.Module):
    def __init__(self, conf):
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)
    def forward(self, data):
        assert all(name in data for name in self.required_inputs)
        return self._forward(data)
def dynamic_load(root, model):
    path = f"{root.__name__}.{model}"
    module = __import__(path, fromlist=[""])
    found = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == path]
    (only,) = [c for c in found if issubclass(c, BaseModel)]
    return only
""",
    "gluefactory/__init__.py": "",
    "gluefactory/models/base_model.py": """
from types import SimpleNamespace
from torch import nn
class BaseModel(nn.Module):
    def __init__(self, conf):
        super().__init__()
        self.conf = SimpleNamespace(**{**self.default_conf, **conf})
        self._init({**self.default_conf, **conf})
    def set_initialized(self):
        self.are_weights_initialized = True
    def forward(self, data):
        assert all(name in data for name in self.required_data_keys)
        return self._forward(data)
""",
    "gluefactory/models/__init__.py": """
import inspect
from .base_model import BaseModel
def get_model(path):
    module = __import__(path, fromlist=[""])
    found = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == path]
    (only,) = [c for c in found if issubclass(c, BaseModel)]
    return only
""",
}
HAS_HLOC, HAS_GLUE_FACTORY = (find_spec(name) is not None for name in ("hloc", "gluefactory"))


@pytest.fixture(scope="module", autouse=True)
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("hosts")
    for name, text in STAND_INS.items():
        if find_spec(name.partition("/")[0]) is None or (folder / name.partition("/")[0]).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    sys.path.append(str(folder))
    yield importlib.import_module("kornia_bingan.hloc")
    sys.path.remove(str(folder))
    if any(folder.iterdir()):
        for name in [name for name in sys.modules if name.split(".")[0] in ("hloc", "gluefactory")]:
            del sys.modules[name]
        del sys.modules["kornia_bingan.hloc"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    wall = texture(240, 420, 5)
    (folder / "left").mkdir()
    cv2.imwrite(str(folder / "left" / "0.png"), wall[:, :360])
    cv2.imwrite(str(folder / "1.png"), wall[:, 60:])
    return folder


@pytest.fixture(scope="module")
def described(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("described")
    assert entry.main(["describe", str(photos), str(out), "--format", "h5", "--max-keypoints", "300"]) == 0
    return out


def picture(path: Path) -> torch.Tensor:
    return torch.from_numpy(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255)[None, None]


def of_hloc(kind: str, conf: dict[str, Any]) -> torch.nn.Module:
    from hloc.utils.base_model import dynamic_load

    model: torch.nn.Module = dynamic_load(importlib.import_module(f"hloc.{kind}"), conf["name"])(conf)
    return model.eval()


def read(file: Path, name: str) -> dict[str, np.ndarray]:
    with h5py.File(file, "r") as opened:
        return {key: values[()] for key, values in opened[name].items()}


def test_the_file_is_what_hloc_writes(described: Path, photos: Path) -> None:
    from hloc import extract_features

    settings = extract_features.confs["bingan256"]
    assert settings["preprocessing"] == {"grayscale": True}
    model = of_hloc("extractors", {**settings["model"], "max_keypoints": 300})
    found = model({"image": picture(photos / "left" / "0.png")})
    stored = read(described / "features.h5", "left/0.png")
    assert stored.pop("image_size").tolist() == [360, 240]
    assert set(found) == set(stored)
    assert found["descriptors"].shape == (1, 256, 300)
    for key, values in stored.items():
        np.testing.assert_array_equal(found[key][0].numpy(), values, strict=key not in ("keypoints", "descriptors"))
    with h5py.File(described / "features.h5") as file:
        assert file["left/0.png/keypoints"].attrs["uncertainty"] == model.detection_noise == 1
    # float64 is what hloc's as_half leaves alone; its file has what COLMAP needs at any width of a picture
    assert found["keypoints"].dtype == torch.float64
    assert stored["keypoints"].dtype == np.float32
    np.testing.assert_array_equal(stored["descriptors"].astype(np.float32), found["descriptors"][0].numpy())


def test_the_centre_of_the_first_pixel_is_0(described: Path, tmp_path: Path) -> None:
    """hloc adds 0.5 to what its files hold when it writes COLMAP's database; so does :func:`write_features`."""
    import pycolmap

    features = Features.read(features_path(described, "1.png"))
    write_features(tmp_path / "database.db", {"1.png": features.keypoints}, cameras_for({"1.png": (360, 240)}))
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        ours = database.read_keypoints(database.read_all_images()[0].image_id)[:, :2]
    np.testing.assert_array_equal(read(described / "features.h5", "1.png")["keypoints"] + np.float32(0.5), ours)


def test_a_blob_is_where_it_is(ours: ModuleType) -> None:
    x, y = np.meshgrid(np.arange(120), np.arange(100))
    blob = np.exp(-((x - 71.0) ** 2 + (y - 40.0) ** 2) / (2 * 5.0**2))
    model = of_hloc("extractors", {"name": "bingan"})
    found = model({"image": torch.from_numpy(blob.astype(np.float32))[None, None]})
    strongest = found["scores"][0].argmax()
    np.testing.assert_allclose(found["keypoints"][0, strongest].numpy(), [71, 40], atol=0.1)
    assert 3 < found["scales"][0, strongest] < 7


@pytest.mark.parametrize("matcher", ["ratio", "context"])
def test_matches_of_the_file(matcher: str, described: Path) -> None:
    from hloc import match_features

    first, second = (read(described / "features.h5", name) for name in ("left/0.png", "1.png"))
    data = {
        f"{key}{k}": torch.from_numpy(v)[None].float() for k, f in enumerate((first, second)) for key, v in f.items()
    }
    found = of_hloc("matchers", match_features.confs[f"bingan-{matcher}"]["model"])(data)
    rows0 = np.flatnonzero(found["matches0"][0] >= 0)
    rows1 = found["matches0"][0].numpy()[rows0]
    moved = first["keypoints"][rows0] - second["keypoints"][rows1]
    assert len(rows0) > 100
    assert np.median(np.abs(moved - [60, 0])) < 0.1
    scores = found["matching_scores0"][0].numpy()
    assert ((scores[rows0] >= 0.2) & (scores[rows0] <= 1)).all()
    assert not np.delete(scores, rows0).any()
    if matcher == "ratio":
        codes = [Features.read(features_path(described, name)).codes for name in ("left/0.png", "1.png")]
        ratios, indices = match(*codes)
        np.testing.assert_array_equal(np.stack([rows0, rows1], 1), indices)
        np.testing.assert_array_equal(scores[rows0], 1 - ratios[:, 0])


def test_descriptors_have_length_1_and_their_products_count_bits(described: Path) -> None:
    features = Features.read(features_path(described, "1.png"))
    vectors = hloc_arrays(features)["descriptors"]
    products = 128 * (1 - vectors.T @ vectors)
    np.testing.assert_array_equal(products, bits.hamming_distances(features.codes, features.codes))


@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (1, 1)])
def test_few_keypoints(counts: tuple[int, int]) -> None:
    data = {f"descriptors{k}": torch.ones(1, 256, count) for k, count in enumerate(counts)}
    found = of_hloc("matchers", {"name": "bingan"})(data)
    assert found["matches0"].shape == found["matching_scores0"].shape == (1, counts[0])
    assert (found["matches0"] == -1).all()


def test_a_uniform_picture_has_no_keypoints(tmp_path: Path) -> None:
    found = of_hloc("extractors", {"name": "bingan"})({"image": torch.full((1, 1, 60, 80), 0.5)})
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "keypoints": (1, 0, 2),
        "scales": (1, 0),
        "oris": (1, 0),
        "scores": (1, 0),
        "descriptors": (1, 256, 0),
    }
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((60, 80), 128, np.uint8))
    assert entry.main(["describe", str(tmp_path), str(tmp_path / "out"), "--format", "h5"]) == 0
    assert read(tmp_path / "out" / "features.h5", "grey.png")["descriptors"].shape == (256, 0)


def test_wrong_use(ours: ModuleType) -> None:
    with pytest.raises(UsageError, match="the matcher is 'fast'"):
        of_hloc("matchers", {"name": "bingan", "matcher": "fast"})
    with pytest.raises(UsageError, match="the matcher is 'auto'; choose ratio or context"):
        of_hloc("matchers", {"name": "bingan", "matcher": "auto"})
    with pytest.raises(UsageError, match="needs keypoints0"):
        of_hloc("matchers", {"name": "bingan", "matcher": "context"})(
            {"descriptors0": torch.ones(1, 256, 3), "descriptors1": torch.ones(1, 256, 3)}
        )
    with pytest.raises(UsageError, match="one image is described at a time, got 2"):
        of_hloc("extractors", {"name": "bingan"})({"image": torch.zeros(2, 1, 60, 80)})


def test_describe_says_what_is_missing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kornia_bingan.reconstruct.features_h5.find_spec", lambda name: None)
    assert entry.main(["describe", str(photos), str(tmp_path / "out"), "--format", "h5"]) == 1
    assert "pip install 'kornia_bingan[h5]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_describe_warns_of_turned_photos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(texture(80, 120)).save(tmp_path / "photos" / "turned.jpg", exif=exif)
    assert entry.main(["describe", str(tmp_path / "photos"), str(tmp_path / "out"), "--format", "h5"]) == 0
    assert "1 of 1 photos have an EXIF orientation" in caplog.text
    assert read(tmp_path / "out" / "features.h5", "turned.jpg")["image_size"].tolist() == [80, 120]


def test_a_folder_called_hloc_is_not_hloc(tmp_path: Path) -> None:
    (tmp_path / "hloc").mkdir()
    program = "import kornia_bingan.hloc"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    # where the hosts are installed, the folder must not hide them
    assert (
        ("needs hloc or gluefactory" in done.stderr) == (done.returncode != 0) == (not (HAS_HLOC or HAS_GLUE_FACTORY))
    )


def test_glue_factory(photos: Path, ours: ModuleType) -> None:
    from gluefactory.models import get_model

    extractor = get_model("kornia_bingan.hloc")({"name": "kornia_bingan.hloc", "max_keypoints": 200}).eval()
    image = picture(photos / "1.png")
    found = extractor({"image": image})
    (expected,) = [ours.extract(image, extractor.model, "dog", 200)]
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "scales": (1, 200),
        "oris": (1, 200),
        "keypoint_scores": (1, 200),
        "keypoints": (1, 200, 2),
        "descriptors": (1, 200, 256),
    }
    assert torch.equal(found["keypoints"][0], expected["keypoints"] + 0.5)
    assert torch.equal(found["descriptors"][0], expected["descriptors"].T)
    # what a batch is padded with is no picture
    padded = torch.nn.functional.pad(image, (0, 40, 0, 30), value=1.0)
    again = extractor({"image": padded.expand(2, 3, -1, -1), "image_size": torch.tensor([[360, 240], [360, 240]])})
    assert torch.equal(again["keypoints"][1], found["keypoints"][0])


@pytest.mark.skipif(not HAS_HLOC, reason="hloc is not installed; no package index has it")
def test_pairs_features_matches_triangulation_in_hloc(tmp_path: Path) -> None:
    copy_scene(tmp_path / "scene", 3)
    program = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "hloc_model.py"))
    model = program["main"](tmp_path / "scene" / "images", tmp_path / "out")
    assert model.num_reg_images() == 3
    assert model.num_points3D() > 500
    assert model.compute_mean_reprojection_error() < 0.3
