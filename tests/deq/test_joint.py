"""State and adjoint in the same passes: what is of second order, what secants are worth, and that structures do not mix."""

from dataclasses import replace

import pytest
import torch

from equipoise.deq import Anderson, Inner, Joint, Result, Solution, fixed_point
from equipoise.deq.gradients import Adjoint

ROWS, WIDTH = 4, 3
# One constant map per row, so that rows can be given to different structures.
GENERATOR = torch.Generator().manual_seed(0)
COUPLING = torch.randn(ROWS, WIDTH, WIDTH, generator=GENERATOR, dtype=torch.float64)
COUPLING = 0.6 * COUPLING / torch.linalg.matrix_norm(COUPLING, ord=2)[:, None, None]
INPUT = torch.randn(ROWS, WIDTH, generator=GENERATOR, dtype=torch.float64)
WEIGHT = torch.randn(WIDTH, generator=GENERATOR, dtype=torch.float64)
TIGHT = Anderson(tolerance=1e-14, max_passes=300)


def f(z, rows=slice(None), inputs=INPUT):
    return torch.tanh(torch.einsum("rij,rj->ri", COUPLING[rows], z) + inputs[rows])


def linear(z, rows=slice(None), inputs=INPUT):
    return torch.einsum("rij,rj->ri", COUPLING[rows], z) + inputs[rows]


def energy(z):
    return (torch.sin(z) * WEIGHT).sum(1)


def gradient(z, adjoint, *, of=f, read=energy, **options):
    z, adjoint = z.detach().requires_grad_(), adjoint.detach().requires_grad_()
    value = (read(z) + (adjoint * (of(z, **options) - z)).sum(1)).sum()
    return value.detach(), *torch.autograd.grad(value, (adjoint, z))


def solved(inner=None, *, of=f, read=energy, **options) -> Solution:
    inner = Inner() if inner is None else inner
    rows = options.get("rows", slice(None))
    solution = fixed_point(
        lambda z: of(z, **options), torch.zeros_like(INPUT[rows]), solver=TIGHT, inner=inner
    )
    z = solution.value.requires_grad_()
    (pull,) = torch.autograd.grad(read(z).sum(), z)
    adjoint = TIGHT.solve(Adjoint(of(z, **options), z, pull), pull, inner).value
    return replace(solution, value=z.detach(), adjoint=adjoint.detach())


def passes(joint, start, inner=None, **options):
    """(value of L at the last pass, solution)."""
    iteration = joint.begin(start, Inner() if inner is None else inner)
    while not iteration.last:
        _, residual, pull = gradient(iteration.value, iteration.adjoint, **options)
        iteration.step(residual, pull)
    value, residual, pull = gradient(iteration.value, iteration.adjoint, **options)
    return value, iteration.finish(residual, pull)


def disturbed(solution, size):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, *solution.value.shape, generator=generator, dtype=torch.float64)
    return replace(
        solution,
        value=solution.value + size * noise[0],
        adjoint=solution.adjoint + size * noise[1],
    )


def test_the_value_is_wrong_in_second_order_where_the_residual_is_in_first():
    exact = solved()
    errors, residuals, plain = [], [], []
    for size in (1e-2, 1e-3):
        start = disturbed(exact, size)
        value, solution = passes(Joint(passes=1), start)
        errors.append(abs(float(value - energy(exact.value).sum())))
        plain.append(abs(float(energy(start.value).sum() - energy(exact.value).sum())))
        residuals.append(float(solution.residual))
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)
    assert plain[0] / plain[1] == pytest.approx(10, rel=0.1)
    assert residuals[0] / residuals[1] == pytest.approx(10, rel=0.1)
    assert errors[1] < 0.05 * plain[1]


def test_passes_approach_state_and_adjoint():
    exact = solved()
    start = disturbed(exact, 0.1)
    for k in (2, 6, 30):
        _, solution = passes(Joint(passes=k, recycled=0), start)
        error = max(
            float((solution.value - exact.value).abs().max()),
            float((solution.adjoint - exact.adjoint).abs().max()),
        )
        # The adjoint waits for the state, so the rate sets in late: 0.6 with some room.
        assert error < 2 * 0.7**k
        assert solution.passes.tolist() == solution.adjoint_passes.tolist() == [k]


def quadratic(z):
    """With a linear map: a problem whose Jacobians are constant."""
    return (z * WEIGHT).sum(1)


def test_secants_of_one_problem_solve_the_next_at_once():
    """A linear map of one row has as many directions as its width: secants in all of them know its inverse."""
    rows = slice(0, 1)
    options = {"of": linear, "read": quadratic, "rows": rows}
    joint = Joint(passes=WIDTH + 1, recycled=WIDTH, max_residual=10.0)
    _, first = passes(joint, disturbed(solved(**options), 1.0), **options)
    assert first.secants[0].mapped.shape == (WIDTH, 1, WIDTH)
    # Another input, the same Jacobian: from a bad guess to the answer in one update.
    other = options | {"inputs": INPUT + 1.0}
    exact = solved(**other)
    start = replace(disturbed(exact, 1.0), secants=first.secants)
    _, with_secants = passes(Joint(passes=1, recycled=WIDTH, max_residual=10.0), start, **other)
    _, without = passes(Joint(passes=1, max_residual=10.0), replace(start, secants=None), **other)
    assert (with_secants.value - exact.value).abs().max() < 1e-9
    assert (with_secants.adjoint - exact.adjoint).abs().max() < 1e-9
    assert (without.value - exact.value).abs().max() > 1e-2


def test_structures_have_secants_of_their_own():
    owner = torch.tensor([0, 0, 1, 1])
    joint = Joint(passes=3, recycled=2)
    _, together = passes(joint, disturbed(solved(), 0.01), Inner(owner, 2))
    start = replace(disturbed(solved(), 0.02), secants=together.secants)
    _, together = passes(joint, start, Inner(owner, 2))
    for index, rows in enumerate((slice(0, 2), slice(2, 4))):

        def part(solution, rows=rows):
            return replace(solution, value=solution.value[rows], adjoint=solution.adjoint[rows])

        _, first = passes(joint, part(disturbed(solved(), 0.01)), rows=rows)
        alone = replace(part(disturbed(solved(), 0.02)), secants=first.secants)
        _, alone = passes(joint, alone, rows=rows)
        torch.testing.assert_close(together.value[rows], alone.value, rtol=0, atol=1e-13)
        torch.testing.assert_close(together.adjoint[rows], alone.adjoint, rtol=0, atol=1e-13)
        assert float(together.residual[index]) == pytest.approx(float(alone.residual), rel=1e-6)


def test_equal_secants_do_no_harm():
    """What neighbouring solves have to say about the Jacobian may be the same thing many times."""
    exact = solved()
    start = disturbed(exact, 0.01)
    joint = Joint(passes=2, recycled=8)
    for _ in range(6):
        _, found = passes(joint, start)
        start = replace(start, secants=found.secants)
    assert len(found.secants[0].mapped) == 6
    _, fresh = passes(joint, replace(start, secants=None))
    error, once = ((s.value - exact.value).abs().max() for s in (found, fresh))
    assert error < 2 * once


def test_a_guess_that_was_none_is_said_to_be_one():
    _, solution = passes(Joint(passes=1), disturbed(solved(), 5.0))
    assert solution.result.tolist() == [Result.MAX_PASSES] and not solution.converged
    broken = disturbed(solved(), float("nan"))
    _, solution = passes(Joint(passes=2), broken)
    assert solution.result.tolist() == [Result.NON_FINITE]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"passes": 0}, "passes must be >= 1, received 0"),
        ({"recycled": -1}, "recycled must be >= 0, received -1"),
        ({"max_residual": 0.0}, "max_residual must be > 0, received 0.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Joint(**settings)


def test_a_start_needs_an_adjoint():
    with pytest.raises(ValueError, match="received a solution without one"):
        Joint().begin(replace(solved(), adjoint=None), Inner())


def test_a_tolerance_spends_passes_where_they_are_needed():
    exact = solved()
    joint = Joint(passes=20, recycled=0, tolerance=1e-3, max_residual=1.0)
    counts = []
    for size in (1e-6, 1e-2, 1.0):
        _, found = passes(joint, disturbed(exact, size))
        counts.append(int(found.passes))
        # One pass more than it took to get there, and that contracts.
        assert max(float(found.residual), float(found.adjoint_residual)) <= 1e-3
    assert counts[0] == 2 < counts[1] < counts[2] < 20
    assert int(passes(replace(joint, passes=4), disturbed(exact, 1.0))[1].passes) == 4


def test_a_tolerance_waits_for_the_adjoint_and_for_every_structure():
    exact, owner = solved(), torch.tensor([0, 0, 1, 1])
    joint = Joint(passes=20, recycled=0, tolerance=1e-3)
    wrong = exact.adjoint.clone()
    wrong[2:] += 0.1
    _, found = passes(joint, replace(exact, adjoint=wrong), Inner(owner, 2))
    assert found.passes.tolist() == found.adjoint_passes.tolist()
    assert int(found.passes[0]) > 4
    assert float(found.adjoint_residual.max()) <= 1e-3


def test_a_tolerance_must_be_one():
    with pytest.raises(ValueError, match="tolerance must be > 0 or None, received 0.0"):
        Joint(tolerance=0.0)
