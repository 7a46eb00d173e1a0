"""Structures in arrays, as `.npz` files hold them: turned into graphs when they are asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from equipoise.data.structures import KINDS, Report, Structure, Structures, Subset
from equipoise.graph import Graph, NeighbourList


class ArrayStructures(Structures):
    """Structures of equal or different size, from arrays in memory; made into graphs, in eV and Å, one at a time.

    Arrays stay as they came (type, unit, drift of the coordinates); a structure is converted, and centred if it is not periodic,
    in float64 when it is asked for.

    Args:
      origin: what to call the data in messages; a path, mostly.
      cutoff: Å, of the edges.
      positions: [structures, atoms, 3] for structures of equal size, else [all atoms, 3] with ``offsets``.
      species: [atoms] of every structure, or [all atoms] with ``offsets``.
      offsets: [structures + 1]; structure i has the atoms offsets[i] to offsets[i + 1] - 1.
      energy: [structures], forces: as positions, stress: [structures, 6]; None where there are none, NaN where one lacks it.
      cell: [structures, 3, 3] or [3, 3]. pbc: one bool or three, for all structures.
      energy_unit, length_unit: in eV and Å. force_unit: in eV/Å, by default their quotient. The stress is in eV/Å³.
      names: kind of label -> its name in the file.

    Raises:
      ValueError: for arrays that do not fit each other, positions that are not finite, and infinite labels.
    """

    def __init__(
        self,
        *,
        origin: str,
        cutoff: float,
        positions: np.ndarray,
        species: np.ndarray,
        offsets: np.ndarray | None = None,
        energy: np.ndarray | None = None,
        forces: np.ndarray | None = None,
        stress: np.ndarray | None = None,
        cell: np.ndarray | None = None,
        pbc: np.ndarray | bool = False,
        energy_unit: float = 1.0,
        length_unit: float = 1.0,
        force_unit: float | None = None,
        names: dict[str, str] | None = None,
    ) -> None:
        self.origin, self.cutoff = origin, NeighbourList(cutoff).cutoff
        self.species = np.asarray(species)
        count = len(positions) if offsets is None else len(offsets) - 1
        if offsets is None:
            atoms = len(self.species)
            self._expect("positions", positions, (count, atoms, 3))
            self._expect("forces", forces, (count, atoms, 3))
            self.offsets = np.arange(count + 1) * atoms
            positions = positions.reshape(-1, 3)
            forces = None if forces is None else forces.reshape(-1, 3)
        else:
            self.offsets = np.asarray(offsets, dtype=np.int64)
            self._expect("positions", positions, (len(positions), 3))
            self._expect("species", self.species, (len(positions),))
            self._expect("forces", forces, (len(positions), 3))
            if (
                self.offsets[0] != 0
                or self.offsets[-1] != len(positions)
                or (np.diff(self.offsets) < 1).any()
            ):
                raise ValueError(
                    f"{origin}: the offsets must rise from 0 to the {len(positions)} atoms that there are"
                )
        if cell is not None and np.shape(cell) == (3, 3):
            cell = np.broadcast_to(cell, (count, 3, 3))
        if energy is not None and energy.shape == (count, 1):  # as sGDML writes them
            energy = energy[:, 0]
        self._expect("energies", energy, (count,))
        self._expect("stress", stress, (count, 6))
        self._expect("cell", cell, (count, 3, 3))
        self.positions, self.forces = positions, forces
        self.energy, self.stress, self.cell = energy, stress, cell
        if np.shape(pbc) not in ((), (1,), (3,)):
            raise ValueError(
                f"{origin}: pbc must be one bool or three for all structures, received shape {np.shape(pbc)}"
            )
        self.pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
        self.energy_unit, self.length_unit = energy_unit, length_unit
        self.force_unit = energy_unit / length_unit if force_unit is None else force_unit
        self.names = names or {kind: kind for kind in KINDS}
        self._check_numbers()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __str__(self) -> str:
        return self.origin

    def structure(self, index: int) -> Structure:
        atoms = slice(*self.offsets[index : index + 2].tolist())
        shared = len(self.species) != len(self.positions)  # by all structures
        species = self.species if shared else self.species[atoms]
        energy, length, force = self.energy_unit, self.length_unit, self.force_unit
        return Structure(
            positions=_scaled(self.positions[atoms], length),
            species=species.astype(np.int64),
            cell=None if self.cell is None else _scaled(self.cell[index], length),
            pbc=self.pbc,
            energy=None if self.energy is None else float(self.energy[index]) * energy,
            forces=None if self.forces is None else _scaled(self.forces[atoms], force),
            stress=None if self.stress is None else _scaled(self.stress[index], 1.0),
        ).centred()

    def labels(self) -> dict[str, str]:
        found = self.report()
        return {kind: self.names[kind] for kind in KINDS if getattr(found, kind)}

    def report(self) -> Report:
        number = len(self)

        def known(values: np.ndarray | None) -> int:
            if values is None:
                return 0
            some = ~np.isnan(values).reshape(len(values), -1).all(axis=1)
            if len(values) != number:  # per atom
                some = np.logical_or.reduceat(some, self.offsets[:-1])
            return int(some.sum())

        return Report(
            structures=number,
            energy=known(self.energy),
            forces=known(self.forces),
            stress=known(self.stress),
        )

    def _expect(self, name: str, array: np.ndarray | None, shape: tuple[int, ...]) -> None:
        if array is None:
            return
        if np.shape(array) != shape:
            raise ValueError(
                f"{self.origin}: the {name} must have shape {shape}, received {np.shape(array)}"
            )
        if array.dtype.kind not in "fiu":
            raise ValueError(
                f"{self.origin}: the {name} must be numbers, received type {array.dtype}"
            )

    def _check_numbers(self) -> None:
        """Now, in one sweep, rather than hours later in the middle of an epoch."""
        if len(self) == 0:
            raise ValueError(f"{self.origin} holds no structures")
        wrong = ~np.isfinite(self.positions).all(axis=1)
        if wrong.any():
            raise ValueError(
                f"structure {self._structure_of(wrong)} of {self.origin}: positions must be finite, received NaN or infinity"
            )
        if not ((self.species >= 1) & (self.species <= 118)).all():
            raise ValueError(
                f"{self.origin}: species must be atomic numbers from 1 to 118, received "
                f"{int(self.species.min())} to {int(self.species.max())}"
            )
        for name in ("energy", "forces", "stress"):
            values = getattr(self, name)
            if values is None:
                continue
            wrong = np.isinf(values).reshape(len(values), -1).any(axis=1)
            if wrong.any():
                where = self._structure_of(wrong) if name == "forces" else int(wrong.argmax())
                raise ValueError(
                    f"structure {where} of {self.origin}: {name} labels must be finite, or NaN where there is none; received "
                    f"infinity"
                )

    def _structure_of(self, atoms: np.ndarray) -> int:
        return int(np.searchsorted(self.offsets, atoms.argmax(), side="right") - 1)


class Joined(Structures):
    """Several data sets one after the other.

    Args:
      parts: of the same cutoff, none of them empty.
    """

    def __init__(self, parts: Sequence[Sequence[Graph]]) -> None:
        self.parts = [
            part if isinstance(part, Structures) else Subset(part, range(len(part)))
            for part in parts
        ]
        self.cutoff = self.parts[0].cutoff
        self._ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __str__(self) -> str:
        return " + ".join(str(part) for part in self.parts)

    def _find(self, index: int) -> tuple[Structures, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[part], int(index - (self._ends[part - 1] if part else 0))

    def structure(self, index: int) -> Structure:
        part, row = self._find(index)
        return part.structure(row)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return super().__getitem__(index)
        part, row = self._find(range(len(self))[index])
        return part[row]

    def counted(self) -> bool:
        return super().counted() or all(part.counted() for part in self.parts)

    def edge_counts(self) -> np.ndarray:
        if self._edge_counts is None:
            self._edge_counts = np.concatenate([part.edge_counts() for part in self.parts])
        return self._edge_counts

    def labels(self) -> dict[str, str]:
        return {kind: name for part in self.parts for kind, name in part.labels().items()}

    def report(self) -> Report:
        reports = [part.report() for part in self.parts]
        fields = ("structures", "energy", "forces", "stress")
        return Report(**{name: sum(getattr(each, name) for each in reports) for name in fields})


def _scaled(values: np.ndarray, factor: float) -> np.ndarray:
    return np.asarray(values, dtype=np.float64) * factor
