"""Every solver on every problem: the contract of `Solver`, whatever the method."""

import dataclasses

import pytest
import torch

from equipoise.deq import Anderson, Broyden, Inner, Newton, Picard, Result, fixed_point
from tests.problems import PROBLEMS, expanding, ill_conditioned, linear, network

TIGHT = {torch.float32: 3e-6, torch.float64: 1e-12}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SOLVERS = {
    "picard": Picard(),
    "picard damped": Picard(damping=0.6),
    "anderson": Anderson(),
    "anderson qr": Anderson(orthogonal=True),
    "anderson mixed": Anderson(mixing=0.7, window=8),
    "anderson restart": Anderson(restart=5.0),
    "broyden": Broyden(),
    "broyden short": Broyden(memory=8),
    "newton": Newton(),
}
# Solvers that need no contraction.
GENERAL = {"anderson", "anderson qr", "anderson mixed", "broyden", "newton"}
every_solver = pytest.mark.parametrize("name", SOLVERS)


def told(name, **settings):
    return dataclasses.replace(SOLVERS[name], **settings)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@every_solver
def test_finds_known_fixed_points(name, problem, dtype, device):
    if not (problem.contracts or name in GENERAL):
        pytest.skip("plain iteration and its like need a contraction")
    problem = problem.to(dtype, device)
    solver = told(name, tolerance=TIGHT[dtype], max_passes=400)
    solution = fixed_point(
        problem.f, problem.start, *problem.args, solver=solver, inner=problem.inner
    )
    assert solution.converged
    assert (solution.residual <= TIGHT[dtype]).all()
    error = (solution.value - problem.answer).norm() / problem.answer.norm()
    assert error < problem.loosest * TIGHT[dtype]


@every_solver
@pytest.mark.parametrize("tolerance", [1e-3, 1e-10])
def test_a_structure_does_not_feel_its_batch_mates(name, tolerance):
    problem = network()
    w, u, x = problem.args
    solver = told(name, tolerance=tolerance, max_passes=200)
    both = fixed_point(problem.f, problem.start, w, u, x, solver=solver, inner=problem.inner)
    alone = fixed_point(problem.f, problem.start[2:], w, u, x[2:], solver=solver)
    torch.testing.assert_close(both.value[2:], alone.value, rtol=0, atol=1e-13)
    assert both.passes[1] == alone.passes[0]
    torch.testing.assert_close(both.residual[1:], alone.residual, rtol=1e-3, atol=1e-14)


@every_solver
def test_the_order_of_rows_does_not_matter(name):
    """Owners need not be sorted."""
    problem = network()
    w, u, x = problem.args
    order = torch.tensor([3, 0, 4, 1, 2])
    solver = told(name, tolerance=1e-10, max_passes=300)
    shuffled = Inner(problem.inner.owner[order], 2)
    mixed = fixed_point(problem.f, problem.start, w, u, x[order], solver=solver, inner=shuffled)
    torch.testing.assert_close(mixed.value, problem.answer[order], rtol=0, atol=1e-8)


@every_solver
def test_a_converged_start_costs_one_pass(name):
    problem = network()
    solution = fixed_point(
        problem.f, problem.answer, *problem.args, solver=told(name), inner=problem.inner
    )
    assert solution.passes.tolist() == [1, 1]
    assert solution.result.tolist() == [Result.CONVERGED] * 2
    torch.testing.assert_close(solution.first_residual, solution.residual)


@every_solver
def test_a_structure_that_ended_is_frozen(name):
    """The second structure starts at its answer: neither its value nor its passes change while the first one goes on."""
    problem = network()
    start = torch.cat([problem.start[:2], problem.answer[2:]])
    solution = fixed_point(
        problem.f,
        start,
        *problem.args,
        solver=told(name, tolerance=1e-8, max_passes=200),
        inner=problem.inner,
    )
    assert solution.converged and solution.passes[0] > 3 and solution.passes[1] == 1
    assert solution.residuals[1:, 1].isnan().all()
    torch.testing.assert_close(
        solution.value[2:], problem.f(problem.answer, *problem.args)[2:], rtol=0, atol=0
    )


@every_solver
def test_without_a_fixed_point_the_result_says_so(name):
    start = torch.ones(2, 3, dtype=torch.float64)
    growing = fixed_point(lambda z: z + 1 + z.square(), start, solver=told(name, max_passes=4))
    assert growing.result.tolist() == [Result.MAX_PASSES]
    assert growing.passes.tolist() == [4]
    assert torch.isfinite(growing.value).all()
    broken = fixed_point(lambda z: z * torch.nan, start, solver=told(name))
    assert broken.result.tolist() == [Result.NON_FINITE]
    assert not broken.converged


@every_solver
def test_a_broken_structure_leaves_its_mates_alone(name):
    problem = network()
    poison = torch.tensor([1, 1, torch.nan, 1, 1], dtype=torch.float64)[:, None]
    solution = fixed_point(
        lambda z, *args: problem.f(z, *args) * poison,
        problem.start,
        *problem.args,
        solver=told(name),
        inner=problem.inner,
    )
    assert solution.result.tolist() == [Result.CONVERGED, Result.NON_FINITE]
    torch.testing.assert_close(solution.value[:2], problem.answer[:2], rtol=0, atol=1e-3)


@every_solver
def test_blowing_up_on_the_way_is_noticed_and_the_best_iterate_kept(name):
    """Turns infinite after three calls."""
    calls = []

    def f(z):
        calls.append(0)
        return 0.5 * z + 1 if len(calls) <= 3 else z / 0

    if name == "newton":
        pytest.skip("three calls are enough for a linear map")
    solution = fixed_point(f, torch.zeros(1, 3).double(), solver=told(name, tolerance=1e-14))
    if solution.result.item() == Result.CONVERGED:
        assert len(calls) <= 3  # one-dimensional: an accelerated solve is done by then
        return
    assert solution.result.tolist() == [Result.NON_FINITE]
    assert solution.value.isfinite().all()


@every_solver
def test_absolute_tolerance_ends_a_solve_whose_answer_is_zero(name):
    """Where z* = 0 the relative residual never falls."""
    start = torch.ones(1, 3, dtype=torch.float64)
    matrix = torch.diag(torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64))
    solver = told(name, tolerance=0.0, absolute=1e-6, max_passes=100)
    solution = fixed_point(lambda z: z @ matrix, start, solver=solver)
    assert solution.converged
    assert solution.value.abs().max() < 1e-5


@every_solver
def test_best_and_last_iterate(name):
    solver = told(name, max_passes=6, tolerance=0.0)

    def f(z):  # wanders about
        return torch.cos(7 * z) + 3 * torch.sin(11 * z)

    start = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None]
    best = fixed_point(f, start, solver=solver)
    last = fixed_point(f, start, solver=dataclasses.replace(solver, iterate="last"))
    seen = best.residuals[best.residuals.isfinite()]
    assert best.residual == seen.min()
    assert last.residual == seen[-1]


@every_solver
def test_the_trajectory_holds_the_states_after_the_passes_asked_for(name):
    problem = network()
    f, args = problem.f, problem.args
    solver = told(name, tolerance=1e-9, trajectory=(1, 2, 40), max_passes=200)
    start = torch.cat([problem.start[:2], problem.answer[2:]])
    solution = fixed_point(f, start, *args, solver=solver, inner=problem.inner)
    first, second, late = solution.trajectory
    torch.testing.assert_close(first, f(start, *args))
    errors = [(state - problem.answer).norm() for state in (first, second)]
    assert errors[1] < errors[0]
    # The second structure ended at its first pass and stays where it is.
    torch.testing.assert_close(second[2:], solution.value[2:], rtol=0, atol=0)
    if solution.passes.max() <= 40:
        torch.testing.assert_close(late, solution.value, rtol=0, atol=0)


@every_solver
def test_statistics_agree_with_each_other(name):
    problem = network()
    solver = told(name, tolerance=1e-6, max_passes=200)
    solution = fixed_point(
        problem.f, problem.start, *problem.args, solver=solver, inner=problem.inner
    )
    torch.testing.assert_close(solution.first_residual, solution.residuals[0])
    for structure in range(2):
        trace = solution.residuals[:, structure]
        trace = trace[trace.isfinite()]
        assert trace[-1] == solution.residual[structure] <= 1e-6
        if name != "newton":  # whose products are passes without a residual
            assert len(trace) == solution.passes[structure]


def test_passes_to_tight_tolerances_are_those_that_the_methods_promise():
    """Acceleration must not die at small residuals, and QR not lose to the normal equations."""
    problem = ill_conditioned()

    def passes(solver, tolerance):
        told = dataclasses.replace(solver, tolerance=tolerance, max_passes=9000)
        solution = fixed_point(problem.f, problem.start, *problem.args, solver=told)
        assert solution.converged
        return solution.passes.item()

    assert passes(Anderson(), 1e-3) < passes(Picard(), 1e-3) / 20
    # A linear map in four dimensions: Krylov methods end after a handful of passes, at any tolerance.
    assert passes(Newton(), 1e-11) <= 30
    assert passes(Anderson(orthogonal=True), 1e-11) <= passes(Anderson(), 1e-11)
    real = linear(complex_spectrum=False)
    solution = fixed_point(real.f, real.start, *real.args, solver=Newton(tolerance=1e-12))
    assert solution.converged and solution.passes < 15


def test_newton_converges_quadratically_where_iteration_diverges():
    weight = 2.5 * torch.linalg.qr(torch.randn(4, 4).double())[0]

    def f(z):
        return torch.tanh(z @ weight) + 0.3 * z.square() + 0.4

    start = torch.zeros(1, 4, dtype=torch.float64)
    picard = fixed_point(f, start, solver=Picard(max_passes=200, tolerance=1e-10))
    assert not picard.converged
    newton = fixed_point(f, start, solver=Newton(tolerance=1e-13, max_passes=400))
    assert newton.converged
    torch.testing.assert_close(f(newton.value), newton.value, rtol=0, atol=1e-12)


def test_anderson_restart_forgets_only_where_the_residual_grew():
    """Restarting one structure must not touch the other; without growth the setting changes nothing."""
    problem = network()
    plain = fixed_point(
        problem.f,
        problem.start,
        *problem.args,
        solver=Anderson(tolerance=1e-10),
        inner=problem.inner,
    )
    guarded = fixed_point(
        problem.f,
        problem.start,
        *problem.args,
        solver=Anderson(tolerance=1e-10, restart=1e6),
        inner=problem.inner,
    )
    torch.testing.assert_close(plain.value, guarded.value, rtol=0, atol=1e-14)

    def jumpy(z):  # expands strongly at first
        return torch.where(z.abs() < 5, 3 * z + 1, 0.5 * z + 4)

    start = torch.tensor([[0.1], [7.9]], dtype=torch.float64)
    solver = Anderson(tolerance=1e-10, restart=1.5, max_passes=60)
    inner = Inner(torch.tensor([0, 1]), 2)
    both = fixed_point(jumpy, start, solver=solver, inner=inner)
    alone = fixed_point(jumpy, start[1:], solver=solver)
    torch.testing.assert_close(both.value[1:], alone.value, rtol=0, atol=1e-12)
    assert both.result[1] == Result.CONVERGED


def test_qr_and_normal_equations_are_the_same_problem():
    problem = expanding().to(torch.float64)
    settings = {"tolerance": 0.0, "max_passes": 4, "iterate": "last", "regularisation": 1e-3}
    values = [
        fixed_point(
            problem.f,
            problem.start,
            *problem.args,
            solver=Anderson(orthogonal=orthogonal, **settings),
            inner=problem.inner,
        ).value
        for orthogonal in (False, True)
    ]
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-9)


def test_newton_says_what_to_do_about_an_operation_without_forward_derivatives():
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return 0.5 * z + 1

        @staticmethod
        def backward(ctx, g):
            return 0.5 * g

    start = torch.zeros(1, 3)
    with pytest.raises(ValueError, match="forward-mode derivatives.*use Anderson or Broyden"):
        fixed_point(Opaque.apply, start, solver=Newton())
    assert fixed_point(Opaque.apply, start, solver=Anderson()).converged


@every_solver
def test_settings_that_make_no_sense_are_refused(name):
    with pytest.raises(ValueError, match="max_passes must be >= 1, received 0"):
        told(name, max_passes=0)
    with pytest.raises(ValueError, match="tolerance must be >= 0, received nan"):
        told(name, tolerance=float("nan"))
    with pytest.raises(ValueError, match="absolute must be >= 0, received -1.0"):
        told(name, absolute=-1.0)
    with pytest.raises(
        ValueError, match=r"trajectory must hold passes from 1 to max_passes=9, .*\(0,\)"
    ):
        told(name, max_passes=9, trajectory=(0,))


def test_settings_of_one_solver_are_checked():
    for refused, message in [
        (lambda: Picard(damping=1.5), r"damping must lie in \(0, 1\], received 1.5"),
        (lambda: Anderson(window=0), "window must be >= 1"),
        (lambda: Anderson(mixing=0.0), r"mixing must lie in \(0, 1\]"),
        (lambda: Anderson(regularisation=0.0), "regularisation must be > 0"),
        (lambda: Anderson(restart=1.0), "restart must be > 1"),
        (lambda: Broyden(memory=0), "memory must be >= 1"),
        (lambda: Broyden(mixing=2.0), r"mixing must lie in \(0, 1\]"),
        (lambda: Newton(krylov=0), "krylov must be >= 1"),
        (lambda: Newton(forcing=1.0), r"forcing must lie in \(0, 1\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            refused()
