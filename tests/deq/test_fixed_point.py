"""What is refused before and during a solve, whatever the solver."""

import pytest
import torch

from equipoise.deq import Anderson, Broyden, Inner, Picard, Result, fixed_point
from tests.problems import network


@pytest.mark.parametrize(
    "f, start, message",
    [
        (
            lambda z: z[:1],
            torch.zeros(2, 2),
            r"received \(1, 2\) torch.float32 on cpu for \(2, 2\)",
        ),
        (lambda z: z.double(), torch.zeros(2, 2), "received .* torch.float64"),
        (lambda z: (z, z), torch.zeros(2, 2), "f must return a tensor .* received <class 'tuple'>"),
        (lambda z: z, torch.full((2, 2), torch.nan), "start must be finite"),
        (lambda z: z, torch.zeros(2, 2, dtype=torch.int64), "start must be a floating-point"),
        (lambda z: z, torch.zeros(0, 2), r"at least one row, received shape \(0, 2\)"),
    ],
)
def test_maps_and_starts_that_make_no_sense_are_refused(f, start, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(f, start)


def test_a_map_that_changes_shape_on_the_way_is_refused():
    sizes = iter([3, 3, 2])
    with pytest.raises(ValueError, match=r"received \(2, 1\)"):
        fixed_point(lambda z: torch.cos(z)[: next(sizes)], torch.zeros(3, 1))


def test_owners_must_fit():
    with pytest.raises(ValueError, match="owner is needed to tell 2 structures apart"):
        Inner(None, 2)
    with pytest.raises(ValueError, match="structures must be >= 1, received 0"):
        Inner(None, 0)
    with pytest.raises(ValueError, match="names 5 rows, but start has 2"):
        fixed_point(lambda z: z, torch.zeros(2, 2), inner=network().inner)
    assert Inner(torch.tensor([0, 0, 1, 1])).structures == 2
    assert Inner().structures == 1


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden()])
def test_a_structure_without_rows_is_solved(solver):
    inner = Inner(torch.tensor([0, 0, 2, 2, 2]), 3)
    solution = fixed_point(lambda z: 0.5 * z + 1, torch.zeros(5, 8), solver=solver, inner=inner)
    assert solution.converged
    torch.testing.assert_close(solution.value, torch.full((5, 8), 2.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden()])
def test_a_map_onto_zero_is_no_overflow(solver, dtype):
    solution = fixed_point(torch.zeros_like, torch.full((4, 3), 10.0, dtype=dtype), solver=solver)
    assert solution.converged
    assert not solution.value.any()


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 4)])
def test_states_of_any_rank(shape):
    start = torch.zeros(shape, dtype=torch.float64)
    inner = Inner(torch.tensor([0, 1, 0]), 2)
    for kind in (None, inner):
        solution = fixed_point(torch.cos, start, inner=kind)
        assert solution.converged
        assert (solution.value - 0.7390851).abs().max() < 1e-4


def test_nothing_is_attached_where_nothing_is_to_be_differentiated():
    problem = network()
    assert not fixed_point(problem.f, problem.start, *problem.args).value.requires_grad
    args = [arg.requires_grad_() for arg in network().args]
    with torch.no_grad():
        assert not fixed_point(problem.f, problem.start, *args).value.requires_grad


def test_one_broken_row_breaks_its_structure_only():
    start = torch.zeros(4, 2)
    poison = torch.tensor([0.0, torch.inf, 0.0, 0.0])[:, None]
    inner = Inner(torch.tensor([0, 0, 1, 1]), 2)
    solution = fixed_point(lambda z: torch.cos(z) + poison, start, inner=inner)
    assert solution.result.tolist() == [Result.NON_FINITE, Result.CONVERGED]


def test_an_argument_that_the_map_ignores_has_no_gradient():
    u = torch.randn(3, requires_grad=True)
    z = fixed_point(lambda z, u: torch.tanh(0.5 * z + 1), torch.zeros(4, 3), u).value
    assert torch.autograd.grad(z.sum(), u, allow_unused=True) == (None,)


def test_combinations_are_those_of_dense_algebra():
    inner = Inner(torch.tensor([1, 0, 1]), 2)
    stack, weights = torch.randn(4, 3, 5, 2), torch.randn(4, 2)
    expected = torch.einsum("kr,krij->rij", weights[:, inner.owner], stack)
    torch.testing.assert_close(inner.combine(weights, stack), expected)
    square = inner.norm(stack[0]).square()
    torch.testing.assert_close(inner.squared(stack[0]), square, rtol=1e-6, atol=0)
