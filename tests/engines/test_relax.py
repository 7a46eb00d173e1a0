"""Relaxation: downhill to a minimum, and honest when it does not get there."""

import ase.build
import ase.io
import numpy as np
import pytest

from equipoise.engines import relax
from tests.engines.fakes import FakePotential


def molecule():
    atoms = ase.build.molecule("H2O")  # three Morse atoms have one minimum: a triangle
    atoms.positions[0] += [0.1, 0.3, 0.2]
    return atoms


def test_every_optimiser_ends_in_the_same_minimum():
    start, results = molecule(), []
    for optimiser in ("FIRE", "BFGS", "LBFGS"):
        result = relax(start, FakePotential(), optimiser=optimiser, fmax=0.005)
        assert result.converged and result.fmax < 0.005
        assert np.linalg.norm(result.atoms.get_forces(), axis=1).max() == result.fmax
        assert result.atoms.get_potential_energy() == result.energy
        assert "converged after" in result.message
        results.append(result)
    energies = [result.energy for result in results]
    assert np.ptp(energies) < 1e-3
    assert start == molecule()  # unchanged


def test_reuse_saves_passes():
    warm = relax(molecule(), FakePotential(), fmax=0.01)
    cold = relax(molecule(), FakePotential(), fmax=0.01, warm_start=False)
    assert warm.statistics.calls == warm.steps + 1  # nothing is calculated twice
    assert warm.energy == pytest.approx(cold.energy, abs=1e-6)
    assert warm.statistics.passes < 0.8 * cold.statistics.passes


def test_the_cell_relaxes_to_zero_stress():
    atoms = ase.build.bulk("Al", cubic=True, a=3.1)
    atoms.rattle(0.05, seed=1)
    fixed = relax(atoms, FakePotential(), fmax=0.01)
    free = relax(atoms, FakePotential(), fmax=0.01, cell=True)
    assert fixed.converged and np.array_equal(fixed.atoms.cell, atoms.cell)
    assert free.converged and free.energy < fixed.energy - 0.01
    assert np.abs(free.atoms.get_stress()).max() < 0.01
    assert np.abs(fixed.atoms.get_stress()).max() > 0.05


def test_running_out_of_steps_is_a_result(tmp_path):
    result = relax(molecule(), FakePotential(), steps=3, log=tmp_path / "log.txt")
    assert not result.converged and result.steps == 3
    assert "not converged after 3 steps" in result.message
    assert "FIRE" in (tmp_path / "log.txt").read_text()


def test_a_minimum_is_left_alone():
    minimum = relax(molecule(), FakePotential(), fmax=0.01).atoms
    again = relax(minimum, FakePotential(), fmax=0.02)
    assert (again.steps, again.converged) == (0, True)


@pytest.mark.parametrize("name", ["path.extxyz", "path.traj"])
def test_the_trajectory_holds_every_step(tmp_path, name):
    for _ in range(2):  # the second replaces the first
        result = relax(molecule(), FakePotential(), steps=5, trajectory=tmp_path / name)
    frames = ase.io.read(tmp_path / name, ":")
    assert len(frames) == 6
    np.testing.assert_allclose(frames[-1].positions, result.atoms.positions, atol=1e-7)
    energies = [frame.get_potential_energy() for frame in frames]
    assert energies[-1] == pytest.approx(result.energy, abs=1e-7)
    assert energies[-1] < energies[0]


def test_a_structure_that_is_refused_leaves_no_files(tmp_path):
    target = tmp_path / "relax" / "path.extxyz"
    for atoms, message in ((ase.build.bulk("Si"), "received Si"), (ase.Atoms(), "at least one")):
        with pytest.raises(ValueError, match=message):
            relax(atoms, FakePotential(), trajectory=target, log=tmp_path / "log.txt")
        assert list(tmp_path.iterdir()) == []
    relax(molecule(), FakePotential(), steps=1, trajectory=target)
    kept = target.read_bytes()
    with pytest.raises(ValueError):
        relax(ase.build.bulk("Si"), FakePotential(), trajectory=target)
    assert target.read_bytes() == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimiser": "fire"}, "FIRE, BFGS, LBFGS, received fire"),
        ({"fmax": float("inf")}, "fmax must be finite"),
        ({"fmax": 0.0}, "fmax must be finite and larger than 0"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"cell": True}, "periodic in three directions"),
        ({"trajectory": "path.pdb"}, "must end in .extxyz"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        relax(molecule(), FakePotential(), **options)
