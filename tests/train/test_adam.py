from __future__ import annotations

import numpy as np
import torch

from kornia_bingan.train.adam import OrthogonalMomentum, PublishedAdam, orthogonalised


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


def test_orthogonal_steps_keep_singular_vectors_and_level_singular_values() -> None:
    rng = np.random.default_rng(0)
    for shape in ((5, 12), (12, 5), (6, 6)):
        left, _, right = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
        matrix = left * np.linspace(1, 0.1, len(right)) @ right
        inside = left.T @ orthogonalised(torch.from_numpy(matrix)).numpy() @ right.T
        assert np.diag(inside).min() > 0.6
        assert np.diag(inside).max() < 1.25
        np.testing.assert_allclose(inside - np.diag(np.diag(inside)), 0, atol=1e-9)
    assert not orthogonalised(torch.zeros(2, 3)).any()


def test_momentum_with_orthogonal_steps_equals_a_numpy_transcription_also_after_a_reload() -> None:
    rng = np.random.default_rng(0)
    bank, vector = rng.standard_normal((4, 3, 2, 2)), rng.standard_normal(3)
    parameters = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in (bank, vector)]
    optimiser = OrthogonalMomentum(parameters, lr=0.1)
    momentum, mean, square = np.zeros_like(bank), np.zeros(3), np.zeros(3)
    for step in range(1, 6):
        gradients = rng.standard_normal(bank.shape), rng.standard_normal(3)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.from_numpy(gradient.copy())
        optimiser.step()
        momentum = 0.9 * momentum + 0.1 * gradients[0]
        ahead = torch.from_numpy((0.1 * gradients[0] + 0.9 * momentum).reshape(4, 12))
        bank = bank - 0.1 * orthogonalised(ahead).numpy().reshape(bank.shape)
        bank *= 2 / np.sqrt((bank**2).sum())
        mean, square = 0.9 * mean + 0.1 * gradients[1], 0.99 * square + 0.01 * gradients[1] ** 2
        vector = vector - 0.005 * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
        np.testing.assert_allclose(parameters[0].detach().numpy(), bank, rtol=1e-9)
        np.testing.assert_allclose(parameters[1].detach().numpy(), vector, rtol=1e-9)
        if step == 3:
            state = optimiser.state_dict()
            optimiser = OrthogonalMomentum(parameters, lr=0.1)
            optimiser.load_state_dict(state)
    still = torch.nn.Parameter(torch.ones(2))
    OrthogonalMomentum([still]).step()
    assert still.tolist() == [1, 1]
