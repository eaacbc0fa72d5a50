"""Adam as the published code writes it, and momentum with orthogonal steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter


class PublishedAdam(torch.optim.Optimizer):
    """Adam with epsilon inside the root: ``p -= lr * m_hat / sqrt(v_hat + 1e-8)``, beta1 0.5, beta2 0.999.

    For small gradients, as those of the regularisers are, this acts like an epsilon of 1e-4 outside the root, which
    ``torch.optim.Adam`` with its 1e-8 does not.

    Source: Zieba et al., NIPS 2018, published code; Kingma and Ba, ICLR 2015.
    """

    def __init__(
        self, params: Iterable[Parameter], lr: float = 3e-4, beta1: float = 0.5, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["mean"] = torch.zeros_like(parameter)
                    state["square"] = torch.zeros_like(parameter)
                state["step"] += 1
                steps = float(state["step"])
                mean: Tensor = state["mean"].lerp_(parameter.grad, 1 - group["beta1"])
                square: Tensor = state["square"].mul_(group["beta2"])
                square.addcmul_(parameter.grad, parameter.grad, value=1 - group["beta2"])
                root = (square / (1 - group["beta2"] ** steps) + group["eps"]).sqrt()
                parameter.addcdiv_(mean, root, value=-group["lr"] / (1 - group["beta1"] ** steps))


class OrthogonalMomentum(torch.optim.Optimizer):
    """Momentum whose step of every matrix or filter bank is made orthogonal, known as Muon.

    It is for networks in which every matrix is normalised behind: the length of a matrix then means nothing, so each
    is kept at a Frobenius norm of the root of its rows, and ``lr`` is the length of a step relative to it. Vectors
    take steps of Adam of a twentieth of ``lr``. The state is one copy of the parameters.

    Args:
        params: of the network.
        lr: length of a step relative to the matrix.
        momentum: share of the last steps' direction that is kept (Nesterov's).

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, and its CIFAR-10 recipe.
    """

    def __init__(self, params: Iterable[Parameter], lr: float = 0.05, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "beta2": 0.99, "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if parameter.ndim > 1:
                    _orthogonal_step(parameter, state, group["lr"], group["momentum"])
                else:
                    _adam_step(parameter, state, group)


def _orthogonal_step(parameter: Parameter, state: dict[str, Tensor], rate: float, keep: float) -> None:
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    momentum = state["momentum"].lerp_(gradient, 1 - keep)
    direction = gradient.lerp(momentum, keep).flatten(1)
    rows, columns = direction.shape
    step = orthogonalised(direction) * max(1, rows / columns) ** 0.5
    parameter.add_(step.view_as(parameter), alpha=-rate)
    parameter.mul_(rows**0.5 / torch.linalg.vector_norm(parameter).clamp_min(1e-12))


def _adam_step(parameter: Parameter, state: dict[str, Tensor], group: dict[str, float]) -> None:
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state["step"] = torch.zeros(())
        state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    state["step"] += 1
    steps = float(state["step"])
    mean = state["mean"].lerp_(gradient, 1 - group["momentum"]) / (1 - group["momentum"] ** steps)
    square = state["square"].lerp_(gradient.square(), 1 - group["beta2"]) / (1 - group["beta2"] ** steps)
    parameter.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-group["lr"] / 20)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Give a matrix (M, N) about the same singular vectors and singular values of 0.7 to 1.2, by five iterations.

    Source: the quintic Newton-Schulz iteration of Jordan et al. 2024. A matrix of zeros stays one.
    """
    x: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / torch.linalg.matrix_norm(x).clamp_min(1e-12)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T
