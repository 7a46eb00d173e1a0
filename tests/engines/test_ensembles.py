"""What the thermostats and the barostat sample, with a cheap potential of ASE in place of a network."""

import ase.build
import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

from equipoise.engines.ensembles import Bath, conserved_energy, integrator
from equipoise.engines.velocities import degrees_of_freedom, temperature, thermal_momenta


class Springs(Calculator):
    """E = k/2 Σ (r - length)² over the pairs that were neighbours at first, images included."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, atoms, reach, *, strength=3.0):
        super().__init__()
        self.i, self.j, self.shift, self.length = neighbor_list("ijSd", atoms, reach)
        self.strength = strength

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        pairs = atoms.positions[self.j] - atoms.positions[self.i] + self.shift @ atoms.cell.array
        r = np.linalg.norm(pairs, axis=1)
        pull = (
            self.strength / 2 * ((r - self.length) / r)[:, None] * pairs
        )  # each pair is there twice
        forces = np.zeros_like(atoms.positions)
        np.add.at(forces, self.i, pull)
        np.add.at(forces, self.j, -pull)
        energy = float(self.strength / 4 * ((r - self.length) ** 2).sum())
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        if atoms.pbc.all():
            stress = pull.T @ pairs / atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)


BATH = Bath(
    temperature_k=300.0,
    friction_per_ps=20.0,
    thermostat_fs=20.0,
    pressure_bar=0.0,
    barostat_fs=100.0,
)


def cluster():
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.numbers[:] = 6
    atoms.calc = Springs(atoms, 3.0)
    return atoms


def crystal():
    atoms = ase.build.bulk("Al", cubic=True) * (2, 2, 2)
    atoms.calc = Springs(atoms, 3.2)
    return atoms


def simulate(atoms, ensemble, *, steps, bath=BATH):
    """Temperature, total and conserved energy of every step."""
    rng = np.random.default_rng(0)
    atoms.set_momenta(thermal_momenta(atoms, 2 * bath.temperature_k, rng))  # half goes to positions
    degrees = degrees_of_freedom(atoms)
    made = integrator(ensemble, atoms, timestep_fs=2.0, bath=bath, degrees=degrees, rng=rng)
    rows = []
    for _ in range(steps):
        made.step()
        kelvin = temperature(atoms.get_kinetic_energy(), degrees)
        rows.append((kelvin, atoms.get_total_energy(), conserved_energy(made)))
    return np.array(rows).T


@pytest.mark.parametrize("ensemble", ["bussi", "nose-hoover"])
def test_a_molecule_at_rest_has_the_temperature_of_its_degrees_of_freedom(ensemble):
    """ASE by itself counts three per atom, and would heat these nine atoms, which do not move as a whole, to 386 K."""
    atoms = cluster()
    kelvin, total, conserved = simulate(atoms, ensemble, steps=2500)
    assert kelvin[400:].mean() == pytest.approx(300, rel=0.08)
    # The kinetic energy fluctuates as that of 21 degrees of freedom does.
    assert kelvin[400:].std() / 300 == pytest.approx(np.sqrt(2 / 21), rel=0.3)
    assert np.ptp(conserved) < 0.03 * np.ptp(total)
    assert np.abs(atoms.get_momenta().sum(0)).max() < 1e-8


def test_constant_pressure():
    """The mean pressure is the one asked for; the cell keeps its shape; what the dynamics conserves stays."""
    volumes = []
    for pressure in (0.0, 5e4):
        atoms = crystal()
        bath = BATH._replace(pressure_bar=pressure)
        found = []
        kelvin, total, conserved = simulate(atoms, "npt", steps=500, bath=bath)
        rng = np.random.default_rng(1)
        made = integrator("npt", atoms, timestep_fs=2.0, bath=bath, degrees=93, rng=rng)
        for _ in range(500):
            made.step()
            stress = atoms.get_stress(include_ideal_gas=True)
            found.append(-stress[:3].mean() / units.bar)
        assert np.mean(found) == pytest.approx(pressure, abs=3e3)
        assert kelvin[200:].mean() == pytest.approx(300, rel=0.15)
        assert np.ptp(conserved) < 0.05 * np.ptp(total)
        np.testing.assert_allclose(atoms.cell.cellpar()[3:], 90, atol=1e-9)
        volumes.append(atoms.get_volume())
    assert volumes[1] < 0.98 * volumes[0]
