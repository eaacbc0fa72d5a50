from __future__ import annotations

import warnings
from pathlib import Path

import kornia.feature as KF
import numpy as np
import pytest
import torch

from kornia_bingan import BinGAN
from kornia_bingan.descriptor import BATCH, describe
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints, detect, support_regions
from kornia_bingan.network.published import PatchTrunk
from kornia_bingan.network.weights import save_weights
from tests.helpers.older_kornia import NO_WIDTH
from tests.helpers.photos import texture


def small(output: str = "code") -> BinGAN:
    torch.manual_seed(0)
    return BinGAN(PatchTrunk(layers=((8, 2), (16, 2))), output=output)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [0, 1, 2, BATCH + 3])
def test_outputs_agree_and_empty_has_the_same_width_and_dtype(rows: int, device: torch.device) -> None:
    patches = torch.rand(rows, 1, 32, 32, device=device)
    with torch.no_grad():
        code, packed, real = (small(output).to(device)(patches) for output in ("code", "packed", "descriptor"))
    assert code.shape == (rows, 256)
    assert code.dtype == torch.float32
    assert packed.shape == (rows, 32)
    assert packed.dtype == torch.uint8
    assert real.shape == (rows, 256)
    assert {x.device.type for x in (code, packed, real)} == {device.type}
    assert torch.equal(code, torch.where(real >= 0, 1.0, -1.0))
    np.testing.assert_array_equal(packed.cpu().numpy(), np.packbits(code.cpu().numpy() > 0, axis=1))


def test_long_batches_give_what_single_patches_give() -> None:
    model = small("descriptor")
    patches = torch.rand(BATCH + 5, 1, 32, 32)
    with torch.no_grad():
        together = model(patches)
        torch.testing.assert_close(together[BATCH + 1 :], model(patches[BATCH + 1 :]))
        torch.testing.assert_close(together[:3], model(patches[:3]))


def test_untrained_default_is_the_published_network() -> None:
    model = BinGAN()
    assert model.bits == 256
    assert model.patch_size == 32
    assert type(model.network).__name__ == "PatchDiscriminator"
    assert set(model(torch.rand(2, 1, 32, 32)).unique().tolist()) <= {-1.0, 1.0}


@pytest.mark.parametrize(
    ("patches", "sentence"),
    [
        (torch.rand(2, 3, 32, 32), r"got torch.float32 \(2, 3, 32, 32\)"),
        (torch.rand(2, 1, 64, 64), r"\(2, 1, 64, 64\)"),
        (torch.rand(1, 32, 32), r"\(1, 32, 32\)"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), "uint8"),
        (torch.rand(2, 1, 32, 32) * 255, "values from"),
        (torch.rand(2, 1, 32, 32) * 2 - 1, "values from"),
        (torch.full((2, 1, 32, 32), torch.nan), "finite"),
    ],
)
def test_other_patches_are_refused(patches: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small()(patches)
    with pytest.raises(ValueError, match="choose one of"):
        BinGAN(output="bits")  # type: ignore[arg-type]


def test_from_pretrained_reads_a_path_and_knows_its_checksum(tmp_path: Path) -> None:
    model = small()
    save_weights(tmp_path / "mine.safetensors", model.network, {})
    again = BinGAN.from_pretrained(tmp_path / "mine.safetensors", output="packed")
    patches = torch.rand(4, 1, 32, 32)
    np.testing.assert_array_equal(again(patches).numpy(), np.packbits(model(patches).detach().numpy() > 0, axis=1))
    assert again.name == "mine"
    assert again.sha256 is not None
    assert len(again.sha256) == 64
    with pytest.raises(UsageError, match="no weights"):
        BinGAN.from_pretrained(tmp_path / "other.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_goes_into_kornias_laf_descriptor(dtype: torch.dtype) -> None:
    image = torch.from_numpy(texture(120, 160))[None, None].to(dtype) / 255
    lafs = torch.from_numpy(support_regions(detect(texture(120, 160), "dog", 20)))[None].to(dtype)
    module = KF.LAFDescriptor(small(), patch_size=32)
    codes = module(image, lafs)
    assert codes.shape == (1, lafs.shape[1], 256)
    assert codes.dtype == dtype
    assert module(image, lafs[:, :0]).shape == (1, 0, NO_WIDTH or 256)


def test_describe_gives_one_row_a_keypoint_in_order() -> None:
    image = texture(150, 180)
    keypoints = detect(image, "dog", BATCH + 40)
    model = small()
    codes = describe(model, image, keypoints)
    assert codes.shape == (len(keypoints), 32)
    assert codes.dtype == np.uint8
    # in another batch, sums may round otherwise, so a bit or two of a code may differ, of codes of others many
    alone = describe(model, image, keypoints[10:12])
    distances = np.bitwise_count(alone[:, None] ^ codes).sum(2)
    assert distances[[0, 1], [10, 11]].max() <= 2
    assert (distances <= 2).sum() == 2
    assert describe(model, image, keypoints[:0]).shape == (0, 32)


def test_describe_names_a_keypoint_that_is_not_finite() -> None:
    image = texture(100, 100)
    found = detect(image, "dog", 5)
    xy = found.xy.copy()
    xy[3, 0] = np.nan
    broken = Keypoints(xy, found.size, found.angle_deg, found.response, found.octave)
    with pytest.raises(UsageError, match="keypoint 3 at "):
        describe(small(), image, broken)
    xy[3] = (100, 50)  # the last column is 99
    with pytest.raises(UsageError, match=r"keypoint 3 at \(100, 50\).* must be inside the image of 100 x 100"):
        describe(small(), image, broken)
    with pytest.raises(UsageError, match=r"keypoint 0 at .* with size 0"):
        describe(small(), image, Keypoints(found.xy, 0 * found.size, found.angle_deg, found.response, found.octave))
    with pytest.raises(UsageError, match="grey image"):
        describe(small(), np.zeros((10, 10, 3), np.uint8), found)


def test_a_described_point_is_found_again_after_a_turn() -> None:
    """Codes follow the keypoint's angle: the picture turned by 90 degrees has nearly the same codes."""
    image = texture(200, 200, seed=2)
    turned = np.ascontiguousarray(np.rot90(image, -1))
    model = small()
    a = detect(image, "dog", 200)
    xy = np.stack([199 - a.xy[:, 1], a.xy[:, 0]], 1).astype(np.float32)
    b = Keypoints(xy, a.size, (a.angle_deg + 90) % 360, a.response, a.octave)
    difference = np.unpackbits(describe(model, image, a) ^ describe(model, turned, b), axis=1).sum(1)
    assert np.median(difference) < 15


def test_an_untrained_model_says_so_once() -> None:
    patches = torch.rand(2, 1, 32, 32)
    for network in (None, PatchTrunk(layers=((8, 2), (16, 2)))):
        model = BinGAN(network)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if network is None:  # statistics of a batch would be something learnt
                model.train()(patches)
            model.eval()
        with pytest.warns(UserWarning, match=r"is untrained.*BinGAN\(pretrained=True\)"):
            model(patches)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(patches)
    image = texture(60, 60)
    with pytest.warns(UserWarning, match="is untrained"):
        describe(small(), image, detect(image, "dog", 3))


def test_pretrained_is_the_shipped_one() -> None:
    patches = torch.rand(2, 1, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BinGAN(pretrained=True, output="packed")
        assert torch.equal(model(patches), BinGAN.from_pretrained(output="packed")(patches))
        loaded = BinGAN(PatchTrunk(**model.network.arguments()))
        loaded.load_state_dict(model.state_dict())
        loaded(patches)
    assert (model.name, model.training) == ("bingan256", False)
    for wrong in (lambda: BinGAN(True), lambda: BinGAN("bingan256"), lambda: BinGAN(PatchTrunk(), pretrained=True)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"give BinGAN a network, or load weights by BinGAN\(pretrained=True\)"):
            wrong()
