"""`Graph`: atoms as tensors, one structure or many."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from equipoise.graph.ase import make_atoms, read_labels
from equipoise.graph.labels import Labels
from equipoise.graph.neighbours import NeighbourList

HEAVIEST = 118  # oganesson: atomic numbers end here


@dataclass(frozen=True, eq=False)
class Graph:
    r"""One structure or several: atoms, cells, edges and, where known, labels.

    An edge goes from a sender to a receiver; its vector is

    $$ r_e = x_{\mathrm{receiver}} - x_{\mathrm{sender}} + S_e\, C $$

    with $S_e$ the integer shift and $C$ the cell of the structure (rows are lattice
    vectors). Both directions of a pair are listed.

    Everything is kept in float64 whatever the precision of the network: trajectories
    drift by hundreds of Angstrom, and a float32 position there is good to 1e-5 only.
    The network casts the edge vectors, which are short, not the positions.

    Make one with `Graph.build` (arrays) or `Graph.from_ase`; both check their input.
    The constructor itself only checks shapes and types, so that graphs can be sliced
    and moved between devices without reading them back.
    """

    positions: Float64[Tensor, "atoms 3"]  # Angstrom
    species: Int64[Tensor, " atoms"]  # atomic numbers
    owner: Int64[Tensor, " atoms"]  # structure of each atom, ascending
    cell: Float64[Tensor, "structures 3 3"]  # Angstrom, zeros where there is none
    pbc: Bool[Tensor, "structures 3"]
    senders: Int64[Tensor, " edges"]
    receivers: Int64[Tensor, " edges"]
    shifts: Int64[Tensor, "edges 3"]
    cutoff: float  # Angstrom
    # Reference labels. NaN where one structure of a batch lacks what another has.
    energy: Float64[Tensor, " structures"] | None = None  # eV
    forces: Float64[Tensor, "atoms 3"] | None = None  # eV/Angstrom
    stress: Float64[Tensor, "structures 6"] | None = None  # eV/Angstrom^3, Voigt

    def __post_init__(self) -> None:
        atoms, structures = len(self.positions), len(self.cell)
        edges = len(self.senders)
        shapes = {
            "positions": ((atoms, 3), torch.float64),
            "species": ((atoms,), torch.int64),
            "owner": ((atoms,), torch.int64),
            "cell": ((structures, 3, 3), torch.float64),
            "pbc": ((structures, 3), torch.bool),
            "senders": ((edges,), torch.int64),
            "receivers": ((edges,), torch.int64),
            "shifts": ((edges, 3), torch.int64),
            "energy": ((structures,), torch.float64),
            "forces": ((atoms, 3), torch.float64),
            "stress": ((structures, 6), torch.float64),
        }
        for name, (shape, dtype) in shapes.items():
            value = getattr(self, name)
            if value is None and name in ("energy", "forces", "stress"):
                continue
            if tuple(value.shape) != shape or value.dtype != dtype:
                raise ValueError(
                    f"{name} must have shape {shape} and type {dtype}, received "
                    f"{tuple(value.shape)} and {value.dtype}"
                )

    @classmethod
    def build(
        cls,
        positions: Any,
        species: Any,
        *,
        cutoff: float,
        cell: Any = None,
        pbc: Any = False,
        energy: Any = None,
        forces: Any = None,
        stress: Any = None,
        neighbours: NeighbourList | None = None,
    ) -> "Graph":
        """One structure from arrays (NumPy, torch or lists), checked.

        **Arguments**

        - `positions`: [atoms, 3], Angstrom.
        - `species`: [atoms], atomic numbers 1 to 118.
        - `cutoff`: Angstrom; pairs closer than this are edges.
        - `cell`, `pbc`: [3, 3] Angstrom with lattice vectors as rows, and one bool or
          three. A cell without periodicity is kept but has no effect.
        - `energy` (eV), `forces` ([atoms, 3] eV/Angstrom), `stress` ([6] or [3, 3]
          eV/Angstrom^3): labels, finite, or None.
        - `neighbours`: a `NeighbourList` to reuse between steps of one trajectory;
          its cutoff must be `cutoff`.

        **Raises** `ValueError` for anything that is not a structure: see
        `NeighbourList.update` for the geometry; also atomic numbers outside 1 to 118
        and labels of the wrong shape or not finite.
        """
        if neighbours is None:
            neighbours = NeighbourList(cutoff)
        elif neighbours.cutoff != cutoff:
            raise ValueError(
                f"the neighbour list must have the graph's cutoff of {cutoff} "
                f"Angstrom, received one with {neighbours.cutoff} Angstrom"
            )
        positions, species = _host(positions), _host(species)
        cell = np.zeros((3, 3)) if cell is None else _host(cell)
        edges = neighbours.update(positions, cell, _host(pbc))
        species = _check_species(species, len(positions))
        labels = Labels.check(
            len(positions),
            energy=None if energy is None else _host(energy),
            forces=None if forces is None else _host(forces),
            stress=None if stress is None else _host(stress),
        )
        # torch.tensor copies: an engine moves the caller's arrays in place.
        return cls(
            positions=torch.tensor(positions, dtype=torch.float64),
            species=torch.tensor(species, dtype=torch.int64),
            owner=torch.zeros(len(positions), dtype=torch.int64),
            cell=torch.tensor(cell, dtype=torch.float64)[None],
            pbc=torch.tensor(np.broadcast_to(_host(pbc), (1, 3)), dtype=torch.bool),
            senders=edges.senders,
            receivers=edges.receivers,
            shifts=edges.shifts,
            cutoff=neighbours.cutoff,
            energy=_label(labels.energy, 1),
            forces=_label(labels.forces, len(positions), 3),
            stress=_label(labels.stress, 1, 6),
        )

    @classmethod
    def from_ase(
        cls,
        atoms: ase.Atoms,
        cutoff: float,
        *,
        neighbours: NeighbourList | None = None,
        labels: bool = True,
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
    ) -> "Graph":
        """One structure from an `ase.Atoms`, with its labels if it has any.

        Labels are read from `REF_energy` / `REF_forces` / `REF_stress` if there is any
        of these, else from the calculator's results (where ASE puts the plain keys of an
        extxyz file), else from plain keys; or from the keys named here and nowhere else,
        with a stress that is not named only where the others have usual names. With
        `labels=False` none are read: right for an engine, where the attached
        calculator is the potential itself.

        **Raises** `ValueError` as `Graph.build` does.
        """
        found = Labels()
        if labels:
            found = read_labels(
                atoms,
                energy_key=energy_key,
                forces_key=forces_key,
                stress_key=stress_key,
            )
        return cls.build(
            atoms.positions,
            atoms.numbers,
            cutoff=cutoff,
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            energy=found.energy,
            forces=found.forces,
            stress=found.stress,
            neighbours=neighbours,
        )

    @property
    def n_atoms(self) -> int:
        return len(self.positions)

    @property
    def n_structures(self) -> int:
        return len(self.cell)

    @property
    def n_edges(self) -> int:
        return len(self.senders)

    @property
    def counts(self) -> Int64[Tensor, " structures"]:
        """Atoms per structure."""
        return torch.bincount(self.owner, minlength=self.n_structures)

    @property
    def device(self) -> torch.device:
        return self.positions.device

    @property
    def volume(self) -> Float64[Tensor, " structures"]:
        """Volume of each cell, Angstrom^3; 0 where there is no cell."""
        return torch.linalg.det(self.cell).abs()

    def edge_vectors(self, positions: Tensor | None = None, cell: Tensor | None = None) -> Tensor:
        """positions[receivers] - positions[senders] + shifts @ cell: [edges, 3].

        Torch operations only, so differentiable to any order with respect to the
        `positions` [atoms, 3] and `cell` [structures, 3, 3] given here (by default
        the graph's own).
        """
        positions = self.positions if positions is None else positions
        cell = self.cell if cell is None else cell
        shifts = self.shifts.to(cell.dtype)
        if self.n_structures == 1:
            offsets = shifts @ cell[0]
        else:
            cells = cell[self.owner[self.senders]]
            offsets = torch.einsum("ei,eix->ex", shifts, cells)
        return positions[self.receivers] - positions[self.senders] + offsets

    def replace(self, **changes: Any) -> "Graph":
        """A copy with some fields changed. Moving atoms does not renew the edges."""
        return dataclasses.replace(self, **changes)

    def to(self, device: torch.device | str) -> "Graph":
        """The same graph on another device (types never change)."""
        moved = {
            field.name: value.to(device)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return self.replace(**moved)

    def split(self) -> list["Graph"]:
        """The structures one by one: the inverse of `batch`.

        A label that is NaN throughout a structure (it was missing when the batch was
        made) is None again. Edges keep their order.
        """
        edge_owner = self.owner[self.senders]
        order = torch.argsort(edge_owner, stable=True)
        edge_counts = torch.bincount(edge_owner, minlength=self.n_structures).tolist()
        graphs, first = [], 0
        for index, (count, edges) in enumerate(
            zip(self.counts.tolist(), order.split(edge_counts), strict=True)
        ):
            atoms, one = slice(first, first + count), slice(index, index + 1)
            graphs.append(
                Graph(
                    positions=self.positions[atoms],
                    species=self.species[atoms],
                    owner=torch.zeros_like(self.owner[atoms]),
                    cell=self.cell[one],
                    pbc=self.pbc[one],
                    senders=self.senders[edges] - first,
                    receivers=self.receivers[edges] - first,
                    shifts=self.shifts[edges],
                    cutoff=self.cutoff,
                    energy=_known(self.energy, one),
                    forces=_known(self.forces, atoms),
                    stress=_known(self.stress, one),
                )
            )
            first += count
        return graphs

    def to_ase(self) -> list[ase.Atoms]:
        """One `ase.Atoms` per structure, labels as single-point results."""
        return [_to_atoms(graph) for graph in self.to("cpu").split()]


def _known(label: Tensor | None, rows: slice) -> Tensor | None:
    if label is None or torch.isnan(label[rows]).all():
        return None
    return label[rows]


def _label(label: float | np.ndarray | None, *shape: int) -> Tensor | None:
    if label is None:
        return None
    return torch.tensor(label, dtype=torch.float64).reshape(shape)


def _to_atoms(graph: Graph) -> ase.Atoms:
    labels = Labels(
        energy=None if graph.energy is None else float(graph.energy),
        forces=None if graph.forces is None else graph.forces.detach().numpy(),
        stress=None if graph.stress is None else graph.stress[0].detach().numpy(),
    )
    return make_atoms(
        graph.positions.detach().numpy(),
        graph.species.numpy(),
        cell=graph.cell[0].detach().numpy(),
        pbc=graph.pbc[0].numpy(),
        labels=labels,
    )


def _host(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values)


def _check_species(species: np.ndarray, n_atoms: int) -> np.ndarray:
    if species.shape != (n_atoms,):
        raise ValueError(
            f"species must hold one atomic number for each of the {n_atoms} atoms, "
            f"received shape {species.shape}"
        )
    if not np.issubdtype(species.dtype, np.integer):
        raise ValueError(f"species must be whole atomic numbers, received type {species.dtype}")
    wrong = (species < 1) | (species > HEAVIEST)
    if wrong.any():
        atom = int(np.flatnonzero(wrong)[0])
        dummy = " (ASE's dummy atom X)" if species[atom] == 0 else ""
        raise ValueError(
            f"atomic numbers must be 1 to {HEAVIEST}, received {int(species[atom])}"
            f"{dummy} for atom {atom}"
        )
    return species
