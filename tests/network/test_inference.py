from __future__ import annotations

import numpy as np
import pytest
import torch

from kornia_bingan import BinGAN, PatchDiscriminator, PatchTrunk
from kornia_bingan.descriptor import describe
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import detect, support_regions
from kornia_bingan.network import inference
from kornia_bingan.network.inference import FoldedNetwork, Precision
from kornia_bingan.patches import build_pyramid, cut_patches
from kornia_bingan.work.machine import has_bfloat16
from tests.helpers.photos import texture


@pytest.fixture(scope="module")
def patches() -> torch.Tensor:
    image = texture(240, 320)
    return torch.from_numpy(cut_patches(build_pyramid(image), support_regions(detect(image, "dog", 300))))


def trained_a_little(
    network: PatchTrunk | PatchDiscriminator, patches: torch.Tensor
) -> PatchTrunk | PatchDiscriminator:
    """Statistics and scales that differ from their initial values, as training leaves them."""
    torch.manual_seed(0)
    network.train()
    with torch.no_grad():
        network.initialise(network.prepare(patches))
        for _ in range(20):
            network(network.prepare(patches))
        for name, value in network.named_parameters():
            if name.endswith("bias") or "normalisations" in name:
                value.add_(0.1 * torch.randn_like(value))
    return network.eval()


@pytest.mark.parametrize(
    "network",
    [
        PatchTrunk(layers=((8, 2), (16, 2))),
        PatchTrunk(128, layers=((8, 1), (16, 2), (16, 2))),
        PatchDiscriminator(),
        PatchDiscriminator(64, standardise=True),
    ],
)
@pytest.mark.parametrize(("precision", "error", "flipped"), [("float32", 2e-5, 1e-4), ("bfloat16", 0.05, 0.02)])
@torch.no_grad()
def test_folding_keeps_descriptors(
    network: PatchTrunk | PatchDiscriminator, precision: Precision, error: float, flipped: float, patches: torch.Tensor
) -> None:
    network = trained_a_little(network, patches)
    expected = network.describe(network.prepare(patches))
    model = FoldedNetwork(network, precision)
    found = model.describe(model.prepare(patches))
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < error
    assert float(((found >= 0) != (expected >= 0)).float().mean()) < flipped
    assert not list(model.parameters())


@pytest.mark.parametrize(("name", "most"), [("bingan256", 0.004), ("bingan256-lite", 0.004)])
def test_shipped_codes_hardly_change_in_bfloat16(name: str, most: float) -> None:
    image = texture(240, 320)
    keypoints = detect(image, "dog", 300)
    reference = describe(BinGAN.from_pretrained(name), image, keypoints)
    exact = describe(BinGAN.from_pretrained(name, precision="float32"), image, keypoints)
    rounded = describe(BinGAN.from_pretrained(name, precision="bfloat16"), image, keypoints)
    assert np.bitwise_count(reference ^ exact).sum() <= 1e-5 * 8 * reference.size
    share = np.bitwise_count(reference ^ rounded).sum() / (8 * reference.size)
    assert 0 < share < most


def test_auto_takes_what_the_device_computes_in(device: torch.device) -> None:
    network = PatchTrunk(layers=((8, 2), (16, 2))).eval().to(device)
    weight = FoldedNetwork(network).layers[0].weight
    assert weight.dtype == (torch.bfloat16 if has_bfloat16(device) else torch.float32)
    assert weight.device.type == device.type
    assert not has_bfloat16(torch.device("meta"))


@pytest.mark.parametrize("network", [PatchTrunk(layers=((8, 2), (16, 2))), PatchDiscriminator(64)])
@torch.no_grad()
def test_codes_do_not_need_the_fused_operation(
    network: PatchTrunk | PatchDiscriminator, patches: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FoldedNetwork(trained_a_little(network, patches), "float32")
    expected = model.describe(patches)
    monkeypatch.setattr(inference, "_can_fuse", lambda dtype: False)
    torch.testing.assert_close(model.describe(patches), expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_patches_and_wrong_use_is_named(patches: torch.Tensor) -> None:
    network = PatchTrunk(layers=((8, 2), (16, 2)))
    with pytest.raises(UsageError, match="training mode"):
        FoldedNetwork(network)
    with pytest.raises(UsageError, match="precision is 'half'"):
        FoldedNetwork(network.eval(), "half")  # type: ignore[arg-type]
    model = BinGAN(FoldedNetwork(network, "float32"), output="descriptor")
    moved = patches[:2].clone().requires_grad_()
    model(moved).sum().backward()
    assert moved.grad is not None
    assert float(moved.grad.abs().max()) > 0
