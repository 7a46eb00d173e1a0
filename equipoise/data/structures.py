"""Data sets that are not kept in memory: structures as they are stored, turned into graphs one at a time.

Every reader of a large set is a :class:`Structures`: a ``Sequence[Graph]`` whose graphs, neighbours included, are made when they
are asked for and forgotten afterwards.
"""

import abc
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ase
import numpy as np
import torch
from ase.constraints import FixAtoms

from equipoise.graph import Graph, NeighbourList
from equipoise.graph.ase import KINDS, find_labels, has_references, label_names


@dataclass(frozen=True, eq=False, kw_only=True)
class Structure:
    """One structure as a file holds it: arrays, no edges.

    A label that is not known is None or, as in files, NaN throughout. Forces may be known for some atoms and NaN for others.

    Attributes:
      positions: [atoms, 3] Å, float64.
      species: [atoms] atomic numbers.
      cell: [3, 3] Å, rows are lattice vectors; None where there is none.
      pbc: [3] bool, or one for all directions.
      energy: eV. forces: [atoms, 3] eV/Å. stress: [6] eV/Å³, Voigt xx yy zz yz xz xy.
      tags: [atoms] whole numbers with a meaning of the data set (OC20: 0 below the surface, 1 surface, 2 adsorbate).
      fixed: [atoms] bool, atoms that were held in place where the labels come from.
    """

    positions: np.ndarray
    species: np.ndarray
    cell: np.ndarray | None = None
    pbc: np.ndarray | bool = False
    energy: Any = None  # labels as they were found: `graph` checks them
    forces: Any = None
    stress: Any = None
    tags: np.ndarray | None = None
    fixed: np.ndarray | None = None

    @classmethod
    def of(cls, graph: Graph) -> list["Structure"]:
        """The structures of a graph, one or many, without their edges."""
        return [
            cls(
                positions=one.positions.numpy(),
                species=one.species.numpy(),
                cell=one.cell[0].numpy(),
                pbc=one.pbc[0].numpy(),
                energy=None if one.energy is None else float(one.energy),
                forces=None if one.forces is None else one.forces.numpy(),
                stress=None if one.stress is None else one.stress[0].numpy(),
            )
            for one in _single(graph if graph.device.type == "cpu" else graph.to("cpu"))
        ]

    @classmethod
    def from_ase(
        cls, atoms: ase.Atoms, keys: dict[str, str | None], *, references: bool | None = None
    ) -> "Structure":
        """What an ``ase.Atoms`` says, its labels found as :meth:`Graph.from_ase` finds them.

        Args:
          keys: "energy", "forces", "stress" -> the one key to look under, or None for the usual places.
          references: whether the file they are from has REF_ labels, so that plain ones count for nothing; None: whether they have.
        """
        references = has_references(atoms) if references is None else references
        held = np.zeros(len(atoms), dtype=bool)
        for constraint in atoms.constraints:
            if isinstance(constraint, FixAtoms):
                held[constraint.index] = True
        return cls(
            positions=atoms.positions,
            species=atoms.numbers,
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            tags=atoms.arrays.get("tags"),
            fixed=held if held.any() else None,
            **find_labels(atoms, label_names(keys, references)),
        )

    def centred(self) -> "Structure":
        """The mean position at the origin, taken in float64, if no direction is periodic.

        Trajectories drift, by 200 Å in rMD17 benzene, and digits are lost as soon as anybody rounds such positions.
        """
        if np.any(self.pbc):
            return self
        positions = np.asarray(self.positions, dtype=np.float64)
        return replace(self, positions=positions - positions.mean(axis=0))

    def free(self) -> "Structure":
        """The same without the forces on atoms that were held: those are missing labels (NaN)."""
        if self.forces is None or self.fixed is None:
            return self
        return replace(self, forces=np.where(self.fixed[:, None], np.nan, self.forces))

    def knows(self, kind: str) -> bool:
        """Whether there is a label of this kind; for forces, that of one atom at least."""
        label = getattr(self, kind)
        return label is not None and not _nan(label).all()

    def edges(self, cutoff: float) -> int:
        """The number of edges within ``cutoff`` (Å)."""
        return len(NeighbourList(cutoff).update(self.positions, self.cell, self.pbc).senders)

    def graph(self, cutoff: float) -> Graph:
        """This structure with its edges within ``cutoff`` (Å).

        Raises:
          ValueError: what :meth:`Graph.build` refuses; a stress, or the force on an atom, of which only some components are NaN.
        """
        known = {kind: getattr(self, kind) if self.knows(kind) else None for kind in KINDS}
        missing, forces = None, known["forces"]
        if np.shape(forces) == (len(self.positions), 3) and _nan(forces).any():
            # Atoms without a label; NaN in one component only is no missing label but a mistake, which build refuses.
            missing = _nan(forces).all(axis=1)
            known["forces"] = np.where(missing[:, None], 0.0, forces)
        graph = Graph.build(
            self.positions, self.species, cutoff=cutoff, cell=self.cell, pbc=self.pbc, **known
        )
        if missing is not None:
            graph = graph.replace(
                forces=graph.forces.masked_fill(torch.from_numpy(missing)[:, None], torch.nan)
            )
        return graph


@dataclass(frozen=True)
class Report:
    """How many structures there are, and how many of them have each label.

    `str(report)` is one line for a person: "1000 structures: 1000 with energy, ...".
    """

    structures: int
    energy: int
    forces: int
    stress: int

    @classmethod
    def of(cls, graphs: Iterable[Graph]) -> "Report":
        """Count the labels of `graphs`; a NaN is a missing label, forces count if those of one atom are known."""
        if isinstance(graphs, Structures):
            return graphs.report()
        return cls.count(each_structure(graphs))

    @classmethod
    def count(cls, structures: Iterable[Structure]) -> "Report":
        """Count the labels of structures without edges."""
        number, found = 0, dict.fromkeys(KINDS, 0)
        for structure in structures:
            number += 1
            for kind in KINDS:
                found[kind] += structure.knows(kind)
        return cls(structures=number, **found)

    def __str__(self) -> str:
        noun = "structure" if self.structures == 1 else "structures"
        return (
            f"{self.structures} {noun}: {self.energy} with energy, {self.forces} with "
            f"forces, {self.stress} with stress"
        )


class Structures(Sequence[Graph], abc.ABC):
    """A data set of which a graph is made when it is asked for: ``graphs[i]``, ``graphs[10:20]``, ``for graph in graphs``.

    Slices are data sets of the same kind (:class:`Subset`), nothing is read for them. Objects can be sent to other processes.

    When this is the wrong tool: a few thousand small structures, which fit in memory with their edges, are read once by
    ``list(graphs)``; every epoch after the first is then faster.

    Attributes:
      cutoff: Å, of the edges.
    """

    cutoff: float
    _edge_counts: np.ndarray | None = None

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __str__(self) -> str:
        """What is read, for messages: a path, mostly."""

    @abc.abstractmethod
    def structure(self, index: int) -> Structure:
        """Structure ``index`` (0 to len - 1) without edges."""

    @abc.abstractmethod
    def labels(self) -> dict[str, str]:
        """Kind of label -> the name it has in the file, for those that are there."""

    def remarks(self) -> list[str]:
        """What a reader of the labels should know of others that are there (:mod:`equipoise.data.remarks`)."""
        return []

    def contents(self) -> str:
        """What there is, labels or not, for the message that no label was found."""
        return f"known are {', '.join(self.labels()) or 'none'}"

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        index = in_range(index, len(self))
        try:
            return self.structure(index).graph(self.cutoff)
        except ValueError as error:
            raise ValueError(f"structure {index} of {self}: {error}") from error

    def counted(self) -> bool:
        """Whether ``edge_counts`` takes no pass over the data, or one whose result stays with them for good."""
        return self._edge_counts is not None

    def edge_counts(self) -> np.ndarray:
        """Edges of each structure: [structures] int64. Counted once, in one pass over the data, and kept."""
        if self._edge_counts is None:
            counts = (self.structure(i).edges(self.cutoff) for i in range(len(self)))
            self._edge_counts = np.fromiter(counts, dtype=np.int64, count=len(self))
        return self._edge_counts

    def report(self) -> Report:
        """How many structures have which label."""
        return Report.count(each_structure(self))


class Subset(Structures):
    """Some structures of another sequence, in the order given; nothing is copied.

    Args:
      graphs: any sequence of single structures.
      rows: which of them, as indices into ``graphs``.
    """

    def __init__(self, graphs: Sequence[Graph], rows: Sequence[int] | np.ndarray) -> None:
        rows = np.asarray(rows, dtype=np.int64)
        outside = (rows < 0) | (rows >= len(graphs))
        if outside.any():
            raise ValueError(
                f"rows must lie in 0 to {len(graphs) - 1}, received {int(rows[outside][0])}"
            )
        if isinstance(graphs, Subset):  # a slice of a slice is one step from the data, not two
            graphs, rows = graphs.graphs, graphs.rows[rows]
        self.graphs, self.rows = graphs, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return f"{len(self)} of {self.graphs if isinstance(self.graphs, Structures) else len(self.graphs)} structures"

    @property
    def cutoff(self) -> float:
        return self.graphs.cutoff if isinstance(self.graphs, Structures) else self.graphs[0].cutoff

    def structure(self, index: int) -> Structure:
        row = int(self.rows[index])
        if isinstance(self.graphs, Structures):
            return self.graphs.structure(row)
        return Structure.of(self.graphs[row])[0]

    def labels(self) -> dict[str, str]:
        if isinstance(self.graphs, Structures):
            return self.graphs.labels()
        return {kind: kind for kind in KINDS if getattr(self.report(), kind)}

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Subset(self.graphs, self.rows[index])
        return self.graphs[int(self.rows[in_range(index, len(self))])]

    def counted(self) -> bool:
        return super().counted() or (isinstance(self.graphs, Structures) and self.graphs.counted())

    def edge_counts(self) -> np.ndarray:
        if self._edge_counts is None and not isinstance(self.graphs, Structures):
            self._edge_counts = np.array([self.graphs[row].n_edges for row in self.rows.tolist()])
        elif self._edge_counts is None and self.graphs.counted():
            self._edge_counts = self.graphs.edge_counts()[self.rows]
        return super().edge_counts()


def each_structure(graphs: Iterable[Graph]) -> Iterator[Structure]:
    """The structures of a data set, batches taken apart, without making edges where there are none yet."""
    if isinstance(graphs, Structures):
        for index in range(len(graphs)):
            yield graphs.structure(index)
    else:
        for graph in graphs:
            yield from Structure.of(graph)


def edge_counts(graphs: Sequence[Graph]) -> np.ndarray:
    """Edges of each graph of a data set, in memory or not: [graphs] int64."""
    if isinstance(graphs, Structures):
        return graphs.edge_counts()
    return np.array([graph.n_edges for graph in graphs], dtype=np.int64)


def in_range(index: int, length: int) -> int:
    """``index`` as a number from 0 to length - 1, negative ones counted from the end."""
    number = operator.index(index)
    if not -length <= number < length:
        raise IndexError(f"index must lie in {-length} to {length - 1}, received {number}")
    return number % length


def _nan(label: object) -> np.ndarray:
    """Where a label is NaN; nowhere, if it is no number: :class:`Labels` says what is wrong with it."""
    try:
        return np.asarray(np.isnan(np.asarray(label, dtype=np.float64)))
    except (TypeError, ValueError):
        return np.zeros(np.shape(label), dtype=bool)


def _single(graph: Graph) -> list[Graph]:
    return graph.split() if graph.n_structures > 1 else [graph]
