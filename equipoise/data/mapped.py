"""Structures in a folder of plain arrays, read where they are needed: for data sets larger than memory.

A mapped folder holds ``header.json`` and one ``.npy`` file per quantity. With n structures and N atoms in all these are

    offsets    [n + 1]     int64    structure i has the atoms offsets[i] to offsets[i + 1] - 1
    species    [N]         uint8    atomic numbers
    positions  [N, 3]      float    Å
    cell, pbc  [n, 3, 3], [n, 3]    Å and bool; no such files if nothing is periodic and no cell is given
    energy     [n]         float64  eV
    forces     [N, 3]      float    eV/Å
    stress     [n, 6]      float64  eV/Å³, Voigt xx yy zz yz xz xy
    tags       [N]         int64    see :class:`Structure`
    fixed      [N]         bool     see :class:`Structure`
    edges      [n]         int64    edges of each structure within the cutoff that the header names

A label that is not known is NaN; a label that no structure has, has no file. "float" is float64, or float32 where asked for.
``numpy.load(file, mmap_mode="r", allow_pickle=False)`` reads each of them without this library. The header holds the name and
version of the format, units, counts, where the data come from, and for each file its size and the sha256 of its numbers.
"""

import json
import os
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipoise.data.npy import data_sha256
from equipoise.data.structures import KINDS, Report, Structure, Structures
from equipoise.graph import NeighbourList

FORMAT = "equipoise mapped structures"
VERSION = 1
HEADER = "header.json"
UNITS = {"length": "Å", "energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}


class Column(NamedTuple):
    """One array of the format."""

    per_atom: bool
    shape: tuple[int, ...]  # of one row
    types: tuple[str, ...]
    missing: float = 0.0  # where a structure says nothing


COLUMNS = {
    "positions": Column(True, (3,), ("<f8", "<f4")),
    "species": Column(True, (), ("|u1",)),
    "offsets": Column(False, (), ("<i8",)),
    "edges": Column(False, (), ("<i8",)),
    "energy": Column(False, (), ("<f8",), np.nan),
    "forces": Column(True, (3,), ("<f8", "<f4"), np.nan),
    "stress": Column(False, (6,), ("<f8",), np.nan),
    "cell": Column(False, (3, 3), ("<f8",)),
    "pbc": Column(False, (3,), ("|b1",)),
    "tags": Column(True, (), ("<i8",)),
    "fixed": Column(True, (), ("|b1",)),
}
REQUIRED = ("positions", "species", "offsets", "edges")


class MappedStructures(Structures):
    """The structures of a mapped folder, written by :func:`write_mapped`, as graphs that are made when they are asked for.

    The numbers stay on the disk: opening takes milliseconds whatever the size, memory in use is what the operating system can
    spare for the pages read last, and processes that read the same folder share them. Objects can be sent to other processes.

    Args:
      path: the folder.
      cutoff: Å, of the edges.
      free_atoms_only: leave out the forces on atoms marked as fixed (they become missing labels). For adsorbates on frozen
        slabs (OC20), whose errors are counted over free atoms only.

    Attributes:
      header: what ``header.json`` says.
      info: what the writer of the data had to say about them.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it is no mapped folder, a newer version of the format, in other units, incomplete or damaged.
    """

    def __init__(self, path: str | Path, *, cutoff: float, free_atoms_only: bool = False) -> None:
        # Absolute, because another process that is sent this object may run elsewhere.
        self.path = Path(path).absolute()
        self.cutoff = NeighbourList(cutoff).cutoff
        self.free_atoms_only = free_atoms_only
        self.header = read_header(self.path)
        self._arrays = {name: _map(self.path, name, self.header) for name in self.header["arrays"]}
        self._check_offsets()

    @property
    def info(self) -> dict[str, Any]:
        return self.header["info"]

    def __len__(self) -> int:
        return self.header["structures"]

    def __str__(self) -> str:
        return str(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "cutoff": self.cutoff,
            "free_atoms_only": self.free_atoms_only,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def structure(self, index: int) -> Structure:
        arrays = self._arrays
        first, last = arrays["offsets"][index : index + 2].tolist()
        values = {
            name: array[first:last] if COLUMNS[name].per_atom else array[index]
            for name, array in arrays.items()
            if name not in ("offsets", "edges")
        }
        values["species"] = values["species"].astype(np.int64)
        for name in ("positions", "forces"):
            if name in values:
                values[name] = values[name].astype(np.float64)
        structure = Structure(**values)
        return structure.free() if self.free_atoms_only else structure

    def labels(self) -> dict[str, str]:
        return {kind: kind for kind in KINDS if self.header["labels"][kind]}

    def report(self) -> Report:
        return Report(structures=len(self), **{k: self.header["labels"][k] for k in KINDS})

    def counted(self) -> bool:
        return True

    def edge_counts(self) -> np.ndarray:
        """Edges of each structure: [structures] int64.

        Stored for the cutoff that the data were written with. For another one they are counted in one pass and kept in the
        folder, if it can be written to, as ``edges_<cutoff>.npy``.
        """
        if self._edge_counts is None:
            if self.cutoff == self.header["edges"]["cutoff"]:
                self._edge_counts = self._arrays["edges"]
            else:
                self._edge_counts = self._recount()
        return self._edge_counts

    def verify(self) -> None:
        """Read everything and compare it with the checksums in the header.

        Raises:
          ValueError: a file is not what was written, naming it.
        """
        for name, about in self.header["arrays"].items():
            if data_sha256(self.path / f"{name}.npy") != about["sha256"]:
                raise ValueError(
                    f"{self.path / name}.npy is not what was written: its sha256 differs from the "
                    f"one in {HEADER}; copy or convert the data again"
                )

    def _recount(self) -> np.ndarray:
        path = self.path / f"edges_{self.cutoff!r}.npy"
        try:
            counts = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there, or cut short
            counts = np.zeros(0)
        if counts.shape == (len(self),) and counts.dtype == np.int64:
            return counts
        counts = super().edge_counts()
        # Several processes, on several machines, may be doing the same.
        partial = path.with_suffix(f".{uuid.uuid4().hex[:8]}.partial")
        try:
            with partial.open("wb") as file:
                np.save(file, counts, allow_pickle=False)
            os.replace(partial, path)
        except (
            OSError
        ):  # a folder that belongs to somebody else, a full disk: count again next time
            partial.unlink(missing_ok=True)
        return counts

    def _check_offsets(self) -> None:
        offsets = self._arrays["offsets"]
        if offsets[0] != 0 or offsets[-1] != self.header["atoms"] or (np.diff(offsets) < 1).any():
            raise ValueError(
                f"{self.path / 'offsets.npy'} must rise from 0 to the {self.header['atoms']} atoms "
                f"that there are, by one atom at least for each structure; the data are damaged"
            )


def is_mapped(path: Path) -> bool:
    """Whether a path looks like a mapped folder, sound or not."""
    return (path / HEADER).is_file()


def read_header(path: Path) -> dict[str, Any]:
    """What ``header.json`` of a mapped folder says, checked.

    Raises:
      FileNotFoundError, ValueError: see :class:`MappedStructures`.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    if not is_mapped(path):
        raise ValueError(
            f"{path} is no mapped data set: it has no {HEADER}. `write_mapped` and `equipoise data "
            f"convert` make one"
        )
    try:
        header = json.loads((path / HEADER).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path / HEADER} cannot be read; it is damaged: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no mapped data set: {HEADER} must say 'format': '{FORMAT}', received "
            f"{header.get('format') if isinstance(header, dict) else type(header).__name__!r}"
        )
    version = header.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ValueError(
            f"{path} is version {version} of the mapped format, this Equipoise reads up to "
            f"version {VERSION}; install a newer one"
        )
    if header.get("units") != UNITS:
        raise ValueError(f"{path} must be in {UNITS}, received {header.get('units')}")
    if not _sound(header):
        raise ValueError(f"{path / HEADER} lacks entries of the format; it is damaged")
    return header


def _sound(header: dict[str, Any]) -> bool:
    """Whether all entries are there that the rest of this module relies on."""
    try:
        numbers = [header["structures"], header["atoms"], *(header["labels"][k] for k in KINDS)]
        arrays = header["arrays"]
        return (
            all(isinstance(number, int) for number in numbers)
            and min(numbers[:2]) > 0
            and isinstance(header["edges"]["cutoff"], float)
            and isinstance(header["info"], dict)
            and all(name in arrays for name in REQUIRED)
            and all(name in COLUMNS for name in arrays)
            and all({"bytes", "sha256", "dtype"} <= about.keys() for about in arrays.values())
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _map(path: Path, name: str, header: dict[str, Any]) -> np.ndarray:
    """One array, on the disk, checked against the header without reading it."""
    file, about = path / f"{name}.npy", header["arrays"][name]
    if not file.is_file():
        raise ValueError(f"{path} is incomplete: there is no {file.name}; copy the data again")
    size = file.stat().st_size
    if size != about["bytes"]:
        raise ValueError(
            f"{file} must have {about['bytes']} bytes, received {size}: it was cut short or "
            f"replaced; copy the data again"
        )
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    column = COLUMNS[name]
    rows = header["atoms" if column.per_atom else "structures"] + (name == "offsets")
    if array.shape != (rows, *column.shape) or array.dtype.str not in column.types:
        raise ValueError(
            f"{file} must have shape {(rows, *column.shape)} and type {' or '.join(column.types)}, "
            f"received {array.shape} and {array.dtype.str}"
        )
    return array.view(np.ndarray)  # the same memory; slices of a plain array are faster
