"""What is refused before and during a solve, whatever the solver."""

import pytest
import torch

from equipoise.deq import Inner, Result, fixed_point
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
