"""What a potential must know about its training set before the first step."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from equipoise.data.structures import Structures
from equipoise.graph import Graph

# Numbers of structures, and of force components, that are gathered before they are condensed. Sets below these are treated as
# one piece; larger ones take some 30 MB.
_ROWS = 4096
_COMPONENTS = 2**20
_HEAVIEST = 118


@dataclass(frozen=True)
class Statistics:
    """Scales and offsets of a training set."""

    elements: tuple[int, ...]  # atomic numbers, ascending
    reference_energies: tuple[float, ...]  # eV per atom of each element
    force_rms: float  # eV/Å, over all components
    mean_neighbours: float  # edges per atom
    mean_atoms: float  # atoms per structure


def statistics(graphs: Iterable[Graph]) -> Statistics:
    r"""Statistics of labelled structures (single graphs or batches), in float64, in one pass that keeps nothing.

    The reference energies $\varepsilon_Z$ solve the least-squares problem

    $$ \min_\varepsilon \sum_s \Big( E_s - \sum_Z n_{sZ}\, \varepsilon_Z \Big)^2, $$

    $n_{sZ}$ the number of atoms of element Z in structure s. If the compositions do not determine it (a single molecule does
    not), it is the solution of minimum norm: then only the sum over a known composition has a meaning, not the single values.
    For large sets $(n, E)$ is reduced piece by piece to the triangular factor of its QR decomposition, which has the same
    least-squares solution and none of the loss of digits of normal equations.

    The force RMS is $\sqrt{\langle F_{i\alpha}^2 \rangle}$ over atoms and components. Missing labels (None or NaN) are left out.
    Without any energy the references are 0; without forces, or if all are 0, the force RMS is 1, a scale that does nothing.

    Neighbours and sizes are those of *these* structures with *their* cutoff. Data that know their numbers of edges (the mapped
    format) are not asked for neighbours again.

    Raises:
      ValueError: there are no structures.
    """
    energies, forces = _Energies(), _Squares()
    present = np.zeros(_HEAVIEST + 1, dtype=bool)
    atoms = edges = structures = 0
    for part in _parts(graphs):
        atoms += len(part.species)
        edges += part.edges
        structures += part.structures
        present[part.species] = True
        if part.energy is not None:
            energies.add(part)
        if part.forces is not None:
            forces.add(part.forces)
    if structures == 0:
        raise ValueError("statistics need at least one structure, received none")
    elements = np.flatnonzero(present)
    return Statistics(
        elements=tuple(int(z) for z in elements),
        reference_energies=energies.references(elements),
        force_rms=forces.rms(),
        mean_neighbours=edges / atoms,
        mean_atoms=atoms / structures,
    )


class _Part(NamedTuple):
    """One structure or batch, as arrays."""

    species: np.ndarray
    owner: np.ndarray
    structures: int
    edges: int
    energy: np.ndarray | None
    forces: np.ndarray | None


def _parts(graphs: Iterable[Graph]) -> Iterator[_Part]:
    if isinstance(graphs, Structures) and graphs.counted():
        counts = graphs.edge_counts()
        for index in range(len(graphs)):
            structure = graphs.structure(index)
            energy, forces = structure.energy, structure.forces
            yield _Part(
                species=np.asarray(structure.species),
                owner=np.zeros(len(structure.species), dtype=np.int64),
                structures=1,
                edges=int(counts[index]),
                energy=None if energy is None else np.array([energy], dtype=np.float64),
                forces=None if forces is None else np.asarray(forces, dtype=np.float64),
            )
        return
    for graph in graphs:
        yield _Part(
            species=graph.species.cpu().numpy(),
            owner=graph.owner.cpu().numpy(),
            structures=graph.n_structures,
            edges=graph.n_edges,
            energy=None if graph.energy is None else graph.energy.detach().cpu().numpy(),
            forces=None if graph.forces is None else graph.forces.detach().cpu().numpy(),
        )


class _Energies:
    """Compositions and energies, condensed whenever many have come together."""

    def __init__(self) -> None:
        self._compositions: list[np.ndarray] = []
        self._energies: list[np.ndarray] = []
        self._pending = self._rows = 0
        self._triangle: np.ndarray | None = None  # [.., 118 elements and energy]

    def add(self, part: _Part) -> None:
        counts = np.zeros((part.structures, _HEAVIEST + 1))
        np.add.at(counts, (part.owner, part.species), 1.0)
        known = ~np.isnan(part.energy)
        self._compositions.append(counts[known])
        self._energies.append(part.energy[known])
        self._pending += int(known.sum())
        self._rows += int(known.sum())
        if self._pending >= _ROWS:
            self._triangle = np.linalg.qr(np.vstack(self._all()), mode="r")
            self._compositions, self._energies, self._pending = [], [], 0

    def references(self, elements: np.ndarray) -> tuple[float, ...]:
        if self._rows == 0:
            return (0.0,) * len(elements)
        table = np.vstack(self._all())
        # Of rank the data have, not the triangle: lstsq counts rows for what it takes to be zero.
        rcond = np.finfo(np.float64).eps * max(self._rows, len(elements))
        counts = np.ascontiguousarray(table[:, elements])
        solution = np.linalg.lstsq(counts, np.ascontiguousarray(table[:, -1]), rcond=rcond)[0]
        return tuple(float(value) for value in solution)

    def _all(self) -> list[np.ndarray]:
        before = [] if self._triangle is None else [self._triangle]
        if not self._energies:
            return before
        energies = np.concatenate(self._energies)[:, None]
        return [*before, np.hstack([np.concatenate(self._compositions), energies])]


class _Squares:
    """The mean square of numbers that come in pieces; NaN does not count."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self._pending = self._count = 0
        self._sum = 0.0

    def add(self, numbers: np.ndarray) -> None:
        self._pieces.append(numbers.ravel())
        self._pending += numbers.size
        if self._pending >= _COMPONENTS:
            self._condense()

    def rms(self) -> float:
        if self._pieces:
            self._condense()
        return float(np.sqrt(self._sum / self._count)) if self._sum > 0 else 1.0

    def _condense(self) -> None:
        numbers = np.concatenate(self._pieces)
        numbers = numbers[~np.isnan(numbers)]
        self._sum += float(np.sum(numbers**2))
        self._count += len(numbers)
        self._pieces, self._pending = [], 0
