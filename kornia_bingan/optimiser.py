"""Adam as the published code writes it."""

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
