"""Structures in an HDF5 file, read one at a time. Needs the package h5py.

Two layouts are understood.

**Flat**, for files of one's own: the arrays of the mapped format (`mapped.py`) as data sets at the root of the file, namely
``positions`` [N, 3], ``species`` [N], ``offsets`` [n + 1], and where there are such labels ``energy`` [n], ``forces`` [N, 3],
``stress`` [n, 6]; for crystals ``cell`` [n, 3, 3] and ``pbc`` [n, 3]; also ``tags`` and ``fixed`` [N].

**Groups**, one for each molecule, at any depth, as in ANI-1x and SPICE: the atomic numbers once (``atomic_numbers`` [atoms], or
``species`` with element symbols), then ``coordinates`` or ``conformations`` [rows, atoms, 3], and labels with as many rows.

A data set may have an attribute ``units`` ("hartree", "bohr", "hartree/bohr", "kcal/mol", ...) and is converted to eV and Å.
Without one, units are eV and Å in the flat layout, those published with ANI-1x and SPICE for the names that these use, and must
be given for other names: files in the layout of ANI-1 have been published with forces per Å and per bohr. A label whose name ends
in "gradient" is minus the force.
"""

import importlib
import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from equipoise.data.structures import KINDS, Structure, Structures
from equipoise.data.units import energy_unit, force_unit, length_unit
from equipoise.graph import NeighbourList
from equipoise.graph.ase import label_names

SUFFIXES = (".h5", ".hdf5")

# Name of a data set -> its unit where the file does not say; None: it must.
POSITIONS = {"coordinates": "Å", "conformations": "bohr"}
SPECIES = ("atomic_numbers", "species")
LABELS: dict[str, dict[str, str | None]] = {
    # SPICE: P. Eastman et al., Sci. Data 10, 11 (2023). ANI-1x: J. S. Smith et al., Sci. Data 7, 134 (2020).
    "energy": {
        "dft_total_energy": "hartree",
        "wb97x_dz.energy": "hartree",
        "energy": None,
        "energies": None,
    },
    "forces": {
        "dft_total_gradient": "hartree/bohr",
        "wb97x_dz.forces": "hartree/Å",
        "forces": None,
    },
}
_KEPT_OPEN = 256  # molecules

UNIT = {"positions": length_unit, "energy": energy_unit, "forces": force_unit}
FLAT = {"positions": "Å", "cell": "Å", "energy": "eV", "forces": "eV/Å"}
EXAMPLES = {"positions": "bohr", "cell": "bohr", "energy": "hartree", "forces": "hartree/bohr"}


class Hdf5Structures(Structures):
    """The structures of an HDF5 file, in a layout of the module's docstring, as graphs that are made when they are asked for.

    Structures without any periodic direction are centred at the origin, in float64.

    When this is the wrong tool: for training from a compressed file. To read one structure, HDF5 unpacks the whole chunk that it
    is in; convert such a file with :func:`write_mapped` once.

    Args:
      path: a ``.h5`` or ``.hdf5`` file.
      cutoff: Å, of the edges.
      energy_key, forces_key, stress_key: names of the labels, where they are not the usual ones.
      units: "positions", "energy", "forces" -> their unit, for files that do not say: ``{"energy": "hartree"}``.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no HDF5 file or in neither layout, units are unknown or differ between molecules, h5py is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cutoff: float,
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
        units: dict[str, str] | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self.cutoff = NeighbourList(cutoff).cutoff
        self.keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
        self.units = units or {}
        unknown = self.units.keys() - UNIT.keys()
        if unknown:
            raise ValueError(f"units are those of {', '.join(UNIT)}, received {', '.join(unknown)}")
        self._file: Any = None
        self._process = 0
        file = self._open()
        try:
            layout = _Flat if "offsets" in file else _Groups
            self._layout = layout(file, self.keys, self.units)
        except (
            ValueError,
            KeyError,
            OSError,
            TypeError,
            RecursionError,
        ) as error:  # groups in groups in ...
            file.close()
            raise ValueError(f"{self.path} cannot be read: {error}") from error

    def __len__(self) -> int:
        return len(self._layout)

    def __str__(self) -> str:
        return str(self.path)

    def __getstate__(self) -> dict[str, Any]:
        keys = {f"{kind}_key": key for kind, key in self.keys.items()}
        return {"path": self.path, "cutoff": self.cutoff, "units": self.units, **keys}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def structure(self, index: int) -> Structure:
        try:
            return self._layout.structure(self._open(), index).centred()
        except (OSError, KeyError) as error:  # damaged; a symbol of no element
            raise ValueError(f"structure {index} of {self.path} cannot be read: {error}") from error

    def labels(self) -> dict[str, str]:
        return {kind: name for kind, name in self._layout.names.items() if kind in KINDS}

    def contents(self) -> str:
        return f"there are the data sets {self._layout.contents(self._open())}"

    def molecules(self) -> np.ndarray:
        """The group that each structure is from, as numbers [structures]: for :func:`split` without leaks."""
        return self._layout.molecules()

    def _open(self) -> Any:
        # A forked process must not go on with the file that its parent has opened.
        if self._file is None or self._process != os.getpid():
            if not self.path.is_file():
                raise FileNotFoundError(f"there is no file {self.path}")
            try:
                h5py = importlib.import_module("h5py")  # optional, and slow to import
            except ImportError as error:
                raise ValueError(
                    f"{self.path} needs the package h5py, which is not installed: pip install h5py"
                ) from error
            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                raise ValueError(f"{self.path} cannot be read as HDF5: {error}") from error
            self._process = os.getpid()
        return self._file


class _Flat:
    """The arrays of the mapped format at the root of the file."""

    def __init__(self, file: Any, keys: dict[str, str | None], units: dict[str, str]) -> None:
        missing = [name for name in ("positions", "species") if name not in file]
        if missing:
            raise ValueError(f"it has offsets but no {' and no '.join(missing)}")
        self.names = {}
        for kind in KINDS:
            name = label_names(keys, references=False)[kind]
            if name is not None and name in file:
                self.names[kind] = name
            elif keys[kind] is not None:
                raise ValueError(f"there is no {name!r}; it holds {', '.join(sorted(file))}")
        self.offsets = np.asarray(file["offsets"][()], dtype=np.int64)
        rows = {"positions": self.offsets[-1], "species": self.offsets[-1]}
        rows |= {name: self.offsets[-1] for kind, name in self.names.items() if kind == "forces"}
        rows |= {name: len(self) for kind, name in self.names.items() if kind != "forces"}
        rows |= {name: self.offsets[-1] for name in ("tags", "fixed") if name in file}
        rows |= {name: len(self) for name in ("cell", "pbc") if name in file}
        if len(self) < 1 or self.offsets[0] != 0 or (np.diff(self.offsets) < 1).any():
            raise ValueError("offsets must rise from 0, by one atom at least for each structure")
        for name, number in rows.items():
            if len(file[name]) != number:
                raise ValueError(f"{name} must have {number} rows, received {len(file[name])}")
        self.scale = {}
        said: dict[str, bool] = {}
        for name, unit in FLAT.items():
            stored = self.names.get(name) if name in KINDS else name
            if stored is not None and stored in file:
                kind = "positions" if name == "cell" else name
                said[name] = "units" in file[stored].attrs or kind in units
                stated = file[stored].attrs.get("units", units.get(kind, unit))
                self.scale[name] = UNIT[kind](_text(stated))
        for pair in (("energy", "forces"), ("positions", "cell")):
            self._check_stated(pair, said)

    def _check_stated(self, pair: tuple[str, str], said: dict[str, bool]) -> None:
        """Where one of two is in units of its own, nobody can guess those of the other."""
        for name, other in (pair, pair[::-1]):
            if name in said and not said[name] and self.scale.get(other, 1.0) != 1.0:
                mine, theirs = (self.names.get(each, each) for each in (name, other))
                raise ValueError(
                    f"{theirs!r} is in other units than eV and Å, and {mine!r} does not say its unit; set it, such as "
                    f"file[{mine!r}].attrs['units'] = {EXAMPLES[name]!r}"
                )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def structure(self, file: Any, index: int) -> Structure:
        atoms = slice(*self.offsets[index : index + 2].tolist())
        rows = {"positions": atoms, "species": atoms, "tags": atoms, "fixed": atoms}
        rows |= {"cell": index, "pbc": index, "energy": index, "stress": index, "forces": atoms}
        values = {}
        for name, row in rows.items():
            stored = self.names.get(name) if name in KINDS else name
            if stored is not None and stored in file:
                values[name] = file[stored][row]
                if name in self.scale:
                    values[name] = values[name].astype(np.float64) * self.scale[name]
        values["species"] = values["species"].astype(np.int64)
        return Structure(**values)

    def contents(self, file: Any) -> str:
        return ", ".join(sorted(file))

    def molecules(self) -> np.ndarray:
        return np.arange(len(self))


class _Groups:
    """One group for each molecule."""

    def __init__(self, file: Any, keys: dict[str, str | None], units: dict[str, str]) -> None:
        if keys["stress"] is not None:
            raise ValueError(f"groups of molecules have no stress, received {keys['stress']!r}")
        self.groups: list[str] = []
        self.starts: list[int] = [0]  # the first structure of each group, and the end
        self._file: Any = None
        self._open: dict[int, tuple[np.ndarray, dict[str, Any]]] = {}
        self.names: dict[str, str] = {}
        stated: dict[str, str] = {}
        for group in _molecules(file):
            # One file, one meaning: what was found first is what the other molecules must have too, or lack.
            found = _data(group, keys)
            rows = len(group[found["positions"]])
            for kind, name in found.items():
                if len(group[name]) != rows:
                    raise ValueError(
                        f"{group.name}/{name} must have {rows} rows, received {len(group[name])}"
                    )
                unit = _unit(group[name], kind, units)
                before = self.names.setdefault(kind, name), stated.setdefault(kind, unit)
                if before != (name, unit):
                    raise ValueError(
                        f"all molecules must have the same data in the same units; {group.name} has "
                        f"{name} in {unit}, those before {before[0]} in {before[1]}"
                    )
            self.groups.append(group.name)
            self.starts.append(self.starts[-1] + rows)
        if self.starts[-1] == 0:
            raise ValueError(
                "neither offsets, positions and species at the root, nor a group with "
                f"{' or '.join(SPECIES)} and {' or '.join(POSITIONS)}"
            )
        self.scale = {
            kind: UNIT[kind](unit) * (-1 if self.names[kind].endswith("gradient") else 1)
            for kind, unit in stated.items()
        }

    def __len__(self) -> int:
        return self.starts[-1]

    def structure(self, file: Any, index: int) -> Structure:
        number = bisect_right(self.starts, index) - 1
        species, data = self._opened(file, number)
        row = index - self.starts[number]
        values = {kind: d[row].astype(np.float64) * self.scale[kind] for kind, d in data.items()}
        return Structure(species=species, **values)

    def _opened(self, file: Any, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        """The species and the data sets of a molecule. Opening these takes longer than reading a row: some are kept open."""
        if file is not self._file or len(self._open) >= _KEPT_OPEN:
            self._file, self._open = file, {}
        found = self._open.get(number)
        if found is None:
            group = file[self.groups[number]]
            data = {kind: group[name] for kind, name in self.names.items() if name in group}
            found = self._open[number] = _species(group), data
        return found

    def contents(self, file: Any) -> str:
        return ", ".join(sorted(file[self.groups[0]]))

    def molecules(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.groups)), np.diff(self.starts))


def _molecules(group: Any) -> Iterator[Any]:
    """The groups that hold coordinates, at any depth."""
    if any(name in group for name in POSITIONS) and any(name in group for name in SPECIES):
        yield group
        return
    for item in group.values():
        if hasattr(item, "values"):  # a group, not a data set
            yield from _molecules(item)


def _data(group: Any, keys: dict[str, str | None]) -> dict[str, str]:
    """ "positions" and kinds of labels -> the data set of this molecule that holds them."""
    found = {"positions": next(name for name in POSITIONS if name in group)}
    for kind, published in LABELS.items():
        names = published if keys[kind] is None else (keys[kind],)
        name = next((name for name in names if name in group), None)
        if name is not None:
            found[kind] = name
        elif keys[kind] is not None:
            raise ValueError(f"there is no {keys[kind]!r} in {group.name}: {', '.join(group)}")
    return found


def _unit(data: Any, kind: str, given: dict[str, str]) -> str:
    """The unit of a data set: stated in the file, given by the caller, or published."""
    published = POSITIONS if kind == "positions" else LABELS[kind]
    unit = data.attrs.get("units", given.get(kind, published.get(data.name.rpartition("/")[2])))
    if unit is None:
        raise ValueError(
            f"the unit of {data.name} is not known; set its attribute 'units', or give "
            f"units={{{kind!r}: {EXAMPLES[kind]!r}}} to Hdf5Structures"
        )
    return _text(unit)


def _text(stored: Any) -> str:
    return stored.decode() if isinstance(stored, bytes) else str(stored)


def _species(group: Any) -> np.ndarray:
    values = group[next(name for name in SPECIES if name in group)][()]
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    return np.array([atomic_numbers[symbol.decode()] for symbol in values.ravel()])
