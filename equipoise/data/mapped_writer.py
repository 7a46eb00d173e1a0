"""Writing the mapped format of `mapped.py`, one structure at a time."""

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.mapped import COLUMNS, FORMAT, HEADER, UNITS, VERSION
from equipoise.data.npy import NpyWriter
from equipoise.data.structures import KINDS, Structure, Structures
from equipoise.graph import Graph


def write_mapped(
    path: str | Path,
    graphs: Iterable[Graph],
    *,
    info: dict[str, Any] | None = None,
    float32: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write structures to a new folder, from which :class:`MappedStructures` reads them.

    One structure is in memory at a time. Everything is first written to a folder beside ``path`` that begins with a dot and
    ends in ``.partial``, which takes its name when it is complete and on the disk: an error, Ctrl-C or a full disk leaves nothing
    behind, a process killed outright leaves the ``.partial`` folder, to be deleted, and never half a data set.

    When this is the wrong tool: for editing. A folder is written once; to change it, write another.

    Args:
      path: the folder to be; it must not exist.
      graphs: single structures or batches, all with the same cutoff; a lazy data set, from which tags and fixed atoms are
        taken too, or a generator.
      info: about the data, kept in the header: ``source``, ``theory`` (the method behind the labels), ``citation``,
        ``licence``, or whatever else JSON can hold.
      float32: round positions and forces to float32, which takes half the space. Each structure is then moved to the origin
        first: rounding costs 5e-7 Å there, and 1e-5 Å at 200 Å.
      progress: called with the number of structures written so far.

    Raises:
      FileExistsError: there is something at ``path``.
      ValueError: no structures, different cutoffs, an ``info`` that JSON cannot hold, and what a data set says of a structure
        that is none.
      OSError: the disk is full, or may not be written to.
    """
    path = Path(path).absolute()
    if path.exists():
        raise FileExistsError(f"{path} exists; delete it or choose another name for the data set")
    about = _checked_info(info)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.partial"
        partial.mkdir()
    writer = _Writer(partial, "<f4" if float32 else "<f8")
    try:
        for structure, edges, cutoff in _measured(graphs, float32=float32):
            with _writing(path):
                writer.append(structure, edges, cutoff)
            if progress is not None:
                progress(writer.structures)
        if writer.structures == 0:
            raise ValueError(f"a data set needs at least one structure, received none for {path}")
        with _writing(path):
            writer.finish(about)
            os.rename(partial, path)
            _sync(path.parent)
    except BaseException:
        writer.discard()
        shutil.rmtree(partial, ignore_errors=True)
        raise


class _Writer:
    """The files of one folder, and what the header will say about them."""

    def __init__(self, folder: Path, real: str) -> None:
        self.folder, self.real = folder, real
        self.files: dict[str, NpyWriter] = {}
        self.structures = self.atoms = self.edges = 0
        self.cutoff: float | None = None
        self.elements: Counter[int] = Counter()
        self.labels: Counter[str] = Counter()

    def append(self, structure: Structure, edges: int, cutoff: float) -> None:
        if self.cutoff not in (None, cutoff):
            raise ValueError(
                f"all structures of a data set must have the same cutoff, received {self.cutoff} "
                f"and {cutoff} Å; build them again with one"
            )
        self.cutoff = cutoff
        if self.structures == 0:
            self._put("offsets", [0])
        n_atoms = len(structure.positions)
        periodic = np.any(structure.pbc) or np.any(structure.cell)
        cell = structure.cell if structure.cell is not None else np.zeros((3, 3))
        values = {
            "positions": structure.positions,
            "species": structure.species,
            "offsets": [self.atoms + n_atoms],
            "edges": [edges],
            "energy": [structure.energy] if structure.knows("energy") else None,
            "forces": structure.forces if structure.knows("forces") else None,
            "stress": [structure.stress] if structure.knows("stress") else None,
            "cell": [cell] if periodic else None,
            "pbc": [np.broadcast_to(structure.pbc, (3,))] if periodic else None,
            "tags": structure.tags,
            "fixed": structure.fixed,
        }
        for name, value in values.items():
            if value is not None:
                self._put(name, value)
            elif name in self.files:
                self.files[name].fill(
                    n_atoms if COLUMNS[name].per_atom else 1, COLUMNS[name].missing
                )
        self.structures += 1
        self.atoms += n_atoms
        self.edges += edges
        self.elements.update(np.asarray(structure.species).tolist())
        self.labels.update(kind for kind in KINDS if values[kind] is not None)

    def finish(self, info: dict[str, Any]) -> None:
        """Close the arrays and write the header, which makes the folder a data set, last."""
        header = {
            "format": FORMAT,
            "version": VERSION,
            "structures": self.structures,
            "atoms": self.atoms,
            "elements": {str(z): self.elements[z] for z in sorted(self.elements)},
            "labels": {kind: self.labels[kind] for kind in KINDS},
            "units": UNITS,
            "edges": {"cutoff": self.cutoff, "total": self.edges},
            "info": info,
            "arrays": {name: file.close() for name, file in self.files.items()},
        }
        with (self.folder / HEADER).open("w", encoding="utf-8") as file:
            json.dump(header, file, indent=2, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())

    def discard(self) -> None:
        for file in self.files.values():
            file.discard()

    def _put(self, name: str, rows: Any) -> None:
        if name not in self.files:  # the first structure that has it
            column = COLUMNS[name]
            kind = self.real if self.real in column.types else column.types[0]
            self.files[name] = NpyWriter(self.folder / f"{name}.npy", kind, column.shape)
            before = self.atoms if column.per_atom else self.structures
            self.files[name].fill(before, column.missing)
        self.files[name].append(np.asarray(rows))


def _measured(graphs: Iterable[Graph], *, float32: bool) -> Iterator[tuple[Structure, int, float]]:
    """Each structure, checked, as it will be stored, with its number of edges and the cutoff."""
    if isinstance(graphs, Structures):
        for index in range(len(graphs)):
            structure = graphs.structure(index)
            try:
                if float32:
                    structure = _rounded(structure)
                edges = structure.graph(graphs.cutoff).n_edges
            except ValueError as error:
                raise ValueError(f"structure {index} of {graphs}: {error}") from error
            yield structure, edges, graphs.cutoff
        return
    for batch in graphs:
        for graph in batch.split() if batch.n_structures > 1 else [batch]:
            (structure,) = Structure.of(graph)
            edges = graph.n_edges
            if float32:
                structure = _rounded(structure)
                edges = structure.edges(graph.cutoff)
            yield structure, edges, graph.cutoff


def _rounded(structure: Structure) -> Structure:
    positions = np.asarray(structure.positions, dtype=np.float64)
    positions = (positions - positions.mean(axis=0)).astype(np.float32)
    return replace(structure, positions=positions.astype(np.float64))


def _checked_info(info: dict[str, Any] | None) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(info or {}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"info must be a record that JSON can hold: {error}") from error


def _sync(folder: Path) -> None:
    """Make a rename in this folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"cannot write {path}: {error.strerror or error}; nothing was left behind"
        raise OSError(error.errno, text) from error
