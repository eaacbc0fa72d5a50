from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import kornia_bingan
from kornia_bingan import BinGAN, PatchTrunk, bits, list_models
from kornia_bingan.cli import main
from kornia_bingan.errors import JobError
from kornia_bingan.network import onnx as onnx_export
from kornia_bingan.network.onnx import export_onnx
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.published import ImageDiscriminator
from kornia_bingan.network.weights import load_weights, save_weights
from tests.helpers.once import made_once


@pytest.fixture(scope="module")
def exported() -> Path:
    def export(path: Path) -> None:
        assert main(["export", str(path), "--descriptor", "bingan256-lite"]) == 0

    return made_once("by_command.onnx", export)


@pytest.mark.parametrize("count", [0, 1, 70])
def test_onnxruntime_gives_the_codes_of_torch(exported: Path, count: int) -> None:
    patches = np.random.default_rng(count).random((count, 1, 32, 32), np.float32)
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    codes, descriptors = session.run(None, {"patches": patches})
    with torch.no_grad():
        expected = BinGAN.from_pretrained("bingan256-lite", output="descriptor")(torch.from_numpy(patches)).numpy()
    assert codes.dtype == np.uint8
    assert codes.shape == (count, 32)
    np.testing.assert_allclose(descriptors, expected, atol=1e-3)
    sure = np.abs(expected) > 1e-3
    assert np.array_equal(np.unpackbits(codes, axis=1)[sure] == 1, expected[sure] >= 0)
    assert np.array_equal(codes, bits.pack(descriptors))


@pytest.mark.parametrize("count", [1, 70])
def test_opencv_gives_the_codes_of_onnxruntime(exported: Path, count: int) -> None:
    patches = np.random.default_rng(count).random((count, 1, 32, 32), np.float32)
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    expected, descriptors = session.run(None, {"patches": patches})
    network = cv2.dnn.readNetFromONNX(str(exported))
    network.setInput(patches)
    codes = network.forward("codes")
    assert codes.shape == expected.shape
    sure = np.abs(descriptors) > 1e-3  # two libraries sum in two orders
    assert sure.mean() > 0.99
    assert np.array_equal(np.unpackbits(codes.astype(np.uint8), axis=1)[sure], np.unpackbits(expected, axis=1)[sure])


def test_zero_and_minus_zero_are_ones() -> None:
    class Given(torch.nn.Module):
        bits = 16
        prepare = staticmethod(lambda rows: rows)
        describe = prepare

    values = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5, 1.0, -1.0, 7.9, -7.9, 300.0, -300.0, 1e6, -1e6, 2, -2])
    codes, _ = onnx_export._CodesAndDescriptors(Given())(values[None])  # type: ignore[arg-type]
    np.testing.assert_array_equal(codes.numpy(), bits.pack(values[None].numpy()))


def test_a_uniform_patch(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    patches = np.full((1, 1, 32, 32), 0.3, np.float32)
    _, found = session.run(None, {"patches": patches})
    with torch.no_grad():
        expected = BinGAN.from_pretrained("bingan256-lite", output="descriptor")(torch.from_numpy(patches)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_file_says_what_it_is(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    (shipped,) = [model for model in list_models() if model.name == "bingan256-lite"]
    assert (about["name"], about["sha256"], about["bits"]) == (shipped.name, shipped.sha256, "256")
    assert about["version"] == kornia_bingan.__version__
    assert json.loads(about["support"]) == {"blobs": 6, "ORB": 0.65, "FAST": 2, "BRISK": 1}
    assert "round(log2(2 h / 32))" in about["patch"]


@pytest.mark.parametrize("kind", [ImageDiscriminator, PictureNetwork])
def test_networks_of_pictures_are_exported_too(
    kind: type[ImageDiscriminator] | type[PictureNetwork], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = kind(16).eval() if kind is ImageDiscriminator else PictureNetwork(16, ((4, 1), (6, 1), (8, 1))).eval()
    save_weights(tmp_path / "a.safetensors", network, {})
    export_onnx(tmp_path / "a.safetensors", tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    again = load_weights(tmp_path / "a.safetensors")
    for count in (0, 1, 3):
        pictures = np.random.default_rng(count).random((count, 3, 32, 32), np.float32)
        codes, descriptors = session.run(None, {"pictures": pictures})
        with torch.no_grad():
            expected = again.describe(again.prepare(torch.from_numpy(pictures))).numpy()
        assert codes.shape == (count, 2)
        np.testing.assert_allclose(descriptors, expected, atol=1e-3)
        assert np.array_equal(codes, bits.pack(descriptors))


def test_the_file_says_opset_and_names(exported: Path) -> None:
    model = onnx.load(str(exported))
    onnx.checker.check_model(model)
    assert max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) == onnx_export.OPSET
    assert [value.name for value in model.graph.input] == ["patches"]
    assert [value.name for value in model.graph.output] == ["codes", "descriptors"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["export", str(tmp_path / "codes.pt")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err
    save_weights(tmp_path / "own.safetensors", PatchTrunk(layers=((8, 2), (16, 2))), {})
    found = importlib.util.find_spec
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnx" else found(name))
    with pytest.raises(JobError, match=r"onnx not installed; pip install 'kornia_bingan\[onnx\]'"):
        onnx_export.export_onnx(tmp_path / "own.safetensors", tmp_path / "a.onnx")
    assert not list(tmp_path.glob("*.onnx"))
