"""The `.npz` layouts in which trajectories are published, told apart by the names of their arrays."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equipoise.data.sources.arrays import ArrayStructures
from equipoise.data.sources.npz import npz_names, npz_text, read_npz
from equipoise.data.unit_check import check_unit, likely_unit
from equipoise.data.units import energy_unit, length_unit
from equipoise.data.units import force_unit as eV_per_angstrom

_CHECKED = 16  # structures whose energies are held against the unit


@dataclass(frozen=True)
class Layout:
    """Names of the arrays of one layout; frames of one system, in the same order of atoms.

    Attributes:
      name: for messages.
      species, positions, energy, forces: always there, but for the labels.
      cell: lattice vectors as rows, for periodic systems.
      pbc: which directions are periodic; all of them where there is a cell and nothing is said.
      unit: of the energies, if the file does not say.
    """

    name: str
    species: str
    positions: str
    energy: str
    forces: str
    cell: str = "cell"
    pbc: str = "pbc"
    unit: str | None = None


LAYOUTS = (
    Layout("rMD17", "nuclear_charges", "coords", "energies", "forces", unit="kcal/mol"),
    Layout("sGDML", "z", "R", "E", "F"),
    Layout("DeePMD", "z", "coord", "energy", "force", cell="box", unit="eV"),
)


def layout_of(path: Path) -> Layout:
    """Which layout a file has.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no `.npz` archive, or has none of the layouts.
    """
    there = npz_names(path)
    for layout in LAYOUTS:
        if layout.species in there and layout.positions in there:
            return layout
    lacking = " or ".join(dict.fromkeys(layout.species for layout in LAYOUTS))
    known = "; ".join(
        f"{each.name}: {each.species}, {each.positions}, {each.energy}, {each.forces}"
        for each in LAYOUTS
    )
    raise ValueError(
        f"{path} lacks {lacking}: it has none of the layouts that are read ({known}); it holds "
        f"{', '.join(sorted(there)) or 'nothing'}"
    )


def read_trajectory(
    path: str | Path, *, cutoff: float, unit: str | None = None, force_unit: str | None = None
) -> ArrayStructures:
    """The frames of an `.npz` file in eV and Å, made into graphs when they are asked for.

    Units that the file states itself (`e_unit`, `r_unit`, as sGDML writes them) go before ``unit``. Total energies of all
    electrons show their unit by their size (:mod:`equipoise.data.unit_check`): a unit that is stated must agree with it, and where
    none is stated it is the one. Forces are in that unit per length, but for Hartree and Rydberg: programs that write these give
    forces per bohr and positions in Å, so the unit of the forces must be said (`f_unit`, or ``force_unit``; or `r_unit`, which
    is then that of both).

    Args:
      path: a file of one of the ``LAYOUTS``.
      cutoff: Å, of the graphs.
      unit: of the energies, if neither the file nor its layout says.
      force_unit: likewise, such as Hartree/bohr.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged or has another layout; it holds pickled objects; shapes do not fit; the unit is unknown, or is not
        the one that the energies are in.
    """
    path = Path(path)
    layout = layout_of(path)
    arrays = read_npz(
        path,
        (layout.species, layout.positions),
        optional=(layout.energy, layout.forces, layout.cell, layout.pbc),
    )
    species, positions = arrays[layout.species], arrays[layout.positions]
    if positions.ndim != 3 or species.ndim != 1:
        raise ValueError(
            f"{path}: '{layout.positions}' must have shape [frames, atoms, 3] and '{layout.species}' [atoms], received "
            f"{positions.shape} and {species.shape}"
        )
    if species.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: '{layout.species}' must be atomic numbers, received type {species.dtype}"
        )
    energy, forces = arrays.get(layout.energy), arrays.get(layout.forces)
    stated = npz_text(path, "e_unit") or unit or layout.unit
    some = _some_energies(species, energy)
    if stated is None and (energy is not None or forces is not None):
        stated = likely_unit(some)
        if stated is None:
            raise ValueError(
                f"{path} does not say in which unit its energies are (e_unit), and they are no total energies that would; give the "
                f"unit: `equipoise data convert {path} --unit eV --to NAME.extxyz` writes a file in which there is no doubt (or "
                f"kcal/mol, Hartree, ...)"
            )
    elif some:
        check_unit(stated, some, where=str(path))
    length, force = npz_text(path, "r_unit"), npz_text(path, "f_unit") or force_unit
    atomic = energy_unit(stated or "eV") in (energy_unit("Hartree"), energy_unit("Rydberg"))
    if forces is not None and atomic and length is None and force is None:
        raise ValueError(
            f"{path} has energies in {stated} and does not say in which unit its forces are: per bohr, as most programs print "
            f"them, or per Å; give it: `equipoise data convert {path} --force-unit {stated}/bohr --to NAME.extxyz`"
        )
    cell = arrays.get(layout.cell)
    return ArrayStructures(
        origin=str(path),
        cutoff=cutoff,
        positions=positions,
        species=species,
        energy=energy,
        forces=forces,
        cell=cell,
        pbc=arrays.get(layout.pbc, np.array(cell is not None)).astype(bool),
        energy_unit=energy_unit(stated or "eV"),
        length_unit=length_unit(length or "Å"),
        force_unit=None if force is None else eV_per_angstrom(force),
        names={"energy": layout.energy, "forces": layout.forces, "unit": stated or "eV"},
    )


def _some_energies(
    species: np.ndarray, energy: np.ndarray | None
) -> list[tuple[np.ndarray, float]]:
    """(species, energy) of a few frames, for a look at the unit; what is odd about them is said elsewhere."""
    if energy is None or energy.dtype.kind != "f" or energy.size == 0 or (species < 1).any():
        return []
    values = energy.reshape(-1)
    values = values[np.linspace(0, len(values) - 1, min(_CHECKED, len(values))).astype(int)]
    return [(species, float(value)) for value in values if np.isfinite(value)]
