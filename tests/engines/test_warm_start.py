"""What the memory saves, and when it must not be trusted."""

import dataclasses

import numpy as np
import pytest
import torch

from equipoise.deq.predictors import ASPC, Last, LeastSquares, Linear, Quadratic
from equipoise.deq.solution import Result
from equipoise.engines import WarmStart
from equipoise.graph import Graph
from tests.engines.fakes import FakePotential, tiny_potential

CELL = np.array([[5.0, 0.0, 0.0], [1.0, 5.5, 0.0], [0.0, 0.5, 6.0]])
SPECIES = np.array([6, 8, 1, 1])
START = np.array([[0.5, 0.5, 0.5], [1.9, 0.6, 0.4], [0.1, 1.5, 0.4], [0.2, 0.3, 1.6]])
WAY = np.array([[0.4, -0.2, 0.1], [0.0, 0.5, -0.3], [-0.5, 0.1, 0.2], [0.3, 0.3, -0.1]])


def graph_at(time=0.0, *, positions=None, species=SPECIES, cell=CELL, pbc=True):
    if positions is None:
        positions = START + WAY * np.sin(time)
    return Graph.build(positions, species, cutoff=4.0, cell=cell, pbc=pbc)


def follow(warm_start, potential, times):
    passes = []
    for time in times:
        graph = graph_at(time)
        start = None if warm_start is None else warm_start.start(graph)
        equilibrium = potential(graph, start=start).equilibrium
        if warm_start is not None:
            warm_start.remember(graph, equilibrium)
        passes.append(int(equilibrium.passes + equilibrium.adjoint_passes))
    return passes


def filled(predictor=None, steps=3):
    warm_start = WarmStart(predictor or Quadratic())
    follow(warm_start, FakePotential(), 0.02 * np.arange(steps))
    return warm_start


def test_every_order_saves_passes_over_the_one_before():
    potential, times = FakePotential(), 0.02 * np.arange(12)
    memories = [None, WarmStart(Last()), WarmStart(Linear()), WarmStart(Quadratic())]
    totals = [sum(follow(memory, potential, times)[3:]) for memory in memories]
    assert totals[0] > 1.2 * totals[1]
    assert totals[1] > 1.2 * totals[2]
    assert totals[2] > 1.2 * totals[3]


def test_knows_nothing_at_first():
    assert WarmStart().start(graph_at()) is None


def test_the_guess_extrapolates_value_and_adjoint():
    warm_start, solved = WarmStart(Linear()), []
    for time in (0.0, 0.02):
        graph = graph_at(time)
        solved.append(FakePotential()(graph).equilibrium)
        warm_start.remember(graph, solved[-1])
    guess = warm_start.start(graph_at(0.04))
    torch.testing.assert_close(guess.value, 2 * solved[1].value - solved[0].value)
    torch.testing.assert_close(guess.adjoint, 2 * solved[1].adjoint - solved[0].adjoint)
    assert not guess.converged


def test_keeps_no_autograd_graph():
    solution = FakePotential()(graph_at()).equilibrium
    attached = dataclasses.replace(solution, value=solution.value.requires_grad_() * 2)
    warm_start = WarmStart(Quadratic())
    warm_start.remember(graph_at(), attached)
    assert not warm_start.start(graph_at(0.02)).value.requires_grad


def moved(distance):
    positions = graph_at(0.04).positions.numpy().copy()
    positions[2, 1] += distance
    return graph_at(positions=positions)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (graph_at(positions=START[:3], species=SPECIES[:3]), "atoms changed from 4 to 3"),
        (graph_at(0.04, species=SPECIES[[1, 0, 2, 3]]), "species"),
        (graph_at(0.04, pbc=[True, True, False]), "periodic"),
        (graph_at(0.04, cell=CELL * 1.04), "cell changed by 4.0%"),
        (moved(0.6), "an atom moved 0.6"),
    ],
)
def test_forgets_what_is_about_another_structure(graph, reason):
    warm_start = filled()
    assert warm_start.start(graph) is None
    assert reason in warm_start.reason
    assert (warm_start.forgotten, warm_start.remembered) == (1, 0)


@pytest.mark.parametrize("graph", [graph_at(0.04, cell=CELL * 1.01), moved(0.3)])
def test_small_changes_are_followed(graph):
    warm_start = filled()
    assert warm_start.start(graph) is not None
    assert warm_start.forgotten == 0


def test_wrapping_an_atom_into_the_cell_is_no_move():
    positions = graph_at(0.06).positions.numpy() + np.array([[1], [0], [-2], [0]]) @ CELL[:1]
    warm_start = filled()
    guess = warm_start.start(graph_at(positions=positions))
    assert guess is not None
    torch.testing.assert_close(guess.value, filled().start(graph_at(0.06)).value)


def test_without_periodicity_the_same_jump_is_a_move():
    warm_start = WarmStart()
    graph = graph_at(pbc=False)
    warm_start.remember(graph, FakePotential()(graph).equilibrium)
    positions = START + np.array([[1], [0], [0], [0]]) @ CELL[:1]
    assert warm_start.start(graph_at(positions=positions, pbc=False)) is None


def test_forgets_after_an_unconverged_solve():
    warm_start = filled()
    solution = FakePotential()(graph_at(0.06)).equilibrium
    for name in ("result", "adjoint_result"):
        warm_start = filled()
        stuck = torch.tensor([int(Result.MAX_PASSES)])
        warm_start.remember(graph_at(0.06), dataclasses.replace(solution, **{name: stuck}))
        assert warm_start.start(graph_at(0.06)) is None
        assert "converge" in warm_start.reason


def test_a_path_that_is_not_smooth_leaves_only_the_newest():
    warm_start = filled()
    assert warm_start.remembered == 3
    graph = graph_at(0.06)
    solution = FakePotential()(graph).equilibrium
    warm_start.remember(graph, dataclasses.replace(solution, passes=solution.passes + 99))
    assert warm_start.remembered == 1
    torch.testing.assert_close(warm_start.start(graph_at(0.08)).value, solution.value)


def test_a_bad_guess_leaves_only_the_newest():
    for residual, remembered in ((0.29, 3), (0.31, 1), (float("nan"), 1)):
        warm_start = filled()
        solution = FakePotential()(
            graph_at(0.06), start=warm_start.start(graph_at(0.06))
        ).equilibrium
        first = torch.tensor([residual])
        solution = dataclasses.replace(solution, first_residual=first, passes=0 * solution.passes)
        warm_start.remember(graph_at(0.06), solution)
        assert warm_start.remembered == remembered
    torch.testing.assert_close(warm_start.start(graph_at(0.08)).value, solution.value)


def test_the_bound_on_the_residual_of_a_guess_can_be_chosen():
    for bound, remembered in ((1e-12, 1), (0.3, 3)):
        warm_start = WarmStart(max_residual=bound)
        follow(warm_start, FakePotential(), 0.02 * np.arange(3))
        assert warm_start.remembered == remembered


def test_the_real_potential_says_how_good_a_guess_was():
    potential, warm_start, residuals = tiny_potential().eval(), WarmStart(Quadratic()), []
    for time in (0.0, 0.02, 0.04, 0.06):
        graph = graph_at(time)
        solution = potential(graph, start=warm_start.start(graph)).equilibrium
        warm_start.remember(graph, solution)
        residuals.append(float(solution.first_residual))
    assert residuals[0] > 0.5  # a start from nothing
    assert residuals[3] < residuals[1] < 0.3
    assert warm_start.remembered == 3


def test_a_fit_to_what_is_known_of_the_next_problem_beats_extrapolation():
    """The injected input of the new structure says where it is on the way; times alone do not."""
    potential, times = tiny_potential().eval(), 0.05 * np.arange(14)
    residuals = {}
    for predictor in (Quadratic(), ASPC(k=4), LeastSquares(depth=6, ridge=1e-10)):
        memory, found = WarmStart(predictor), []
        for time in times:
            graph = graph_at(time)
            equilibrium = potential(graph, start=memory.start(graph)).equilibrium
            memory.remember(graph, equilibrium)
            found.append(float(equilibrium.first_residual))
        residuals[type(predictor)] = np.median(found[7:])
    assert residuals[LeastSquares] < residuals[Quadratic] / 5
    assert residuals[LeastSquares] < residuals[ASPC] / 2


def test_a_restored_fit_guesses_the_same_bits():
    potential, memory = tiny_potential().eval(), WarmStart(LeastSquares())
    follow(memory, potential, 0.05 * np.arange(5))
    other = WarmStart(LeastSquares())
    other.restore(memory.state())
    graph = graph_at(0.25)
    one, two = (potential(graph, start=each.start(graph)).equilibrium for each in (memory, other))
    assert torch.equal(one.value, two.value)
    assert torch.equal(one.adjoint, two.adjoint)


def test_without_descriptors_the_newest_solution_is_the_guess():
    """From an engine or a file that kept none."""
    memory = WarmStart(LeastSquares())
    for time in (0.0, 0.02, 0.04):
        solution = FakePotential()(graph_at(time)).equilibrium
        memory.remember(graph_at(time), dataclasses.replace(solution, descriptor=None))
    assert torch.equal(memory.start(graph_at(0.06)).value, solution.value)


def test_a_second_solve_of_the_same_place_replaces_the_newest():
    warm_start = filled(Linear(), steps=2)
    graph = graph_at(0.02)
    last = FakePotential()(graph).equilibrium
    without_adjoint = dataclasses.replace(last, adjoint=None, adjoint_passes=None)
    before = warm_start.start(graph)
    warm_start.remember(graph, without_adjoint)
    again = warm_start.start(graph)
    assert torch.equal(again.value, last.value)  # as it is, not extrapolated
    assert torch.equal(again.adjoint, before.adjoint)
    guess, expected = warm_start.start(graph_at(0.04)), filled(Linear(), steps=2)
    torch.testing.assert_close(guess.value, expected.start(graph_at(0.04)).value)


def test_an_explicit_network_leaves_no_memory():
    warm_start = WarmStart()
    warm_start.remember(graph_at(), None)
    assert warm_start.start(graph_at()) is None


def test_reset_is_like_new():
    warm_start = filled()
    warm_start.forget("a test")
    warm_start.reset()
    assert (warm_start.remembered, warm_start.forgotten, warm_start.reason) == (0, 0, None)
    assert warm_start.state() == {}


def test_a_restored_memory_guesses_the_same_bits(tmp_path):
    warm_start = filled(steps=4)
    np.savez(tmp_path / "state.npz", **warm_start.state())
    restored = WarmStart(Quadratic())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        restored.restore(dict(state))
    potential = FakePotential()
    for time in (0.08, 0.10, 0.12):
        graph = graph_at(time)
        one, two = warm_start.start(graph), restored.start(graph)
        assert torch.equal(one.value, two.value) and torch.equal(one.adjoint, two.adjoint)
        for memory in (warm_start, restored):
            memory.remember(graph, potential(graph, start=one).equilibrium)
    assert restored.start(moved(0.6)) is None


def test_refuses_half_a_state():
    state = filled().state()
    del state["positions"]
    with pytest.raises(ValueError, match="without positions"):
        WarmStart().restore(state)


@pytest.mark.parametrize(
    "options", [{"max_move": 0.0}, {"max_strain": -1.0}, {"max_residual": 0.0}]
)
def test_refuses_bounds_that_are_none(options):
    with pytest.raises(ValueError, match="must be larger than 0"):
        WarmStart(**options)
