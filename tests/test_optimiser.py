from __future__ import annotations

import numpy as np
import torch

from kornia_bingan.optimiser import PublishedAdam


def test_update_equals_a_numpy_transcription_also_after_a_reload() -> None:
    rng = np.random.default_rng(0)
    value = rng.standard_normal(5)
    parameter = torch.nn.Parameter(torch.from_numpy(value.copy()))
    optimiser = PublishedAdam([parameter], lr=0.01)
    mean, square = np.zeros(5), np.zeros(5)
    for step in range(1, 6):
        gradient = rng.standard_normal(5) * 1e-4  # small: the place of epsilon decides
        parameter.grad = torch.from_numpy(gradient.copy())
        optimiser.step()
        mean, square = 0.5 * mean + 0.5 * gradient, 0.999 * square + 0.001 * gradient**2
        value = value - 0.01 * (mean / (1 - 0.5**step)) / np.sqrt(square / (1 - 0.999**step) + 1e-8)
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-12)
        if step == 3:
            state = optimiser.state_dict()
            optimiser = PublishedAdam([parameter], lr=0.01)
            optimiser.load_state_dict(state)


def test_parameters_without_gradient_stay() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    PublishedAdam([parameter]).step()
    assert parameter.tolist() == [1, 1]
