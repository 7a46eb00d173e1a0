"""Penalties and estimates against dense algebra."""

import dataclasses

import pytest
import torch

from equipoise.deq import (
    Anderson,
    Inner,
    Picard,
    fixed_point,
    fixed_point_correction,
    jacobian_penalty,
    spectral_radius,
)
from tests.problems import linear, network


def test_spectral_radius_against_dense_algebra():
    problem = network()
    jacobian = torch.autograd.functional.jacobian(
        lambda z: problem.f(z, *problem.args), problem.answer
    )
    found = spectral_radius(
        problem.f, problem.answer, *problem.args, inner=problem.inner, steps=400
    )
    for structure, rows in enumerate([slice(0, 2), slice(2, 5)]):
        size = 4 * (rows.stop - rows.start)
        block = jacobian[rows, :, rows, :].reshape(size, size)
        radius = torch.linalg.eigvals(block).abs().max()
        assert abs(found[structure] / radius - 1) < 0.05


def test_jacobian_penalty_is_the_mean_gain_and_tends_to_that_of_the_slowest_mode():
    problem = linear(complex_spectrum=False)  # symmetric Jacobian: ρ² is the largest gain
    matrix = problem.args[0]

    def mean(power_steps):
        samples = [
            jacobian_penalty(
                problem.f,
                problem.answer,
                *problem.args,
                inner=problem.inner,
                power_steps=power_steps,
            )
            for _ in range(500)
        ]
        return torch.stack(samples).mean()

    assert abs(mean(0) / (matrix.square().sum() / 4) - 1) < 0.1
    assert abs(mean(40) / 0.8**2 - 1) < 0.05


def test_a_contraction_that_is_allowed_is_free():
    problem = linear(complex_spectrum=False)
    matrix = problem.args[0].clone().requires_grad_()

    def penalty(allowed):
        return jacobian_penalty(
            problem.f,
            problem.answer,
            matrix,
            *problem.args[1:],
            inner=problem.inner,
            power_steps=40,
            allowed=allowed,
            generator=torch.Generator().manual_seed(0),
        )

    # Structures contract each for itself: only those above the bar pay, and only for what is above.
    slack = (penalty(0.0) - penalty(0.3)).item()
    assert 0 < slack <= 0.3**2 + 1e-12
    free = penalty(0.95)
    assert free.item() == 0
    (slope,) = torch.autograd.grad(free, matrix)
    assert not slope.any()
    with pytest.raises(ValueError, match="allowed must be a contraction >= 0"):
        penalty(-0.1)


def test_the_penalty_makes_a_map_contract():
    problem = network()
    w, u, x = (arg.clone() for arg in problem.args)
    w = (2 * w).requires_grad_()
    optimiser = torch.optim.Adam([w], lr=0.02)

    def radius():
        with torch.no_grad():
            z = fixed_point(problem.f, problem.start, w, u, x, solver=Anderson(max_passes=200))
        return z, spectral_radius(problem.f, z.value, w, u, x).item()

    before = radius()[1]
    for _ in range(40):
        solution, _ = radius()
        optimiser.zero_grad()
        jacobian_penalty(problem.f, solution.value, w, u, x, power_steps=3).backward()
        optimiser.step()
    assert radius()[1] < 0.7 * before


def test_fixed_point_correction_is_the_decaying_sum_over_the_states_kept():
    problem = network()
    args = tuple(arg.clone().requires_grad_() for arg in problem.args)
    solution = fixed_point(
        problem.f, problem.start, *args, solver=Picard(trajectory=(1, 3)), inner=problem.inner
    )
    loss = lambda z: (z - 1).square().sum()  # noqa: E731
    found = fixed_point_correction(loss, problem.f, solution, *args, decay=0.5)
    first, third = (problem.f(state, *args) for state in solution.trajectory)
    torch.testing.assert_close(found, 0.25 * loss(first) + 0.5 * loss(third))
    assert all(g.isfinite().all() for g in torch.autograd.grad(found, args))

    with pytest.raises(ValueError, match="tell the solver which passes to keep"):
        bare = dataclasses.replace(solution, trajectory=())
        fixed_point_correction(loss, problem.f, bare, *args)
    with pytest.raises(ValueError, match=r"decay must lie in \(0, 1\], received 2"):
        fixed_point_correction(loss, problem.f, solution, *args, decay=2.0)


@pytest.mark.parametrize("allowed", [0.0, 0.3])
def test_a_structure_without_a_gain_spoils_no_gradient(allowed):
    weights = (0.3 * torch.randn(8, 8)).requires_grad_()
    bias = torch.tensor([1.0, 1.0, -100.0, -100.0])[:, None]
    inner = Inner(torch.tensor([0, 0, 1, 1]), 2)
    penalty = jacobian_penalty(
        lambda z, w: torch.relu(z @ w + bias),
        torch.zeros(4, 8),
        weights,
        inner=inner,
        power_steps=2,
        allowed=allowed,
    )
    (gradient,) = torch.autograd.grad(penalty, weights)
    assert gradient.isfinite().all() and gradient.any()
