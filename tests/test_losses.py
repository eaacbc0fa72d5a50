"""The losses against an independent transcription of the formulas, written with loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.autograd import gradcheck

from kornia_bingan import losses

Floats = NDArray[np.float64]


def softplus(x: float) -> float:
    return float(np.log1p(np.exp(-abs(x))) + max(x, 0))


def slow_gan(real: Floats, fake: Floats) -> float:
    def level(row: Floats) -> float:
        return float(np.log(np.exp(row).sum()))

    return 0.5 * (
        -np.mean([level(r) for r in real])
        + np.mean([softplus(level(r)) for r in real])
        + np.mean([softplus(level(r)) for r in fake])
    )


def slow_regularisers(high: Floats, low: Floats, gamma: float, beta: float, z: bool) -> tuple[float, float, float]:
    n, k = high.shape
    m = low.shape[1]
    s = low / (np.abs(low) + gamma)
    b = np.where(high >= 0, 1.0, -1.0)
    dmr = mac = total_alpha = 0.0
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            dmr += abs(float(b[i] @ b[j]) / k - float(s[i] @ s[j]) / m)
            alpha = np.exp(-abs(float(b[i] @ b[j])) / (k * beta))
            total_alpha += alpha
            mac += alpha * abs(float(s[i] @ s[j])) / m
    me = float(np.mean([np.mean(s[:, bit]) ** 2 for bit in range(m)]))
    return dmr / (n * (n - 1)), me, mac / (total_alpha if z else n * (n - 1))


def features(rows: int = 5, high: int = 12, low: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.standard_normal((rows, high))), torch.from_numpy(rng.standard_normal((rows, low)))


@pytest.mark.parametrize("gamma", [0.001, 0.5])
@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("z", [False, True])
def test_regularisers_equal_the_transcription(gamma: float, beta: float, z: bool) -> None:
    high, low = features()
    dmr, me, mac = slow_regularisers(high.numpy(), low.numpy(), gamma, beta, z)
    assert float(losses.distance_matching(high, low, gamma)) == pytest.approx(dmr, rel=1e-12)
    assert float(losses.bit_balance(low, gamma)) == pytest.approx(me, rel=1e-12)
    normaliser = "alpha" if z else "pairs"
    assert float(losses.pair_correlation(high, low, gamma, beta, normaliser)) == pytest.approx(mac, rel=1e-12)
    assert float(losses.binarized_entropy(high, low, gamma, beta, normaliser)) == pytest.approx(me + mac, rel=1e-12)


def slow_original_entropy(low: Floats, epsilon: float, margin: float) -> float:
    n, m = low.shape
    mean = sum(abs(float(value)) for value in low.ravel()) / (n * m)
    s = np.array([[value / (abs(value) + epsilon * mean) for value in row] for row in low])
    balance = sum(float(s[:, bit].sum() / n) ** 2 for bit in range(m)) / m
    excess = [
        max(0.0, abs(float(s[i] @ s[j])) / m - margin / m**0.5) if i != j else 0.0 for i in range(n) for j in range(n)
    ]
    return balance + sum(excess) / n**2


@pytest.mark.parametrize(("epsilon", "margin"), [(1e-3, 3.0), (0.7, 0.2)])
def test_the_original_entropy_equals_its_transcription(epsilon: float, margin: float) -> None:
    low = features(rows=6, low=40)[1]
    expected = slow_original_entropy(low.numpy(), epsilon, margin)
    assert float(losses.original_entropy(low, epsilon, margin)) == pytest.approx(expected, rel=1e-12)
    alike = torch.ones(4, 16, dtype=torch.float64)  # every soft sign is 1 / 1.001
    sign = 1 / 1.001
    excess = sign**2 - 3 / 4
    assert float(losses.original_entropy(alike)) == pytest.approx(sign**2 + 12 / 16 * excess, rel=1e-12)


def test_regularisers_on_three_vectors_by_hand() -> None:
    # b.b / K: (1,2) 0, (1,3) -1, (2,3) 0; soft signs with gamma 1 of values 1, 1, -1 are 1/2, 1/2, -1/2
    high = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    low = torch.tensor([[1.0], [1.0], [-1.0]])
    assert float(losses.distance_matching(high, low, 1.0)) == pytest.approx((0.25 + 0.75 + 0.25) / 3)
    assert float(losses.bit_balance(low, 1.0)) == pytest.approx((0.5 / 3) ** 2)
    alpha = np.exp(-1 / 2)
    assert float(losses.pair_correlation(high, low, 1.0, 2.0)) == pytest.approx((0.25 + 0.25 * alpha + 0.25) / 3)


def test_gan_loss_equals_the_transcription_and_its_known_values() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((6, 2)), rng.standard_normal((4, 2))
    loss = losses.gan_discriminator(torch.from_numpy(real), torch.from_numpy(fake))
    assert float(loss) == pytest.approx(slow_gan(real, fake), rel=1e-12)
    even = torch.full((3, 2), -np.log(2.0))  # log-sum-exp 0: D = 1/2
    assert float(losses.gan_discriminator(even, even)) == pytest.approx(np.log(2), rel=1e-6)
    start = torch.zeros(3, 2)
    assert float(losses.gan_discriminator(start, start)) == pytest.approx(0.752, abs=5e-4)
    huge = torch.full((2, 2), 1e4)
    assert bool(torch.isfinite(losses.gan_discriminator(huge, -huge)))


def test_feature_matching_by_hand() -> None:
    real, fake = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert float(losses.feature_matching(real, fake)) == pytest.approx((2**2 + 1**2) / 2)


def test_gradients() -> None:
    high, low = features(4, 6, 5)
    low = low.requires_grad_()
    logits = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: losses.distance_matching(high, x, 0.3), (low,))
    assert gradcheck(lambda x: losses.binarized_entropy(high, x, 0.3, 0.5), (low,))
    assert gradcheck(lambda x: losses.binarized_entropy(high, x, 0.3, 0.5, "alpha"), (low,))
    assert gradcheck(losses.bit_correlation, (low,))
    assert gradcheck(losses.quantisation, (low,))
    assert gradcheck(lambda x: losses.two_view(x, high[:, :5], codes=False), (low,))
    assert gradcheck(losses.gan_discriminator, (logits, logits.detach() + 1))
    assert gradcheck(losses.feature_matching, (low, high[:, :5]))


def test_no_gradient_reaches_the_wide_features() -> None:
    high, low = features()
    high.requires_grad_()
    low.requires_grad_()
    (losses.distance_matching(high, low) + losses.binarized_entropy(high, low)).backward()
    assert high.grad is None
    assert low.grad is not None


def test_sign_of_zero_is_plus_one_everywhere() -> None:
    zero = torch.tensor([[0.0, -0.0, -1e-30, 2.0]])
    assert losses.hard_sign(zero).tolist() == [[1, 1, -1, 1]]
    assert losses.straight_through_sign(zero).tolist() == [[1, 1, -1, 1]]


def test_straight_through_gradient_is_that_of_tanh() -> None:
    x = torch.tensor([[-2.0, 0.0, 0.5]], requires_grad=True)
    losses.straight_through_sign(x).sum().backward()
    torch.testing.assert_close(x.grad, 1 - torch.tanh(x.detach()) ** 2)


def test_two_view_by_hand() -> None:
    low0 = torch.tensor([[1.0, 2.0, -1.0, 1.0], [-1.0, -3.0, 1.0, 1.0]])
    low1 = low0.clone()
    # dot products / 4: diagonal 1, off-diagonal -0.5; temperature 0.5
    wanted = -np.log(np.exp(2) / (np.exp(2) + np.exp(-1)))
    assert float(losses.two_view(low0, low1, 0.5)) == pytest.approx(wanted, rel=1e-5)
    ignore = torch.ones(2, 2, dtype=torch.bool)
    assert float(losses.two_view(low0, low1, 0.5, ignore)) == pytest.approx(0, abs=1e-6)


def test_two_view_does_not_depend_on_the_order_of_views_or_rows() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(6, 16), torch.randn(6, 16)
    order = torch.randperm(6)
    loss = losses.two_view(a, b)
    torch.testing.assert_close(losses.two_view(b, a), loss)
    torch.testing.assert_close(losses.two_view(a[order], b[order]), loss)


def test_two_view_of_descriptors_compares_directions() -> None:
    low0 = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    low1 = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # cosines: 1 on the diagonal, 0.8 beside it; temperature 0.5
    wanted = -np.log(np.exp(2) / (np.exp(2) + np.exp(1.6)))
    assert float(losses.two_view(low0, low1, 0.5, codes=False)) == pytest.approx(wanted, rel=1e-5)


def test_second_order_equals_the_transcription() -> None:
    rng = np.random.default_rng(5)
    low = rng.standard_normal((2, 7, 9999))  # so many bits that no two dot products are equal
    products = [code @ code.T / 9999 for code in np.where(low >= 0, 1.0, -1.0)]
    assert all(len(set(row)) == 7 for product in products for row in product)
    total = 0.0
    for i in range(7):
        near = set()
        for product in products:
            near |= set(sorted((j for j in range(7) if j != i), key=lambda j, row=product[i]: -row[j])[:2])
        total += np.sqrt(sum((products[0][i, j] - products[1][i, j]) ** 2 for j in near))
    value = float(losses.second_order(torch.from_numpy(low[0]), torch.from_numpy(low[1]), 2))
    assert value == pytest.approx(total / 7, rel=1e-3)
    same = torch.from_numpy(low[0])
    assert float(losses.second_order(same, same)) == pytest.approx(0, abs=1e-3)


def test_only_matrices_with_as_many_rows_are_taken() -> None:
    rows = torch.randn(3, 4)
    for other in (torch.randn(3, 4, 1), torch.randn(3), torch.randn(2, 4), torch.randn(4, 4)):
        with pytest.raises(ValueError, match="matrices of the same number of rows"):
            losses.distance_matching(rows, other)
        with pytest.raises(ValueError, match="matrices of the same number of rows"):
            losses.two_view(other, rows)


def test_second_order_takes_eight_neighbours_and_as_many_as_there_are() -> None:
    rng = np.random.default_rng(6)
    a, b = torch.from_numpy(rng.standard_normal((2, 12, 501)))
    losses_of = [float(losses.second_order(a, b, neighbours)) for neighbours in (7, 8, 9, 11)]
    assert len(set(losses_of)) == 4
    assert float(losses.second_order(a, b)) == losses_of[1]
    assert float(losses.second_order(a, b, 20)) == losses_of[3]
    few = [torch.where(x[:3] >= 0, 1.0, -1.0).numpy() for x in (a, b)]
    difference = few[0] @ few[0].T / 501 - few[1] @ few[1].T / 501
    assert float(losses.second_order(a[:3], b[:3])) == pytest.approx(np.sqrt((difference**2).sum(1)).mean(), rel=1e-4)


def test_constants_left_out_are_the_published_ones() -> None:
    high, low = features()
    low = 0.01 * low
    dmr, balance, correlation = slow_regularisers(high.numpy(), low.numpy(), 0.001, 2.0, False)
    assert float(losses.distance_matching(high, low)) == pytest.approx(dmr, rel=1e-12)
    assert float(losses.bit_balance(low)) == pytest.approx(balance, rel=1e-12)
    assert float(losses.pair_correlation(high, low)) == pytest.approx(correlation, rel=1e-12)
    assert float(losses.binarized_entropy(high, low)) == pytest.approx(balance + correlation, rel=1e-12)
    assert float(losses.two_view(low, high[:, :8])) == float(losses.two_view(low, high[:, :8], 0.06))


def test_quantisation_by_hand() -> None:
    assert float(losses.quantisation(torch.tensor([[1.0, -1.0]]))) == 0
    assert float(losses.quantisation(torch.tensor([[0.5, -3.0]]))) == pytest.approx((0.25 + 4) / 2)


def test_bit_correlation_is_zero_for_independent_bits_and_large_for_copies() -> None:
    bits = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(losses.bit_correlation(bits)) == pytest.approx(0, abs=1e-6)
    assert float(losses.bit_correlation(bits[:, [0, 0, 0]])) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize(
    "loss", [losses.distance_matching, losses.binarized_entropy, losses.two_view, losses.second_order]
)
def test_one_row_is_refused(loss: object) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        loss(torch.randn(1, 4), torch.randn(1, 4))  # type: ignore[operator]
