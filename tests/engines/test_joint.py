"""Dynamics with a fixed number of joint passes per step: as good as solved, restartable, and never silently wrong."""

import numpy as np
import pytest
import torch

from equipoise.deq import Joint
from equipoise.deq.predictors import ASPC, LeastSquares
from equipoise.engines import EquipoiseCalculator, WarmStart, run_md
from tests.engines.fakes import tiny_potential
from tests.engines.test_conservation import ethanol, follow
from tests.engines.test_md import assert_same_run, simulate

JOINT = Joint(passes=2, recycled=4)
MEV = 1000.0  # per eV


def moving(potential, *, steps=12, **options):
    """A calculator, and what it says while ethanol is pushed along a smooth path."""
    calculator = EquipoiseCalculator(potential, **options)
    atoms = ethanol(potential)
    direction = np.random.default_rng(0).normal(0, 1, atoms.positions.shape)
    start, energies = atoms.positions.copy(), []
    atoms.calc = calculator
    for step in range(steps):
        atoms.positions = start + 0.02 * np.sin(0.3 * step) * direction
        energies.append(atoms.get_potential_energy())
    return calculator, atoms, np.array(energies)


def test_two_passes_follow_the_solved_energy_more_closely_with_secants():
    potential = tiny_potential()
    _, _, exact = moving(potential)
    errors = {}
    for recycled in (0, 4):
        joint = Joint(passes=2, recycled=recycled)
        calculator, _, energies = moving(potential, joint=joint)
        assert calculator.statistics.joint_calls == 8  # four solves fill the memory
        assert (calculator.passes, calculator.adjoint_passes) == (2, 2)
        errors[recycled] = np.abs(energies - exact).max()
    assert errors[4] < errors[0] < 1e-4
    assert calculator.residual < 1e-3


def test_what_two_passes_do_not_solve_is_solved():
    calculator, atoms, _ = moving(tiny_potential(), joint=JOINT)
    before = calculator.statistics
    calculator.evaluator.joint = Joint(passes=2, max_residual=1e-9)  # nothing is that good
    atoms.positions[0] += 0.2
    retried = []
    solve = calculator.potential.forward
    calculator.potential.forward = lambda *a, **o: retried.append(solve(*a, **o)) or retried[-1]
    energy = atoms.get_potential_energy()
    after = calculator.statistics
    # What the attempt cost, which raised and so is not in the list, is counted as well.
    assert len(retried) == 1
    assert calculator.passes == int(retried[0].equilibrium.passes) + 2
    assert after.joint_retries == before.joint_retries + 1
    assert after.joint_calls == before.joint_calls
    assert calculator.residual < 1e-8
    _, solved, _ = moving(tiny_potential())
    solved.positions[0] += 0.2
    assert energy == pytest.approx(solved.get_potential_energy(), abs=1e-8)


def test_more_passes_than_a_solve_takes_are_joint_passes_all_the_same():
    calculator, _, _ = moving(tiny_potential(tolerance=1e-2), joint=Joint(passes=25))
    assert calculator.statistics.joint_calls == 6  # six solves fill the memory of ASPC(4)


@pytest.mark.parametrize("predictor", [None, LeastSquares(depth=3)])
def test_a_run_continues_bit_for_bit(tmp_path, predictor):
    potential = tiny_potential(tolerance=1e-4).float()
    options = {"potential": potential, "checkpoint_every": 4, "joint": JOINT}
    if predictor is not None:
        options["warm_start"] = WarmStart(predictor)
    simulate(tmp_path / "whole", steps=9, **options)
    simulate(tmp_path / "cut", steps=7, **options)
    simulate(tmp_path / "cut", steps=9, **options)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(ValueError, match="passes"):
        simulate(tmp_path / "cut", steps=12, **(options | {"joint": Joint(passes=3)}))


def test_energy_stays_along_a_trajectory(tmp_path):
    potential = tiny_potential(tolerance=1e-4)
    atoms = ethanol(potential)
    joint = follow(tmp_path / "joint", potential, atoms, 40, joint=JOINT)
    tight = follow(tmp_path / "tight", tiny_potential(tolerance=1e-9), atoms, 40)
    assert joint.summary.mean_passes < 3
    spread = np.ptp(tight.total)
    assert MEV * np.abs(joint.total - tight.total).max() < max(0.2, MEV * 0.1 * spread)


def test_without_history_nothing_is_remembered(tmp_path):
    potential = tiny_potential()
    calculator, _, energies = moving(potential, history_free=3, steps=4)
    assert calculator.warm_start is None
    again = moving(potential, history_free=3, steps=4)[2]
    np.testing.assert_array_equal(energies, again)
    result = run_md(
        ethanol(potential), potential, steps=3, folder=tmp_path, history_free=3, progress=False
    )
    assert result.summary.warm_start == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"joint": JOINT, "warm_start": False}, "received warm_start=False"),
        ({"joint": JOINT, "history_free": 2}, "goes without joint"),
        ({"history_free": 0}, "at least 1 pass"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EquipoiseCalculator(tiny_potential(), **options)


def test_passes_that_the_contraction_asks_for(tmp_path):
    potential = tiny_potential(tolerance=1e-4)
    summary = simulate(tmp_path / "run", potential=potential, steps=9).summary
    assert summary.warm_start.startswith("ASPC(k=")
    simulate(tmp_path / "run", potential=potential, joint="auto", steps=12)  # the same again
    with pytest.raises(ValueError, match="a Joint, \"auto\" or None, received 'many'"):
        simulate(tmp_path / "other", potential=potential, joint="many")


def assert_guess(expected, folder, potential, **options):
    """A run gets that guess; "" means solves, from a guess that is not made for passes."""
    found = simulate(folder, potential=potential, steps=1, **options).summary.warm_start
    assert found == expected or not expected and "ASPC" not in found


def contracting(rho):
    """The tiny potential, said to contract so much."""
    potential = tiny_potential(tolerance=1e-4)
    potential.contraction = lambda graph: torch.tensor([rho], dtype=torch.float64)
    return potential


@pytest.mark.parametrize(
    "options",
    [{"warm_start": False}, {"warm_start": WarmStart()}, {"history_free": 3}, {"joint": None}],
    ids=lambda options: next(iter(options)),
)
def test_steps_are_solved_where_the_memory_is_chosen_by_hand(tmp_path, options):
    assert_guess("", tmp_path / "run", tiny_potential(tolerance=1e-4), **options)


@pytest.mark.parametrize(
    ("rho", "scheme"),
    [(0.26, "ASPC(k=4)"), (0.46, "ASPC(k=3)"), (0.9, ""), (1.2, "")],
)
def test_a_network_that_hardly_contracts_is_solved(tmp_path, rho, scheme):
    assert_guess(scheme, tmp_path / "run", contracting(rho))


@pytest.mark.parametrize(
    ("timestep_fs", "mass", "scheme"),
    [(0.5, None, "ASPC(k=4)"), (0.6, None, ""), (0.7, 2.014, "ASPC(k=4)"), (0.8, 2.014, "")],
)
def test_long_steps_are_solved(tmp_path, timestep_fs, mass, scheme):
    """From what is a long step for the lightest atom on no guess is reversible."""
    potential = contracting(0.26)
    atoms = ethanol(potential)
    if mass is not None:
        atoms.set_masses(np.where(atoms.numbers == 1, mass, atoms.get_masses()))
    assert_guess(scheme, tmp_path / "run", potential, atoms=atoms, timestep_fs=timestep_fs)


def test_a_network_without_equilibrium_has_nothing_to_iterate(tmp_path):
    assert_guess("", tmp_path / "run", tiny_potential("stacked"))
    with pytest.raises(ValueError, match="this potential has none; leave them out"):
        simulate(tmp_path / "other", potential=tiny_potential("stacked"), joint=Joint(passes=2))


def test_a_number_of_passes_gets_the_guess_that_it_keeps_stable(tmp_path):
    assert_guess("ASPC(k=2)", tmp_path / "two", contracting(0.35), joint=Joint(passes=2))
    assert_guess("ASPC(k=2)", tmp_path / "learning", contracting(0.9), joint=JOINT)
    with pytest.raises(ValueError, match="contracts by 0.90 a pass; take at least 11"):
        simulate(tmp_path / "few", potential=contracting(0.9), joint=Joint(passes=2))
    with pytest.raises(ValueError, match="multiplies them by 1.20; .* solve instead"):
        simulate(tmp_path / "none", potential=contracting(1.2), joint=Joint(passes=2))


def test_passes_that_are_too_few_again_and_again_are_given_up(tmp_path, monkeypatch):
    """As in a crowd that the network was not trained on; the restart knows it, too."""
    potential = contracting(0.26)
    tight = Joint(passes=2, max_residual=1e-9)  # nothing is that good
    monkeypatch.setattr(
        "equipoise.engines.evaluator.reversible_passes", lambda *_: (tight, WarmStart(ASPC(k=0)))
    )
    with pytest.warns(RuntimeWarning, match="2 joint passes in 10 steps in a row"):
        simulate(tmp_path / "whole", potential=potential, steps=20)
    whole = np.genfromtxt(tmp_path / "whole" / "log.csv", delimiter=",", names=True)
    # Steps 0 and 1 fill the memory; a missed step pays for its passes and the solve.
    assert whole["passes"][2:12].min() > whole["passes"][14:].max()
    with pytest.warns(RuntimeWarning, match="every step is solved"):
        simulate(tmp_path / "cut", potential=potential, steps=14)
    simulate(tmp_path / "cut", potential=potential, steps=20)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_passes_that_were_asked_for_are_not_given_up():
    calculator, _, _ = moving(contracting(0.26), joint=Joint(passes=2, max_residual=1e-9), steps=24)
    assert calculator.evaluator.joint is not None and calculator.evaluator.misses >= 10


def test_a_calculator_chooses_when_the_first_structure_comes():
    calculator, atoms, _ = moving(contracting(0.46), joint="auto", steps=1)
    assert calculator.evaluator.joint == Joint(passes=3)
    assert calculator.warm_start.predictor == ASPC(k=3)
    again = EquipoiseCalculator(contracting(0.46), joint="auto")
    again.restore(atoms, calculator.state())
    assert again.evaluator.joint == Joint(passes=3) and again.warm_start.remembered == 1
