import itertools
import math

import pytest
import torch

from equipoise.deq import Anderson, Broyden, Inner, Newton, Picard, Result, fixed_point
from equipoise.deq.monotone import ForwardBackward, PeacemanRachford, ReLU, Softplus, Tanh
from equipoise.deq.monotone.splitting import cocoercivity, extremes
from tests.deq.monotone.cells import inputs_for, random_cell

REFLECT = PeacemanRachford()


def equilibrium(cell, x, splitting, solver, *, guess=None):
    """z and the solution, from the splitting itself."""
    equation = cell.equation()
    q = equation.injection(x)
    guess = torch.zeros_like(q) if guess is None else guess
    solution = fixed_point(
        splitting.map(cell.activation),
        *splitting.prepare(cell.activation, guess, q, equation.weight, equation.metric),
        solver=solver,
        inner=Inner(torch.arange(len(x)), len(x)),
    )
    return splitting.equilibrium(cell.activation, solution.value), solution


def by_enumeration(weight, q):
    """All solutions of z = relu(Wz + q), one linear system per set of active units: the answer without any iteration."""
    found, size = [], len(q)
    for pattern in itertools.product([False, True], repeat=size):
        on = torch.tensor(pattern)
        z = torch.zeros(size, dtype=q.dtype)
        if on.any():
            matrix = torch.eye(int(on.sum()), dtype=q.dtype) - weight[on][:, on]
            z[on] = torch.linalg.solve(matrix, q[on])
        if (z[on] > 0).all() and ((weight @ z + q)[~on] <= 0).all():
            found.append(z)
    return found


def by_newton(cell, x):
    """z = σ(Wz + q) by Newton's method on dense matrices, along a path that raises W from zero."""
    equation = cell.equation()
    q = equation.injection(x)
    one = torch.eye(len(equation.weight), dtype=q.dtype)
    z = cell.activation(q)
    for part in torch.linspace(0, 1, 201, dtype=q.dtype):
        weight = part * equation.weight
        for _ in range(6):
            v = z @ weight.T + q
            slope = cell.activation.slope(v)
            matrix = one - slope[:, :, None] * weight
            z = z + torch.linalg.solve(matrix, (cell.activation(v) - z)[..., None])[..., 0]
    return z


@pytest.mark.parametrize("lipschitz", [None, 0.7])
@pytest.mark.parametrize("splitting", [REFLECT, PeacemanRachford(0.3), ForwardBackward()])
def test_relu_equilibria_are_those_found_by_enumeration(splitting, lipschitz):
    cell = random_cell(3, 7, 2, lipschitz=lipschitz, size=2.0, margin=0.5)
    x = inputs_for(cell, 4)
    z, solution = equilibrium(cell, x, splitting, Picard(tolerance=1e-13, max_passes=50_000))
    assert solution.converged
    equation = cell.equation().weight.detach(), cell.equation().injection(x).detach()
    for row, q in zip(z, equation[1], strict=True):
        answers = by_enumeration(equation[0], q)
        assert len(answers) == 1, "the equilibrium must exist and be unique"
        torch.testing.assert_close(row, answers[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("activation", [Tanh(), Softplus()], ids=repr)
def test_smooth_equilibria_are_those_of_newton(activation):
    cell = random_cell(3, 12, 2, lipschitz=1.0, activation=activation)
    x = inputs_for(cell)
    z, solution = equilibrium(cell, x, REFLECT, Picard(tolerance=1e-13, max_passes=5000))
    assert solution.converged
    torch.testing.assert_close(z, by_newton(cell, x), rtol=0, atol=1e-10)


def test_picard_on_the_cell_diverges_where_splittings_converge():
    cell = random_cell(3, 20, 2, lipschitz=1.0, size=2.0, margin=1.0)
    x = inputs_for(cell)
    equation = cell.equation()
    assert torch.linalg.eigvals(equation.weight).abs().max() > 2
    start = torch.zeros(len(x), 20, dtype=torch.float64)
    plain = fixed_point(
        lambda z, w, q: torch.relu(z @ w.T + q),
        start,
        equation.weight.detach(),
        equation.injection(x).detach(),
        solver=Picard(tolerance=1e-10, max_passes=5000),
        inner=Inner(torch.arange(len(x)), len(x)),
    )
    assert (plain.result != Result.CONVERGED).any()
    points = []
    for splitting, passes in ((REFLECT, 200), (ForwardBackward(), 20_000)):
        z, solution = equilibrium(cell, x, splitting, Picard(tolerance=1e-12, max_passes=passes))
        assert solution.converged
        points.append(z)
    torch.testing.assert_close(points[0], points[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("splitting", [REFLECT, ForwardBackward()], ids=repr)
def test_every_start_leads_to_the_same_point(splitting):
    cell = random_cell(3, 10, 2, lipschitz=1.0, margin=1.0)
    x = inputs_for(cell)
    settings = Picard(tolerance=1e-13, max_passes=20_000)
    points = []
    for seed in (5, 6):
        guess = 10 * inputs_for(random_cell(10, 2), len(x), seed=seed)
        points.append(equilibrium(cell, x, splitting, settings, guess=guess)[0])
    torch.testing.assert_close(points[0], points[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", [Picard, Anderson, Broyden, Newton])
def test_any_solver_may_iterate_it(solver):
    cell = random_cell(3, 12, 2, lipschitz=1.0, activation=Tanh())
    x = inputs_for(cell)
    z, solution = equilibrium(cell, x, REFLECT, solver(tolerance=1e-11, max_passes=1000))
    assert solution.converged
    torch.testing.assert_close(z, by_newton(cell, x), rtol=0, atol=1e-8)


@pytest.mark.parametrize("size", [1.0, 10.0, 100.0])
def test_passes_hardly_depend_on_the_size_of_the_weights(size):
    cell = random_cell(3, 20, 2, lipschitz=1.0, size=size)
    settings = Picard(tolerance=1e-8, max_passes=400)
    assert equilibrium(cell, inputs_for(cell), REFLECT, settings)[1].converged


@pytest.mark.parametrize("alpha", [0.01, 0.3, 1.0, 30.0, None])
@pytest.mark.parametrize("kind", [PeacemanRachford, ForwardBackward])
def test_maps_contract_as_fast_as_the_theory_says(kind, alpha):
    """In the metric Λ, for any two states; the bound is computed here from the matrix itself."""
    cell = random_cell(3, 15, 2, lipschitz=1.0)
    equation = cell.equation()
    smallest, largest = (float(v) for v in extremes(equation.weight, equation.metric))
    cocoercive = float(cocoercivity(equation.weight, equation.metric))
    assert cocoercive >= smallest / largest**2
    root = equation.metric.detach().sqrt()
    if kind is PeacemanRachford:
        step = 1 / math.sqrt(smallest * largest) if alpha is None else alpha
        bound = math.sqrt(1 - 4 * step * smallest / (1 + step * largest) ** 2)
    else:
        alpha = None if alpha is None else 1.9 * cocoercive * alpha / 30
        step = cocoercive if alpha is None else alpha
        bound = math.sqrt(1 - step * (2 - step / cocoercive) * smallest)
    splitting = kind(alpha)
    generator = torch.Generator().manual_seed(0)
    first, second = 3 * torch.randn(2, 500, 15, generator=generator, dtype=torch.float64)
    q = torch.zeros(500, 15, dtype=torch.float64)
    _, drive, matrix = splitting.prepare(ReLU(), q, q, equation.weight, equation.metric)
    f = splitting.map(ReLU())
    change = (f(first, drive, matrix) - f(second, drive, matrix)).detach() * root
    ratio = change.norm(dim=1) / ((first - second) * root).norm(dim=1)
    assert ratio.max() <= bound + 1e-12 < 1


def test_forward_backward_refuses_steps_that_need_not_converge():
    cell = random_cell(3, 10, 2, lipschitz=1.0)
    equation = cell.equation()
    limit = 2 * float(cocoercivity(equation.weight, equation.metric))
    x = inputs_for(cell)
    cell.splitting = ForwardBackward(0.99 * limit)
    cell.solve(x)
    cell.splitting = ForwardBackward(1.01 * limit)
    with pytest.raises(ValueError, match=r"alpha of ForwardBackward must be < .*received .*leave"):
        cell.solve(x)


@pytest.mark.parametrize("kind", [PeacemanRachford, ForwardBackward])
@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_steps_must_be_positive_and_finite(kind, alpha):
    with pytest.raises(ValueError, match="alpha must be > 0 and finite, received"):
        kind(alpha)


@pytest.mark.parametrize(
    "splitting", [PeacemanRachford(0.5), ForwardBackward(0.5), ForwardBackward()], ids=repr
)
def test_proximal_steps_without_a_closed_form_are_refused(splitting):
    with pytest.raises(ValueError, match=r"alpha must be 1 with Tanh\(\), received .*closed form"):
        random_cell(3, 5, activation=Tanh(), splitting=splitting)
    random_cell(3, 5, activation=Tanh(), splitting=type(splitting)(1.0))
