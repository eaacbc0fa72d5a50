"""Truth: kornia_bingan.patches, whose pyramid and sampling are OpenCV's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from kornia_bingan import BinGAN
from kornia_bingan.cli import main
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import detect, support_regions
from kornia_bingan.network.onnx import export_onnx
from kornia_bingan.network.onnx_patches import LEVELS, put_before
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.weights import save_weights
from kornia_bingan.patches import PATCH_SIZE, SIDE_LIMIT, build_pyramid, cut_patches
from tests.helpers.photos import texture


def session_of(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def cutter(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A file that gives the patches themselves: of a model that does nothing with them."""
    import onnx_ir

    patches, same = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 1, PATCH_SIZE, PATCH_SIZE])
        for name in ("patches", "same")
    )
    nothing = onnx.helper.make_node("Identity", ["patches"], ["same"])
    proto = onnx.helper.make_model(
        onnx.helper.make_graph([nothing], "nothing", [patches], [same]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    model = onnx_ir.serde.deserialize_model(proto)
    put_before(model)
    path = tmp_path_factory.mktemp("onnx") / "cut.onnx"
    onnx_ir.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    return session_of(path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "image.onnx"
    assert main(["export", str(path), "--descriptor", "bingan256-lite", "--input", "image"]) == 0
    return path


def as_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return image[None, None].astype(np.float32) / np.float32(255)


def frames(count: int, height: int, width: int) -> NDArray[np.float32]:
    """Slanted frames from one pixel a cell to larger than the picture, some of them beyond its border."""
    rng = np.random.default_rng(count)
    half, turn, skew = 2 ** rng.uniform(0, 10, count), rng.uniform(0, 7, count), rng.uniform(0.5, 2, count)
    lafs = np.empty((count, 2, 3), np.float32)
    lafs[:, 0] = np.stack([half * np.cos(turn), -half * skew * np.sin(turn), rng.uniform(-5, width + 5, count)], 1)
    lafs[:, 1] = np.stack([half * np.sin(turn), half * skew * np.cos(turn), rng.uniform(-5, height + 5, count)], 1)
    return lafs


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_patches_are_ours(cutter: Any, count: int) -> None:
    image = texture(203, 310)
    lafs = frames(count, *image.shape)
    (found,) = cutter.run(None, {"image": as_input(image), "lafs": lafs})
    assert found.dtype == np.float32
    assert found.shape == (count, 1, PATCH_SIZE, PATCH_SIZE)
    np.testing.assert_allclose(found, cut_patches(build_pyramid(image), lafs), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (31, 500), (32, 32), (33, 65), (64, 127), (1025, 700)])
def test_pictures_of_any_size(cutter: Any, shape: tuple[int, int]) -> None:
    """Odd and even sides, and those where there is one more level, or none."""
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    lafs = frames(60, *shape)
    (found,) = cutter.run(None, {"image": as_input(image), "lafs": lafs})
    np.testing.assert_allclose(found, cut_patches(build_pyramid(image), lafs), atol=1e-3)


def test_there_are_levels_for_the_largest_picture() -> None:
    side, levels = SIDE_LIMIT - 1, 1
    while side >= 32:
        side, levels = side // 2, levels + 1
    assert levels == LEVELS


def test_codes_are_those_of_the_package(exported: Path) -> None:
    image = texture(300, 401, 5)
    found = detect(image, "dog", 300)
    assert len(found) > 200
    expected = describe(BinGAN.from_pretrained("bingan256-lite"), image, found)
    given = {"image": as_input(image), "lafs": support_regions(found)}
    codes, descriptors = session_of(exported).run(None, given)
    differ = np.unpackbits(codes ^ expected, axis=1)
    assert differ.mean() < 0.001
    assert (differ[np.abs(descriptors) > 0.02] == 0).all()  # nearer to 0, rounding decides

    network = cv2.dnn.readNetFromONNX(str(exported))
    for name, values in given.items():
        network.setInput(values, name)
    others = network.forward("codes").astype(np.uint8)
    assert np.unpackbits(others ^ expected, axis=1).mean() < 0.001


def test_the_file_says_what_frames_are(exported: Path) -> None:
    session = session_of(exported)
    about = session.get_modelmeta().custom_metadata_map
    assert "(h cos angle, -h sin angle, x)" in about["lafs"]
    assert "patch" not in about
    assert [(given.name, given.shape) for given in session.get_inputs()] == [
        ("image", [1, 1, "height", "width"]),
        ("lafs", ["count", 2, 3]),
    ]


def test_a_network_of_pictures_cuts_no_patches(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", PictureNetwork(16, ((4, 1), (6, 1), (8, 1))).eval(), {})
    with pytest.raises(UsageError, match="describes whole pictures"):
        export_onnx(tmp_path / "a.safetensors", tmp_path / "a.onnx", input="image")
