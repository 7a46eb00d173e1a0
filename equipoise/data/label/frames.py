"""One labelled structure, as the text that goes into the file."""

import io
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
from ase.constraints import FixAtoms
from ase.io.extxyz import write_extxyz

# What a label may depend on, and so has to travel with it.
KEPT_ARRAYS = ("initial_charges", "initial_magmoms", "tags")


class BadLabel(ValueError):
    """A calculator answered with something that is no label."""


@dataclass(frozen=True)
class Label:
    """Energy (eV), forces ([atoms, 3] eV/Å), and for a structure periodic in three directions stress ([6] eV/Å³, Voigt)."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None

    @classmethod
    def of(cls, atoms: ase.Atoms) -> "Label":
        """Ask the calculator of ``atoms``.

        The energy is the one whose negative gradient the forces are: ASE's ``free_energy`` where the calculator has it (with
        electronic smearing the ``energy`` is extrapolated and belongs to other forces). Forces are those without constraints.

        Raises:
          BadLabel: for a value that is not finite or has the wrong shape.
          Exception: whatever the calculator raises.
        """
        forces = np.asarray(atoms.get_forces(apply_constraint=False), dtype=np.float64)
        energy = atoms.get_potential_energy()
        energy = getattr(atoms.calc, "results", {}).get("free_energy", energy)
        stress = None
        offered = getattr(atoms.calc, "implemented_properties", ())
        if atoms.pbc.all() and "stress" in offered:
            stress = np.asarray(atoms.get_stress(apply_constraint=False), dtype=np.float64)
        if np.size(energy) != 1 or not np.isfinite(energy):
            raise BadLabel(f"the energy is {energy}")
        if forces.shape != (len(atoms), 3):
            raise BadLabel(f"forces must have shape ({len(atoms)}, 3), received {forces.shape}")
        broken = np.flatnonzero(~np.isfinite(forces).all(axis=1))
        if len(broken):
            raise BadLabel(f"the force on atom {broken[0]} is {forces[broken[0]].tolist()}")
        if stress is not None and not np.isfinite(stress).all():
            raise BadLabel(f"the stress is {stress.tolist()}")
        return cls(energy=float(np.squeeze(energy)), forces=forces, stress=stress)


def as_text(atoms: ase.Atoms, label: Label, info: dict[str, Any]) -> str:
    """``atoms`` with its label and ``info``, as extended XYZ; atoms that are held stay marked as such (move_mask).

    The labels are ``REF_energy``, ``REF_forces`` and ``REF_stress``: names that no version of ASE takes for its own.
    """
    frame = ase.Atoms(
        numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc
    )
    frame.info = {"REF_energy": label.energy}
    if label.stress is not None:
        frame.info["REF_stress"] = label.stress
    if "charge" in atoms.info:
        frame.info["charge"] = atoms.info["charge"]
    frame.info |= {key: value for key, value in info.items() if value is not None}
    frame.arrays["REF_forces"] = label.forces
    for name in KEPT_ARRAYS:
        if name in atoms.arrays and atoms.arrays[name].any():
            frame.arrays[name] = atoms.arrays[name]
    frame.set_constraint([each for each in atoms.constraints if isinstance(each, FixAtoms)])
    text = io.StringIO()
    write_extxyz(text, [frame])
    return text.getvalue()
