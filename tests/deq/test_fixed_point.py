import pytest
import torch

from equipoise.deq import (
    Anderson,
    Implicit,
    Inner,
    Phantom,
    Picard,
    Result,
    fixed_point,
    jacobian_penalty,
    spectral_radius,
)
from tests.problems import network, problems

TIGHT = {torch.float32: 1e-6, torch.float64: 1e-13}
SOLVERS = [Picard, Anderson]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def inner_of(problem, device="cpu"):
    return Inner(problem.owner.to(device), problem.structures)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("index", range(3))
def test_solvers_find_known_fixed_points(index, solver, dtype, device):
    problem = problems(dtype)[index]
    args = [a.to(device) for a in problem.args]
    start = torch.zeros_like(problem.answer, device=device)
    settings = solver(tolerance=TIGHT[dtype], max_passes=400)
    solution = fixed_point(
        problem.f, start, *args, solver=settings, inner=inner_of(problem, device)
    )
    assert solution.converged
    torch.testing.assert_close(
        solution.value.cpu(), problem.answer, rtol=0, atol=200 * TIGHT[dtype]
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_structure_does_not_feel_its_batch_mates(solver):
    problem = network(torch.float64)
    w, u, x = problem.args
    settings = solver(tolerance=1e-3, max_passes=100)
    both = fixed_point(
        problem.f, torch.zeros(5, 4).double(), w, u, x, solver=settings, inner=inner_of(problem)
    )
    alone = fixed_point(problem.f, torch.zeros(3, 4).double(), w, u, x[2:], solver=settings)
    torch.testing.assert_close(both.value[2:], alone.value, rtol=0, atol=1e-15)
    assert both.passes[1] == alone.passes[0]


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_converged_start_costs_one_pass(solver):
    problem = network(torch.float64)
    solution = fixed_point(
        problem.f,
        problem.answer,
        *problem.args,
        solver=solver(tolerance=1e-8),
        inner=inner_of(problem),
    )
    assert solution.passes.tolist() == [1, 1]
    assert solution.result.tolist() == [Result.CONVERGED] * 2


def test_anderson_beats_picard_and_does_not_stall():
    """A relative ridge keeps accelerating at small residuals; an absolute one would fall back to plain averaging."""
    problem = problems(torch.float64)[0]
    start = torch.zeros_like(problem.answer)
    passes = {
        solver: fixed_point(
            problem.f, start, *problem.args, solver=solver(tolerance=1e-12, max_passes=500)
        ).passes.item()
        for solver in SOLVERS
    }
    assert passes[Anderson] < passes[Picard] / 3


@pytest.mark.parametrize("solver", SOLVERS)
def test_not_converging_is_a_result(solver):
    start = torch.ones(2, 3, dtype=torch.float64)
    growing = fixed_point(lambda z: z + z.square() + 1, start, solver=solver(max_passes=3))
    assert growing.result.tolist() == [Result.MAX_PASSES]
    assert growing.passes.tolist() == [3]
    assert torch.isfinite(growing.value).all()
    broken = fixed_point(lambda z: z * torch.nan, start, solver=solver())
    assert broken.result.tolist() == [Result.NON_FINITE]
    assert not broken.converged


def test_a_broken_structure_leaves_its_mates_alone():
    problem = network(torch.float64)
    poison = torch.tensor([1, 1, torch.nan, 1, 1], dtype=torch.float64)[:, None]
    solution = fixed_point(
        lambda z, *args: problem.f(z, *args) * poison,
        torch.zeros(5, 4).double(),
        *problem.args,
        inner=inner_of(problem),
    )
    assert solution.result.tolist() == [Result.CONVERGED, Result.NON_FINITE]
    torch.testing.assert_close(solution.value[:2], problem.answer[:2], rtol=0, atol=1e-3)


@pytest.mark.parametrize("index", range(3))
def test_implicit_gradient_is_exact_to_second_order(index):
    problem = problems(torch.float64)[index]
    solver = Anderson(tolerance=1e-13, max_passes=300, window=8)
    args = tuple(a.clone().requires_grad_() for a in problem.args)

    def solved(*args):
        start = torch.zeros_like(problem.answer)
        return fixed_point(
            problem.f,
            start,
            *args,
            solver=solver,
            gradient=Implicit(solver),
            inner=inner_of(problem),
        ).value

    assert torch.autograd.gradcheck(solved, args)
    assert torch.autograd.gradgradcheck(solved, args, fast_mode=True)


def force_loss(z, x, parameters):
    """A gradient with respect to x, and the gradient of its square with respect to parameters."""
    (force,) = torch.autograd.grad(z.square().sum(), x, create_graph=True)
    return force, torch.autograd.grad(force.square().sum(), parameters)


def test_force_loss_equals_a_long_unrolled_reference_and_phantom_does_not():
    problem = network(torch.float64)
    w, u, x = (a.clone().requires_grad_() for a in problem.args)
    unrolled = torch.zeros_like(problem.answer)
    for _ in range(200):
        unrolled = problem.f(unrolled, w, u, x)
    force, (gradient, _) = force_loss(unrolled, x, (w, u))
    solver = Anderson(tolerance=1e-13, max_passes=300)
    start = torch.zeros_like(problem.answer)
    implicit = fixed_point(
        problem.f, start, w, u, x, solver=solver, gradient=Implicit(solver)
    ).value
    ours, (ours_gradient, _) = force_loss(implicit, x, (w, u))
    torch.testing.assert_close(ours, force, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours_gradient, gradient, rtol=1e-8, atol=1e-10)

    def error(steps):
        value = fixed_point(problem.f, start, w, u, x, solver=solver, gradient=Phantom(steps)).value
        return ((force_loss(value, x, (w, u))[0] - force).norm() / force.norm()).item()

    # The phantom force approaches the exact one with its number of steps, and is wrong at one.
    assert error(1) > 1e-2 > 1e-6 > error(40)


def test_spectral_radius_and_jacobian_penalty_against_dense_algebra():
    problem = network(torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: problem.f(z, *problem.args), problem.answer
    )
    for structure, rows in enumerate([slice(0, 2), slice(2, 5)]):
        size = 4 * (rows.stop - rows.start)
        block = jacobian[rows, :, rows, :].reshape(size, size)
        radius = torch.linalg.eigvals(block).abs().max()
        found = spectral_radius(
            problem.f, problem.answer, *problem.args, inner=inner_of(problem), steps=400
        )[structure]
        assert abs(found / radius - 1) < 0.05


def test_jacobian_penalty_is_the_mean_gain_and_tends_to_that_of_the_slowest_mode():
    problem = problems(torch.float64)[0]  # symmetric Jacobian: ρ² is the largest gain
    matrix, inner = problem.args[0], inner_of(problem)

    def mean(power_steps):
        samples = [
            jacobian_penalty(
                problem.f, problem.answer, *problem.args, inner=inner, power_steps=power_steps
            )
            for _ in range(500)
        ]
        return torch.stack(samples).mean()

    assert abs(mean(0) / (matrix.square().sum() / 4) - 1) < 0.1
    assert abs(mean(40) / 0.8**2 - 1) < 0.05


def test_settings_and_maps_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="max_passes must be >= 1, received 0"):
        Anderson(max_passes=0)
    with pytest.raises(ValueError, match=r"damping must lie in \(0, 1\], received 1.5"):
        Picard(damping=1.5)
    with pytest.raises(ValueError, match="tolerance must be >= 0, received nan"):
        Picard(tolerance=float("nan"))
    with pytest.raises(ValueError, match="f must return a tensor like its first argument"):
        fixed_point(lambda z: z[:1], torch.zeros(2, 2))
    with pytest.raises(ValueError, match="start must be finite"):
        fixed_point(lambda z: z, torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="start must be a floating-point tensor"):
        fixed_point(lambda z: z, torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="owner is needed"):
        Inner(None, 2)
