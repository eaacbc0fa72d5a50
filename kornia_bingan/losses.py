"""The published losses and the two-view term, as pure functions of batches.

Source: Zieba et al., NIPS 2018 (GAN, feature matching, DMR, BRE as in the published code); BRE after Cao et al., ICLR
2018. Rows are patches. The sign of 0 is +1 everywhere.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

GAMMA = 0.001
BETA = 2.0


def soft_sign(low: Tensor, gamma: float = GAMMA) -> Tensor:
    """Turn descriptors into values in (-1, 1): ``f / (|f| + gamma)``, same shape."""
    return low / (low.abs() + gamma)


def hard_sign(high: Tensor) -> Tensor:
    """Turn features into constants +1 / -1 (0 gives +1), same shape; no gradient flows back."""
    return torch.where(high.detach() >= 0, 1.0, -1.0).to(high.dtype)


def _check_batch(*features: Tensor) -> int:
    rows = {len(x) for x in features}
    if any(x.ndim != 2 for x in features) or len(rows) != 1 or min(rows) < 2:
        shapes = ", ".join(str(tuple(x.shape)) for x in features)
        raise ValueError(f"the loss needs matrices of the same number of rows, at least 2; got {shapes}")
    return len(features[0])


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix - torch.diag(torch.diagonal(matrix))


def _correlations(signs: Tensor) -> Tensor:
    return signs @ signs.T / signs.shape[1]


def gan_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """GAN loss of the discriminator: ``1/2 (-mean log D(x) - mean log(1 - D(G(z))))``.

    D is the sigmoid of the log-sum-exp L of the logits (the logit of "fake" is fixed at 0).

    Args:
        logits_real: shape (N, 2).
        logits_fake: shape (M, 2).

    Returns:
        A scalar; 0.693 at equilibrium. Source: unlabelled part of Salimans et al. 2016 with two outputs.
    """
    real, fake = torch.logsumexp(logits_real, 1), torch.logsumexp(logits_fake, 1)
    return 0.5 * (F.softplus(real) - real).mean() + 0.5 * F.softplus(fake).mean()


def feature_matching(features_real: Tensor, features_fake: Tensor) -> Tensor:
    """Loss of the generator: mean over features of the squared difference of the batch means.

    Args:
        features_real: shape (N, P).
        features_fake: shape (M, P).
    """
    return (features_real.mean(0) - features_fake.mean(0)).square().mean()


def distance_matching(high: Tensor, low: Tensor, gamma: float = GAMMA) -> Tensor:
    """DMR: mean over pairs k != j of ``| b_k.b_j / K - s_k.s_j / M |``.

    Args:
        high: wide features, shape (N, K); only their signs b count, without gradient.
        low: descriptors, shape (N, M), as soft signs s.
        gamma: constant of the soft sign.

    Raises:
        ValueError: fewer than 2 rows, or different numbers of rows.
    """
    count = _check_batch(high, low)
    target, actual = _correlations(hard_sign(high)), _correlations(soft_sign(low, gamma))
    return _off_diagonal(target - actual).abs().sum() / (count * (count - 1))


def bit_balance(low: Tensor, gamma: float = GAMMA) -> Tensor:
    """First part of BRE: mean over bits of the squared batch mean of the soft signs of descriptors (N, M)."""
    return soft_sign(low, gamma).mean(0).square().mean()


def pair_correlation(
    high: Tensor,
    low: Tensor,
    gamma: float = GAMMA,
    beta: float = BETA,
    normaliser: Literal["pairs", "alpha"] = "pairs",
) -> Tensor:
    """Second part of BRE: sum over pairs k != j of ``alpha_kj |s_k.s_j| / M``, over the number of pairs.

    ``alpha_kj = exp(-|b_k.b_j| / (K beta))`` from the signs b of the wide features, without gradient. With
    ``normaliser="alpha"`` the sum is divided by the sum of alpha (the Z of the text) instead of the number of pairs
    (the published code).

    Raises:
        ValueError: fewer than 2 rows, or different numbers of rows.
    """
    count = _check_batch(high, low)
    alpha = torch.exp(-_correlations(hard_sign(high)).abs() / beta)
    weighted = _off_diagonal(alpha * _correlations(soft_sign(low, gamma)).abs()).sum()
    return weighted / (count * (count - 1) if normaliser == "pairs" else _off_diagonal(alpha).sum())


def binarized_entropy(
    high: Tensor,
    low: Tensor,
    gamma: float = GAMMA,
    beta: float = BETA,
    normaliser: Literal["pairs", "alpha"] = "pairs",
) -> Tensor:
    """BRE: :func:`bit_balance` plus :func:`pair_correlation` of wide features (N, K) and descriptors (N, M)."""
    return bit_balance(low, gamma) + pair_correlation(high, low, gamma, beta, normaliser)


def original_entropy(low: Tensor, epsilon: float = 1e-3, margin: float = 3.0) -> Tensor:
    """BRE as first published: bits balanced, and pairs of rows correlated by no more than chance.

    The soft sign is ``f / (|f| + epsilon mean|f|)``, its mean over the batch held constant; to the squared means of the
    bits is added the mean over all N x N pairs, the diagonal as 0, of ``max(0, |s_k.s_j| / M - margin / sqrt(M))``.

    Args:
        low: descriptors, shape (N, M).
        epsilon: constant of the soft sign, relative to the mean.
        margin: deviations of the correlation of random signs that cost nothing.

    Raises:
        ValueError: fewer than 2 rows.

    Source: Cao et al., "Improving GAN training via binarized representation entropy", ICLR 2018.
    """
    _check_batch(low)
    signs = low / (low.abs() + epsilon * low.detach().abs().mean())
    excess = (_correlations(signs).abs() - margin / low.shape[1] ** 0.5).clamp_min(0)
    return signs.mean(0).square().mean() + _off_diagonal(excess).mean()


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, low: Tensor) -> Tensor:
        ctx.save_for_backward(low)
        return hard_sign(low)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        (low,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradients[0] * (1 - torch.tanh(low).square())


def straight_through_sign(low: Tensor) -> Tensor:
    """Turn descriptors into codes +1 / -1 whose gradient is that of tanh, same shape."""
    code: Tensor = _StraightThrough.apply(low)  # type: ignore[no-untyped-call]
    return code


def two_view(
    low0: Tensor, low1: Tensor, temperature: float = 0.06, ignore: Tensor | None = None, *, codes: bool = True
) -> Tensor:
    """Two views of one keypoint must agree, and all other patches of the batch must not.

    Symmetric cross-entropy over the dot products of the codes, divided by the number of bits and by the temperature;
    the codes are :func:`straight_through_sign` of the descriptors, so what is trained is the Hamming distance.

    Args:
        low0: descriptors of the first views, shape (N, M).
        low1: descriptors of the second views in the same order, shape (N, M).
        temperature: of the softmax; dot products are in [-1, 1].
        ignore: bool, shape (N, N): pairs (row of view 0, row of view 1) that are neither alike nor different, such as
            two keypoints at one place. The diagonal is never ignored.
        codes: False compares the descriptors themselves, scaled to length 1, instead of their codes.

    Raises:
        ValueError: fewer than 2 rows, or different numbers of rows.
    """
    count = _check_batch(low0, low1)
    rows0, rows1 = (
        straight_through_sign(low) / low.shape[1] ** 0.5 if codes else F.normalize(low) for low in (low0, low1)
    )
    logits = rows0 @ rows1.T / temperature
    if ignore is not None:
        off_diagonal = ~torch.eye(count, dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(ignore & off_diagonal, -torch.inf)
    target = torch.arange(count, device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def second_order(low0: Tensor, low1: Tensor, neighbours: int = 8) -> Tensor:
    """Distances from a keypoint to its nearest others must be the same in both views.

    Mean over keypoints of the root of the sum of squared differences of the codes' dot products (in [-1, 1]) to the
    others that are among the nearest in one of the views.

    Args:
        low0: descriptors of the first views, shape (N, M).
        low1: descriptors of the second views in the same order, shape (N, M).
        neighbours: nearest others a view; at most N - 1 are there.

    Raises:
        ValueError: fewer than 2 rows, or different numbers of rows.

    Source: Tian et al., "SOSNet", CVPR 2019, here in Hamming space.
    """
    count = _check_batch(low0, low1)
    products = [code @ code.T / code.shape[1] for code in (straight_through_sign(low) for low in (low0, low1))]
    near = torch.zeros(count, count, dtype=torch.bool, device=low0.device)
    for product in products:
        others = product.detach() - 3 * torch.eye(count, dtype=product.dtype, device=product.device)
        near.scatter_(1, others.topk(min(neighbours, count - 1), dim=1).indices, True)
    squared = (products[0] - products[1]).square() * near
    return (squared.sum(1) + 1e-8).sqrt().mean()


def quantisation(low: Tensor) -> Tensor:
    """Mean squared distance of descriptors (N, M) from their codes: values near the threshold are unreliable bits."""
    return (low - hard_sign(low)).square().mean()


def bit_correlation(low: Tensor) -> Tensor:
    """Mean over bits of the sum of squared correlations with the other bits: bits must not repeat each other.

    Correlations are over the batch, of tanh of descriptors (N, M).

    Raises:
        ValueError: fewer than 2 rows.
    """
    _check_batch(low)
    soft = torch.tanh(low)
    soft = soft - soft.mean(0)
    soft = soft / soft.square().mean(0).add(1e-6).sqrt()
    correlation = soft.T @ soft / len(soft)
    return _off_diagonal(correlation).square().sum() / correlation.shape[0]


def margin(low0: Tensor, low1: Tensor, ignore: Tensor | None = None, least: float = 0.5) -> Tensor:
    """Two views of one keypoint must be nearer than the nearest other keypoint, by a margin.

    Mean of ``max(0, least + d(i, i) - d(i, nearest other))`` over distances of descriptors of length 1. No gradient
    flows to the distances of others: they say how hard a keypoint is, and views are not made to differ from them.

    Args:
        low0: descriptors of the first views, shape (N, M).
        low1: descriptors of the second views in the same order, shape (N, M).
        ignore: bool, shape (N, N): pairs that are neither alike nor different.
        least: the margin; distances are in [0, 2].

    Raises:
        ValueError: fewer than 2 rows, or different numbers of rows.
    """
    count = _check_batch(low0, low1)
    products = F.normalize(low0) @ F.normalize(low1).T
    same = _distances(products.diagonal())
    excluded = torch.eye(count, dtype=torch.bool, device=products.device)
    if ignore is not None:
        excluded = excluded | ignore
    others = products.detach().masked_fill(excluded, -1.0)
    nearest = _distances(torch.maximum(others.amax(1), others.amax(0)))
    return F.relu(least + same - nearest).mean()


def _distances(products: Tensor) -> Tensor:
    distances: Tensor = (2 - 2 * products).clamp_min(1e-6).sqrt()  # the root has a gradient there
    return distances


def same_region(frames0: Tensor, frames1: Tensor) -> Tensor:
    """Frames of two views of one keypoint, seen from the first picture, must be the same.

    Mean of ``e / (1 + e)``, e the Frobenius norm of ``frames0^-1 frames1 - I``: a few that cannot agree weigh little.

    Args:
        frames0, frames1: shape (N, 2, 2), invertible.
    """
    between = torch.linalg.solve(frames0.float(), frames1.float())
    identity = torch.eye(2, device=between.device)
    error: Tensor = ((between - identity).square().sum((1, 2)) + 1e-4).sqrt()
    mean: Tensor = (error / (1 + error)).mean()
    return mean
