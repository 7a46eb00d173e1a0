"""The real equilibrium potential, its fixed points reused: energy stays, and time can run back.

What would go wrong if reuse were not harmless: forces that lag behind the positions are not the
gradient of any energy, so energy drifts, the trajectory differs from the one solved from nothing,
and the way back is not the way there.
"""

from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
import pytest
import torch

import equipoise
from equipoise.data import rmd17
from equipoise.engines import MDSummary, run_md
from equipoise.potentials import Potential, zoo
from tests.engines.fakes import tiny_potential

SHIPPED = "rmd17-ethanol"
MEV = 1000.0  # per eV


@dataclass(frozen=True)
class Followed:
    """A trajectory, as far as these tests look at it."""

    atoms: ase.Atoms  # at its end
    total: np.ndarray  # eV, every step
    kinetic: np.ndarray
    summary: MDSummary


def ethanol(potential: Potential) -> ase.Atoms:
    return rmd17("ethanol", cutoff=potential.cutoff).test[0].to_ase()[0]


def follow(folder: Path, potential: Potential, atoms: ase.Atoms, steps: int, **options) -> Followed:
    """Solves to the tolerance unless ``options`` say otherwise."""
    options = {
        "temperature_k": 300.0,
        "timestep_fs": 0.5,
        "seed": 3,
        "progress": False,
        "joint": None,
    } | options
    result = run_md(atoms, potential, steps=steps, folder=folder, checkpoint_every=1000, **options)
    table = np.genfromtxt(folder / "log.csv", delimiter=",", names=True)
    return Followed(result.atoms, table["total_ev"], table["kinetic_ev"], result.summary)


def there_and_back(
    folder: Path, potential: Potential, atoms: ase.Atoms, steps: int, **options
) -> float:
    """Largest distance in Angstrom of an atom from where it began."""
    start = follow(folder / "start", potential, atoms, 0).atoms
    there = follow(folder / "there", potential, start, steps, velocities="keep", **options).atoms
    turned = there.copy()
    turned.set_momenta(-there.get_momenta())
    back = follow(folder / "back", potential, turned, steps, velocities="keep", **options).atoms
    assert np.abs(there.positions - start.positions).max() > 0.03
    np.testing.assert_allclose(back.get_momenta(), -start.get_momenta(), atol=1e-3)
    return float(np.linalg.norm(back.positions - start.positions, axis=1).max())


def apart(one: Followed, two: Followed) -> float:
    """Largest difference of the total energies along two trajectories, meV."""
    return MEV * float(np.abs(one.total - two.total).max())


@pytest.mark.parametrize(("tolerance", "noise"), [(1e-4, 5e-3), (1e-8, 1e-6)])
def test_a_tiny_potential(tmp_path, tolerance, noise):
    """Untrained and therefore soft: what matters is that the bounds follow the tolerance."""
    potential = tiny_potential(tolerance=tolerance)
    atoms = ethanol(potential)
    warm = follow(tmp_path / "warm", potential, atoms, 14)
    cold = follow(tmp_path / "cold", potential, atoms, 14, warm_start=False)
    assert warm.summary.mean_passes < cold.summary.mean_passes
    assert MEV * np.ptp(warm.total) < 0.02  # kinetic and potential energy exchange 20
    assert MEV * np.ptp(warm.kinetic) > 5
    assert apart(warm, cold) < noise
    assert there_and_back(tmp_path, potential, atoms, 8) < noise * 1e-3


@pytest.mark.slow
def test_the_shipped_potential(tmp_path):
    """200 fs of ethanol at 300 K, at the tolerance it is shipped with."""
    if SHIPPED not in zoo():
        pytest.skip(f"{SHIPPED} does not come with this copy of the package")
    potential = equipoise.load(SHIPPED, dtype=torch.float64)
    atoms = ethanol(potential)
    warm = follow(tmp_path / "warm", potential, atoms, 400)
    cold = follow(tmp_path / "cold", potential, atoms, 400, warm_start=False)
    for each in (warm, cold):
        # The ripple of the integrator: 0.11 meV/atom, where the kinetic energy moves by 8.
        assert each.summary.fluctuation_mev_per_atom < 0.3
        # A line through a ripple of that size over 0.2 ps is no flatter than this.
        assert abs(each.summary.drift_mev_per_atom_per_ps) < 0.5
        assert MEV * each.kinetic.std() / len(atoms) > 3
    assert apart(warm, cold) < 0.2  # of the whole molecule
    total = [each.summary.mean_passes + each.summary.mean_adjoint_passes for each in (warm, cold)]
    assert total[0] < 0.7 * total[1]
    assert there_and_back(tmp_path, potential, atoms, 200) < 1e-4


@pytest.mark.slow
def test_the_shipped_potential_at_two_passes_a_step(tmp_path):
    """What `equipoise md` does by itself."""
    potential = equipoise.load(SHIPPED, dtype=torch.float64)
    atoms = ethanol(potential)
    few = follow(tmp_path / "few", potential, atoms, 400, joint="auto")
    solved = follow(tmp_path / "solved", potential, atoms, 400)
    assert few.summary.warm_start == "ASPC(k=4)"
    assert few.summary.mean_passes < 2.2  # the first steps are solved
    assert few.summary.mean_adjoint_passes < 2.2
    assert apart(few, solved) < 0.5  # of the whole molecule
    assert (
        abs(few.summary.drift_mev_per_atom_per_ps - solved.summary.drift_mev_per_atom_per_ps) < 0.05
    )
    assert there_and_back(tmp_path, potential, atoms, 200, joint="auto") < 1e-3
