"""A calculator without chemistry, and with every bad habit that a calculator can have."""

import os
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

STIFFNESS = 5.0  # eV/Å²
LENGTH = 1.0  # Å


class Springs(Calculator):
    """E = k/2 Σ_{i<j} (d_ij - 1 Å)², with trouble for chosen elements.

    Args:
      trouble: symbol -> what happens to structures that hold it: "nan energy", "nan force", "raise", "die", "shape", "explode".
      unless: a file; while it exists there is no trouble.
      memory: energies depend on how often this object was asked.
    """

    implemented_properties = ["energy", "free_energy", "forces"]
    default_parameters = {"trouble": {}, "unless": None, "memory": False}

    asked = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        trouble = {self.parameters.trouble.get(symbol) for symbol in set(atoms.symbols)}
        if self.parameters.unless and Path(self.parameters.unless).exists():
            trouble = set()
        if "raise" in trouble:
            raise RuntimeError("no convergence in 250 iterations\nsecond line")
        if "die" in trouble:
            os._exit(7)
        vectors = atoms.positions[:, None] - atoms.positions[None]
        distances = np.linalg.norm(vectors, axis=-1) + np.eye(len(atoms))
        pull = STIFFNESS * (distances - LENGTH) * (1 - np.eye(len(atoms)))
        if "explode" in trouble:
            pull *= -4
        energy = float((pull * (distances - LENGTH)).sum() / 4)
        forces = -(pull / distances)[..., None] * vectors
        self.asked += 1
        if self.parameters.memory:
            energy += 1e-3 * self.asked
        if "nan energy" in trouble:
            energy = np.nan
        forces = forces.sum(axis=1)
        if "nan force" in trouble:
            forces[1, 2] = np.nan
        if "shape" in trouble:
            forces = forces[:-1]
        # With smearing the forces belong to the free energy.
        self.results = {"energy": energy + 0.5, "free_energy": energy, "forces": forces}


class EnergyOnly(Calculator):
    implemented_properties = ["energy"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0}


def not_one():
    return "a calculator"
