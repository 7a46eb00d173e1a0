"""What an `ase.Atoms` says about itself; and how to make one again.

Three places where a label hides, in the order in which they are tried:

1. `REF_energy`, `REF_forces`, `REF_stress` in `atoms.info` / `atoms.arrays` (the keys
   of MACE-style training files, which no ASE version moves);
2. the results of the attached calculator: this is where ASE >= 3.23 puts the plain
   `energy`, `forces`, `stress` of an extxyz file when it reads it;
3. plain `energy`, `forces`, `stress` in `info` / `arrays`, where older ASE left them.
"""

from typing import Any

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from equipoise.graph.labels import Labels


def read_labels(
    atoms: ase.Atoms,
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
) -> Labels:
    """The reference labels of `atoms`, checked for shape and finiteness.

    With a key given, only that key is looked for (in info or arrays, then in the
    calculator's results, into which ASE moves some keys); otherwise the three places
    in the module's docstring are tried in their order. A calculator whose results
    belong to other positions than these is not believed.

    **Raises** `ValueError` when a label has the wrong shape or is not finite.
    """
    results = calculator_results(atoms)
    return Labels.check(
        len(atoms),
        energy=find_label(atoms.info, results, "energy", energy_key),
        forces=find_label(atoms.arrays, results, "forces", forces_key),
        stress=find_label(atoms.info, results, "stress", stress_key),
    )


def find_label(store: dict[str, Any], results: dict[str, Any], name: str, key: str | None) -> Any:
    """The label under ``key``, or else under REF_``name``, of the calculator, or under ``name``; None if there is none."""
    if key is not None:
        value = store.get(key)
        return results.get(key) if value is None else value
    for value in (store.get(f"REF_{name}"), results.get(name), store.get(name)):
        if value is not None:
            return value
    return None


def calculator_results(atoms: ase.Atoms) -> dict[str, Any]:
    """What the calculator of ``atoms`` knows about them as they are; nothing is calculated."""
    calculator = atoms.calc
    results = getattr(calculator, "results", None)
    if not results:
        return {}
    # check_state looks without touching; get_property would reset a live calculator.
    check_state = getattr(calculator, "check_state", None)
    if check_state is not None and check_state(atoms):
        return {}
    return results


def make_atoms(
    positions: np.ndarray,
    species: np.ndarray,
    *,
    cell: np.ndarray,
    pbc: np.ndarray,
    labels: Labels,
) -> ase.Atoms:
    """An `ase.Atoms`; labels, where there are any, as single-point results."""
    atoms = ase.Atoms(numbers=species, positions=positions, cell=cell, pbc=pbc)
    results = {
        name: value
        for name in ("energy", "forces", "stress")
        if (value := getattr(labels, name)) is not None
    }
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
