from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kornia_bingan import BinGAN, PatchDiscriminator, PatchTrunk
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
    return torch.from_numpy(cut_patches(build_pyramid(image), support_regions(detect(image, "dog", 48))))


NETWORKS: dict[str, Callable[[], PatchTrunk | PatchDiscriminator]] = {
    "two layers": lambda: PatchTrunk(layers=((8, 2), (16, 2))),
    "three layers": lambda: PatchTrunk(128, layers=((8, 1), (16, 2), (16, 2))),
    "published": PatchDiscriminator,
    "standardised": lambda: PatchDiscriminator(64, standardise=True),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, patches: torch.Tensor) -> PatchTrunk | PatchDiscriminator:
    """A network whose statistics and scales differ from their initial values, as training leaves them."""
    torch.manual_seed(0)
    network = NETWORKS[request.param]().train()
    with torch.no_grad():
        network.initialise(network.prepare(patches))
        for _ in range(20 if network.uses_batch_statistics else 0):
            network(network.prepare(patches))
        for name, value in network.named_parameters():
            if name.endswith("bias") or "normalisations" in name:
                value.add_(0.1 * torch.randn_like(value))
    return network.eval()


def check_nearly_equal(found: torch.Tensor, expected: torch.Tensor, error: float) -> None:
    """Descriptors differ by that share of their norm; bits may where the value is near 0, and rounding decides."""
    assert found.dtype == expected.dtype == torch.float32
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < error
    sure = expected.abs() > 10 * error * expected.square().mean().sqrt()
    assert sure.float().mean() > 0.5
    assert torch.equal(found[sure] >= 0, expected[sure] >= 0)


@pytest.mark.parametrize(("precision", "error"), [("float32", 2e-5), ("bfloat16", 0.02)])
@torch.no_grad()
def test_folding_keeps_descriptors(
    network: PatchTrunk | PatchDiscriminator, precision: Precision, error: float, patches: torch.Tensor
) -> None:
    expected = network.describe(network.prepare(patches))
    model = FoldedNetwork(network, precision)
    check_nearly_equal(model.describe(model.prepare(patches)), expected, error)
    assert not list(model.parameters())


@pytest.mark.parametrize("name", ["bingan256", "bingan256-lite"])
@torch.no_grad()
def test_shipped_codes_hardly_change_in_bfloat16(name: str, patches: torch.Tensor) -> None:
    reference, exact, rounded = (
        BinGAN.from_pretrained(name, precision=precision, output="descriptor")(patches)
        for precision in (None, "float32", "bfloat16")
    )
    check_nearly_equal(exact, reference, 2e-5)
    check_nearly_equal(rounded, reference, 0.02)
    # two in a thousand of these 12,288 bits are about 25, and twice as many would be another way of rounding
    assert 0 < ((rounded >= 0) != (reference >= 0)).float().mean() < 0.004


def test_auto_takes_what_the_device_computes_in(device: torch.device) -> None:
    network = PatchTrunk(layers=((8, 2), (16, 2))).eval().to(device)
    weight = FoldedNetwork(network).layers[0].weight
    assert weight.dtype == (torch.bfloat16 if has_bfloat16(device) else torch.float32)
    assert weight.device.type == device.type
    assert not has_bfloat16(torch.device("meta"))


@pytest.mark.parametrize(
    ("limit", "computes"),
    [(None, True), ("ALL", True), ("avx512_core_bf16", True), ("AVX512_CORE", False), ("avx2", False)],
)
def test_auto_takes_no_bfloat16_where_the_environment_forbids_it(
    limit: str | None, computes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    assert has_bfloat16(torch.device("cpu"))
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA") if limit else ():
        with monkeypatch.context() as patched:
            patched.setenv(name, str(limit))
            assert has_bfloat16(torch.device("cpu")) == computes


@torch.no_grad()
def test_codes_do_not_need_the_fused_operation(
    network: PatchTrunk | PatchDiscriminator, patches: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FoldedNetwork(network, "float32")
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
