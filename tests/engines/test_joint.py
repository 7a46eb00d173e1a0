"""Dynamics with a fixed number of joint passes per step: as good as solved, restartable, and never silently wrong."""

import numpy as np
import pytest

from equipoise.deq import Joint
from equipoise.deq.predictors import LeastSquares
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
    calculator.joint = Joint(passes=2, max_residual=1e-9)  # nothing is that good
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
    assert calculator.statistics.joint_calls == 8


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
    summary = simulate(tmp_path / "run", potential=potential, joint="auto", steps=9).summary
    assert summary.warm_start.startswith("ASPC(k=")
    simulate(tmp_path / "run", potential=potential, joint="auto", steps=12)  # the same again
    with pytest.raises(ValueError, match="chooses the predictor itself"):
        simulate(tmp_path / "other", potential=potential, joint="auto", warm_start=False)
    with pytest.raises(ValueError, match="a Joint, \"auto\" or None, received 'many'"):
        simulate(tmp_path / "other", potential=potential, joint="many")
    with pytest.raises(ValueError, match="this potential has none"):
        simulate(tmp_path / "other", potential=tiny_potential("stacked"), joint="auto")
