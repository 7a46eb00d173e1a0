"""What an `ase.Atoms` says about itself; and how to make one again.

Three places where a label hides, in the order in which they are tried:

1. `REF_energy`, `REF_forces`, `REF_stress` in `atoms.info` / `atoms.arrays` (the keys
   of MACE-style training files, which no ASE version moves). Where there is one of them,
   plain labels are those of another method, and count for nothing;
2. the results of the attached calculator: this is where ASE >= 3.23 puts the plain
   `energy`, `forces`, `stress` of an extxyz file when it reads it;
3. plain `energy`, `forces`, `stress` in `info` / `arrays`, where older ASE left them.
"""

from typing import Any

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from equipoise.graph.labels import Labels

KINDS = ("energy", "forces", "stress")


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
    in the module's docstring are tried in their order (see :func:`label_names`). A
    calculator whose results belong to other positions than these is not believed.

    **Raises** `ValueError` when a label has the wrong shape or is not finite.
    """
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    return Labels.check(len(atoms), **find_labels(atoms, label_names(keys, has_references(atoms))))


def label_names(keys: dict[str, str | None], references: bool) -> dict[str, str | None]:
    """Kind of label -> the one name to look under; None: it is not looked for.

    A stress that nobody named goes with energy and forces: if these are under other
    than their usual names, it is taken for that of another method.

    **Arguments**

    - `keys`: kind -> the name that somebody gave, or None.
    - `references`: whether there are REF_ labels; plain ones then count for nothing.
    """
    usual = {kind: f"REF_{kind}" if references else kind for kind in KINDS}
    names = {kind: keys.get(kind) or usual[kind] for kind in KINDS}
    # ASE's own names: both energies belong to one calculation.
    energies = ("REF_energy",) if references else ("energy", "free_energy")
    alone = names["energy"] not in energies or names["forces"] != usual["forces"]
    return names | {"stress": None} if alone and not keys.get("stress") else names


def find_labels(atoms: ase.Atoms, names: dict[str, str | None]) -> dict[str, Any]:
    """Kind of label -> its value under the name from :func:`label_names`, or None."""
    results = calculator_results(atoms)
    found: dict[str, Any] = {}
    for kind, store in _stores(atoms).items():
        name = names[kind]
        # ASE has moved the plain ones to the results.
        places = (results, store) if name == kind else (store, results)
        values = (place.get(name) for place in places)
        found[kind] = next((value for value in values if value is not None), None)
    return found


def has_references(atoms: ase.Atoms) -> bool:
    """Whether there is a label under its REF_ name."""
    return any(store.get(f"REF_{kind}") is not None for kind, store in _stores(atoms).items())


def _stores(atoms: ase.Atoms) -> dict[str, dict[str, Any]]:
    return {"energy": atoms.info, "forces": atoms.arrays, "stress": atoms.info}


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
