"""What is in a data set, and what looks wrong with it, before anything is trained on it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from equipoise.data.statistics import Statistics, statistics
from equipoise.data.structures import Report, Structure, Structures, Subset
from equipoise.data.suspicions import Seen, suspicions
from equipoise.graph import Graph

_KEPT = (
    200_000  # forces and distances that distributions are made of; twice as many are thinned out
)


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found. Distributions are of a sample where there are many numbers.

    Attributes:
      structures: how many there are; looked_at: how many of them were looked at, evenly spread.
      report: labels, of those looked at.
      statistics: what training would take from them: reference energies, force RMS, neighbours.
      cutoff: Å, that the neighbours were counted with.
      elements: atomic number -> (atoms, structures that contain it).
      formulas: how many different compositions.
      periodic: how many have a periodic direction.
      atoms: [looked_at] atoms of each structure.
      energies: [looked_at] eV per atom beyond the reference energies, NaN without a label.
      forces: lengths of force vectors, eV/Å.
      distances: Å, between neighbours.
      neighbours: of each atom, a sample.
      warnings: what looks wrong, one sentence each.
    """

    structures: int
    looked_at: int
    report: Report
    statistics: Statistics
    cutoff: float
    elements: dict[int, tuple[int, int]]
    formulas: int
    periodic: int
    atoms: np.ndarray = field(repr=False)
    energies: np.ndarray = field(repr=False)
    forces: np.ndarray = field(repr=False)
    distances: np.ndarray = field(repr=False)
    neighbours: np.ndarray = field(repr=False)
    warnings: tuple[str, ...]


def survey(
    graphs: Sequence[Graph],
    *,
    limit: int | None = 10_000,
    progress: Callable[[int], None] | None = None,
) -> Survey:
    """Look through a data set.

    Args:
      graphs: single structures, in memory or not.
      limit: look at this many structures at most, evenly spread over the set; None for all. Duplicates are then those among them.
      progress: called with the number of structures looked at so far.

    Raises:
      ValueError: there are no structures; a structure is none (named by its number).
    """
    count = len(graphs)
    if count == 0:
        raise ValueError("a survey needs at least one structure, received none")
    rows = np.arange(count)
    if limit is not None and count > limit:
        rows = np.unique(np.linspace(0, count - 1, limit).astype(np.int64))
    some = graphs if len(rows) == count and isinstance(graphs, Structures) else Subset(graphs, rows)
    looker = _Looker(rows, progress)
    # One pass: the statistics take the graphs out of the looker's hands.
    found = statistics(looker.watch(some))
    references = dict(zip(found.elements, found.reference_energies, strict=True))
    energies = np.array(
        [
            (energy - sum(references[z] * n for z, n in composition.items()))
            / sum(composition.values())
            for energy, composition in zip(looker.energies, looker.compositions, strict=True)
        ]
    )
    report = Report(
        structures=len(rows),
        **{kind: looker.labels[kind] for kind in ("energy", "forces", "stress")},
    )
    return Survey(
        structures=count,
        looked_at=len(rows),
        report=report,
        statistics=found,
        cutoff=some.cutoff,
        elements={z: (looker.atoms_of[z], looker.structures_of[z]) for z in found.elements},
        formulas=len({tuple(sorted(each.items())) for each in looker.compositions}),
        periodic=looker.periodic,
        atoms=np.array([sum(each.values()) for each in looker.compositions]),
        energies=energies,
        forces=looker.forces.values(),
        distances=looker.distances.values(),
        neighbours=looker.neighbours.values(),
        warnings=tuple(suspicions(looker, report, energies, found.force_rms, graphs)),
    )


class _Looker(Seen):
    """Collects, while the structures go by."""

    def __init__(self, rows: np.ndarray, progress: Callable[[int], None] | None) -> None:
        super().__init__(rows=rows)
        self.progress = progress
        self.labels: Counter[str] = Counter()
        self.atoms_of: Counter[int] = Counter()
        self.compositions: list[Counter[int]] = []
        self.energies: list[float] = []
        self.forces, self.distances, self.neighbours = _Sample(), _Sample(), _Sample()
        self.known: dict[bytes, int] = {}

    def watch(self, graphs: Sequence[Graph]) -> Iterator[Graph]:
        for number, row in enumerate(self.rows.tolist()):
            structure = graphs.structure(number)
            try:
                graph = structure.graph(graphs.cutoff)
            except ValueError as error:
                raise ValueError(f"structure {row}: {error}") from error
            self._structure(structure, row)
            self._edges(graph, structure, row)
            if self.progress is not None:
                self.progress(number + 1)
            yield graph

    def _structure(self, structure: Structure, row: int) -> None:
        composition = Counter(np.asarray(structure.species).tolist())
        self.compositions.append(composition)
        self.atoms_of.update(composition)
        self.structures_of.update(composition.keys())
        self.periodic += bool(np.any(structure.pbc))
        for kind in ("energy", "forces", "stress"):
            self.labels[kind] += structure.knows(kind)
        self.energies.append(structure.energy if structure.knows("energy") else np.nan)
        if structure.knows("energy") and len(self.pairs) < 1000:
            self.pairs.append((np.asarray(structure.species), float(structure.energy)))
        if structure.knows("forces"):
            self._forces(np.asarray(structure.forces, dtype=np.float64), structure, row)
        key = geometry_key(structure)
        if key in self.known:
            self.duplicates.append((self.known[key], row))
        self.known.setdefault(key, row)

    def _forces(self, forces: np.ndarray, structure: Structure, row: int) -> None:
        known = ~np.isnan(forces).any(axis=1)
        lengths = np.linalg.norm(forces[known], axis=1)
        self.forces.add(lengths)
        self.zero_forces += len(forces) > 1 and not lengths.any()
        self.held += not known.all()
        self.largest_force = _larger(self.largest_force, (float(lengths.max()), row))
        if known.all() and structure.fixed is None:
            net = float(np.linalg.norm(forces.sum(axis=0)))
            self.largest_net = _larger(self.largest_net, (net, row))

    def _edges(self, graph: Graph, structure: Structure, row: int) -> None:
        degrees = np.bincount(graph.receivers.numpy(), minlength=graph.n_atoms)
        self.neighbours.add(degrees)
        self.lonely += graph.n_atoms > 1 and bool((degrees == 0).any())
        if graph.n_edges == 0:
            return
        lengths = np.linalg.norm(graph.edge_vectors().numpy(), axis=1)
        shortest = float(lengths.min())
        self.distances.add(lengths[graph.senders.numpy() <= graph.receivers.numpy()])
        self.closest = _larger(self.closest, (-shortest, row))
        if not np.any(structure.pbc) and 1 in structure.species and graph.n_atoms > 2:
            self.nearest.append(shortest)


class _Sample:
    """Everything that comes by, or of much an evenly drawn part, so that memory stays bounded."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self._count, self._part = 0, 1.0
        self._generator = np.random.default_rng(0)

    def add(self, values: np.ndarray) -> None:
        if self._part < 1:
            values = values[self._generator.random(len(values)) < self._part]
        self._pieces.append(values)
        self._count += len(values)
        while self._count > 2 * _KEPT:
            whole = np.concatenate(self._pieces)
            half = whole[self._generator.random(len(whole)) < 0.5]
            self._pieces, self._count, self._part = [half], len(half), self._part / 2

    def values(self) -> np.ndarray:
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0)


def geometry_key(structure: Structure) -> bytes:
    """Equal for equal geometries, to 1e-4 Å; wherever a molecule stands."""
    centred = np.round(structure.centred().positions, 4) + 0.0  # no -0.0
    cell = np.zeros((3, 3)) if structure.cell is None else np.round(structure.cell, 4) + 0.0
    species = np.asarray(structure.species, dtype=np.int64)
    return hashlib.blake2b(
        species.tobytes() + centred.tobytes() + np.asarray(cell, dtype=np.float64).tobytes(),
        digest_size=16,
    ).digest()


def _larger(old: tuple[float, int], new: tuple[float, int]) -> tuple[float, int]:
    return new if np.isnan(old[0]) or new[0] > old[0] else old
