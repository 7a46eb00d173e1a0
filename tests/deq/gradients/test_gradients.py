"""Every gradient on every problem, behind every solver; and how they tend to each other."""

import dataclasses

import pytest
import torch

from equipoise.deq import (
    Anderson,
    Broyden,
    Implicit,
    Newton,
    Phantom,
    Picard,
    Result,
    Unrolled,
    fixed_point,
)
from tests.problems import PROBLEMS, network

SOLVERS = {
    "picard": Picard(tolerance=1e-13, max_passes=400),
    "anderson": Anderson(tolerance=1e-13, max_passes=300, window=8),
    "anderson qr": Anderson(tolerance=1e-13, max_passes=300, window=8, orthogonal=True),
    "broyden": Broyden(tolerance=1e-13, max_passes=300),
    "newton": Newton(tolerance=1e-13, max_passes=300),
}
TIGHT = SOLVERS["anderson"]


def variables(problem):
    return tuple(arg.clone().requires_grad_() for arg in problem.args)


def solved(problem, args, *, solver=TIGHT, gradient=None):
    return fixed_point(
        problem.f,
        problem.start,
        *args,
        solver=solver,
        gradient=gradient or Implicit(solver=solver),
        inner=problem.inner,
    ).value


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("name", SOLVERS)
def test_implicit_gradient_is_exact_to_second_order(name, problem):
    """The same solver for the fixed point, its adjoint, and the adjoint of both."""
    if name == "picard" and not problem.contracts:
        pytest.skip("plain iteration needs a contraction")
    if problem.name == "ill-conditioned":
        # Its condition number, 2000, enters once per derivative; gradcheck's differences cannot follow.
        problem = dataclasses.replace(problem, args=tuple(0.9 * a for a in problem.args))
    args = variables(problem)
    value = lambda *args: solved(problem, args, solver=SOLVERS[name])  # noqa: E731
    assert torch.autograd.gradcheck(value, args, fast_mode=True)
    assert torch.autograd.gradgradcheck(value, args, fast_mode=True)


# What every gradient tends to, with settings that bring it there on a map that contracts.
GRADIENTS = {
    "implicit": lambda solver: Implicit(solver=solver),
    "phantom": lambda solver: Phantom(steps=120),
    "neumann": lambda solver: Phantom(steps=120, neumann=True),
    "unrolled": lambda solver: Unrolled(passes=240),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.parametrize("name", SOLVERS)
def test_every_gradient_behind_every_solver_equals_the_matrix_formula(name, kind, problem, dtype):
    """dL/dargs = (∂f/∂args)ᵀ (I - J)⁻ᵀ ∂L/∂z with dense matrices."""
    if not problem.contracts and (name == "picard" or kind != "implicit"):
        pytest.skip("a sum over passes needs a contraction")
    exact = variables(problem)
    z = problem.answer.clone().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda z: problem.f(z, *problem.args), z)
    jacobian = jacobian.reshape(z.numel(), z.numel())
    weight = torch.linspace(-1, 1, z.numel(), dtype=torch.float64).view_as(z)
    adjoint = torch.linalg.solve(torch.eye(len(jacobian)).double() - jacobian.T, weight.flatten())
    expected = torch.autograd.grad(problem.f(z, *exact), exact, adjoint.view_as(z))

    tolerance = 3e-6 if dtype == torch.float32 else 1e-12
    problem = problem.to(dtype)
    solver = dataclasses.replace(SOLVERS[name], tolerance=tolerance)
    args = variables(problem)
    value = solved(problem, args, solver=solver, gradient=GRADIENTS[kind](solver))
    found = torch.autograd.grad((value * weight.to(dtype)).sum(), args)
    for ours, theirs in zip(found, expected, strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < 3 * problem.loosest * tolerance


def force_loss(z, x, parameters):
    """A gradient with respect to x, and the gradient of its square with respect to parameters."""
    (force,) = torch.autograd.grad(z.square().sum(), x, create_graph=True)
    return force, torch.autograd.grad(force.square().sum(), parameters)


def test_force_loss_equals_a_long_unrolled_reference_and_phantom_does_not():
    problem = network()
    w, u, x = variables(problem)
    through_time = solved(problem, (w, u, x), gradient=Unrolled(passes=200))
    force, (gradient, _) = force_loss(through_time, x, (w, u))
    ours, (ours_gradient, _) = force_loss(solved(problem, (w, u, x)), x, (w, u))
    torch.testing.assert_close(ours, force, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours_gradient, gradient, rtol=1e-8, atol=1e-10)

    def error(steps):
        value = solved(problem, (w, u, x), gradient=Phantom(steps=steps))
        return ((force_loss(value, x, (w, u))[0] - force).norm() / force.norm()).item()

    # The phantom force approaches the exact one with its number of steps, and is wrong at one.
    assert error(1) > 1e-2 > 1e-6 > error(40)


@pytest.mark.parametrize("neumann", [False, True])
@pytest.mark.parametrize("damping", [1.0, 0.7])
def test_phantom_tends_to_implicit_tends_to_unrolled(damping, neumann):
    """Geometrically, at the rate of the contraction."""
    problem = network()
    args = variables(problem)
    weight = torch.randn_like(problem.answer)

    def gradient(kind):
        return torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    (solved(problem, args, gradient=kind) * weight).sum(), args
                )
            ]
        )

    exact = gradient(Implicit(solver=TIGHT))
    errors = [
        (gradient(Phantom(steps=k, damping=damping, neumann=neumann)) - exact).norm()
        for k in (1, 5, 25, 125)
    ]
    assert errors[0] > 3 * errors[1] > 30 * errors[2] and errors[3] < 1e-10
    unrolled = [(gradient(Unrolled(passes=k)) - exact).norm() for k in (2, 10, 100)]
    assert unrolled[0] > 3 * unrolled[1] and unrolled[2] < 1e-10


def test_both_forms_of_phantom_are_the_published_series():
    """τ Σ_{i<k} (τJ + (1 - τ) I)^i with dense matrices."""
    problem = network()
    w, u, x = variables(problem)
    steps, damping = 4, 0.6
    z = problem.answer
    jacobian = torch.autograd.functional.jacobian(lambda z: problem.f(z, w, u, x), z)
    jacobian = jacobian.reshape(z.numel(), z.numel()).detach()
    identity = torch.eye(len(jacobian), dtype=torch.float64)
    step = damping * jacobian + (1 - damping) * identity
    series = damping * sum(torch.linalg.matrix_power(step, i) for i in range(steps))
    weight = torch.randn_like(z)
    adjoint = (series.T @ weight.flatten()).view_as(z)
    (expected,) = torch.autograd.grad(problem.f(z, w, u, x), w, adjoint)
    for neumann in (False, True):
        kind = Phantom(steps=steps, damping=damping, neumann=neumann)
        value = solved(problem, (w, u, x), gradient=kind)
        (found,) = torch.autograd.grad((value * weight).sum(), w)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_unrolled_is_exactly_the_gradient_of_what_was_computed():
    """Far from the fixed point, from a start that itself is differentiated, damped."""
    problem = network()
    args = variables(problem)
    start = torch.randn_like(problem.answer).requires_grad_()

    def value(start, *args):
        kind = Unrolled(passes=3, damping=0.8)
        return fixed_point(problem.f, start, *args, gradient=kind, inner=problem.inner).value

    by_hand = start
    for _ in range(3):
        by_hand = 0.2 * by_hand + 0.8 * problem.f(by_hand, *args)
    torch.testing.assert_close(value(start, *args), by_hand)
    assert torch.autograd.gradcheck(value, (start, *args), fast_mode=True)
    assert torch.autograd.gradgradcheck(value, (start, *args), fast_mode=True)
    with torch.no_grad():  # the same numbers where no gradient is wanted
        again = value(start, *args)
    torch.testing.assert_close(value(start, *args), again, rtol=0, atol=0)


def test_unrolled_tells_whether_it_got_near_the_fixed_point():
    problem = network()
    solver = Anderson(tolerance=1e-6)
    results = [
        fixed_point(
            problem.f,
            problem.start,
            *problem.args,
            solver=solver,
            gradient=Unrolled(passes=passes),
            inner=problem.inner,
        )
        for passes in (2, 60)
    ]
    assert results[0].result.tolist() == [Result.MAX_PASSES] * 2
    assert results[1].converged
    assert results[0].passes.tolist() == [2, 2]


def test_a_warm_adjoint_saves_passes_and_changes_nothing_else():
    problem = network()
    w, u, x = variables(problem)
    seen = []

    def gradient(start):
        kind = Implicit(
            solver=Anderson(tolerance=1e-10, max_passes=200), start=start, observer=seen.append
        )
        value = solved(problem, (w, u, x), gradient=kind)
        return torch.autograd.grad(value.square().sum(), w)[0]

    cold = gradient(None)
    warm = gradient(seen[0].value)
    torch.testing.assert_close(cold, warm, rtol=1e-8, atol=1e-9)
    assert seen[1].passes.max() == 1 < seen[0].passes.min()
    with pytest.raises(ValueError, match=r"Implicit.start must be like the state, \(5, 4\)"):
        gradient(seen[0].value[:2])


def test_final_solver_serves_the_last_derivative_only():
    problem = network()
    w, u, x = variables(problem)
    seen = []
    kind = Implicit(solver=TIGHT, final=Anderson(tolerance=1e-2), observer=seen.append)
    force_loss(solved(problem, (w, u, x), gradient=kind), x, (w, u))
    assert seen[0].residual.max() < 1e-12 < 1e-6 < seen[-1].residual.max()


def test_arguments_that_f_ignores_and_a_map_without_state():
    """Unused arguments get no gradient; where f does not depend on z, the derivative is that of f."""
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    unused = torch.ones(1, dtype=torch.float64, requires_grad=True)
    value = fixed_point(lambda z, x, unused: x.sin(), torch.zeros(2, 3).double(), x, unused).value
    found = torch.autograd.grad(value.sum(), (x, unused), allow_unused=True)
    torch.testing.assert_close(found[0], x.cos())
    assert found[1] is None or found[1].abs().sum() == 0


@pytest.mark.parametrize("kind", [Implicit(), Phantom(neumann=True)], ids=["implicit", "neumann"])
def test_a_closure_over_a_variable_is_refused_with_its_name(kind):
    """Its gradient would silently be missing."""
    start = torch.zeros(2, 3)
    weight = torch.randn(3, 3, requires_grad=True)
    x = torch.randn(2, 3, requires_grad=True)
    with pytest.raises(ValueError, match=r"not among its arguments \(weight\).*equipoise.deq.DEQ"):
        fixed_point(lambda z, x: torch.tanh(0.1 * z @ weight + x), start, x, gradient=kind)
    module = torch.nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"not among its arguments \(self\)"):
        fixed_point(module, start, gradient=kind)
    with pytest.raises(ValueError, match=r"not among its arguments \(module\)"):
        fixed_point(lambda z, x: torch.tanh(0.1 * module(z) + x), start, x, gradient=kind)
    with torch.no_grad():
        solution = fixed_point(lambda z, x: torch.tanh(0.1 * z @ weight + x), start, x)
    assert solution.converged and not solution.value.requires_grad


@pytest.mark.parametrize("kind", [Phantom(), Unrolled(passes=5)], ids=["phantom", "unrolled"])
def test_gradients_that_apply_f_see_closures(kind):
    weight = torch.randn(3, 3, requires_grad=True)
    x = torch.randn(2, 3)
    f = lambda z: torch.tanh(0.1 * z @ weight + x)  # noqa: E731
    value = fixed_point(f, torch.zeros(2, 3), gradient=kind).value
    (found,) = torch.autograd.grad(value.sum(), weight)
    assert found.abs().sum() > 0


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="steps must be >= 1, received 0"):
        Phantom(steps=0)
    with pytest.raises(ValueError, match=r"damping must lie in \(0, 1\], received 1.5"):
        Phantom(damping=1.5)
    with pytest.raises(ValueError, match="passes must be >= 1, received 0"):
        Unrolled(passes=0)
