"""Databases of the Atomic Simulation Environment, structure by structure.

``.db`` (SQLite) and ``.json`` need ASE alone, ``.aselmdb`` (LMDB with JSON inside, in which the Open Catalyst and Open Molecules
sets are published) the package lmdb.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase.calculators.calculator import all_properties
from ase.constraints import FixAtoms
from ase.db.core import Database
from ase.db.row import AtomsRow

from equipoise.data.aselmdb import AseLmdb, open_lmdb
from equipoise.data.remarks import Said, remarks, spread
from equipoise.data.structures import KINDS, Structure, Structures
from equipoise.data.units import energy_unit, force_unit, length_unit
from equipoise.graph import NeighbourList
from equipoise.graph.ase import label_names

SUFFIXES = (".db", ".json", ".aselmdb")


class AseDatabase(Structures):
    """The rows of an ASE database, in the order of their ids, as graphs that are made when they are asked for.

    A label is looked for under ``REF_energy`` (``REF_forces``, ``REF_stress``) among the key-value pairs and the data of a row, if
    there are any such in the database; otherwise in the results of its calculator, as ASE stores them, and under plain ``energy``
    among the data, where SchNetPack puts it. With a key given, in the key-value pairs, the data and the results under that name
    only. Rows that are spread over the database decide which it is, and a row that turns out to be otherwise is refused. Forces are
    those of the calculator, not those with constraints applied; atoms held by ``FixAtoms`` are marked as fixed. Structures without
    any periodic direction are centred at the origin, in float64.

    Units are eV and Å, unless the metadata of the database say otherwise in SchNetPack's way (``_property_unit_dict``,
    ``_distance_unit``): then they are converted.

    When this is the wrong tool: for training on many small structures. A row takes some 0.2 ms (SQLite) and its text has to be
    read again every epoch; :func:`write_mapped` makes a folder of it that is several times faster.

    Args:
      path: a ``.db``, ``.json`` or ``.aselmdb`` file.
      cutoff: Å, of the edges.
      energy_key, forces_key, stress_key: names of the labels, where they are not the usual ones.
      free_atoms_only: leave out the forces on fixed atoms (they become missing labels).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no ASE database, it is empty, or a package is missing that reads it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cutoff: float,
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
        free_atoms_only: bool = False,
    ) -> None:
        self.path = Path(path).absolute()
        self.cutoff = NeighbourList(cutoff).cutoff
        self.keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
        self.free_atoms_only = free_atoms_only
        self._handles = threading.local()
        self._references: bool | None = None  # not yet looked for
        self._rows: list[AtomsRow] | None = (
            None  # of a .json file, which can only be read as a whole
        )
        database = self._database()
        try:
            if self.path.suffix == ".json":
                self._rows = list(database.select())
                self._ids = np.arange(len(self._rows))
            else:
                self._ids = database.ids if isinstance(database, AseLmdb) else _ids(database)
            self._metadata = dict(database.metadata)
        # Every backend fails in its own way on a file that is damaged.
        except Exception as error:
            raise self._unreadable(error) from error
        if len(self._ids) == 0:
            raise ValueError(f"{self.path} holds no structures")

    def __len__(self) -> int:
        return len(self._ids)

    def __str__(self) -> str:
        return str(self.path)

    def __getstate__(self) -> dict[str, Any]:
        keys = {f"{kind}_key": key for kind, key in self.keys.items()}
        return {
            "path": self.path,
            "cutoff": self.cutoff,
            "free_atoms_only": self.free_atoms_only,
            **keys,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def structure(self, index: int) -> Structure:
        row = self._row(index)
        held = np.zeros(row.natoms, dtype=bool)
        for constraint in row.constraints:
            if isinstance(constraint, FixAtoms):
                held[constraint.index] = True
        self._check_references(row)
        found = {kind: self._label(row, kind) for kind in KINDS}
        scale = length_unit(self._metadata.get("_distance_unit", "Å"))
        structure = Structure(
            positions=np.asarray(row.positions, dtype=np.float64) * scale,
            species=np.asarray(row.numbers),
            cell=np.asarray(row.cell, dtype=np.float64) * scale,
            pbc=np.asarray(row.pbc),
            tags=row.get("tags"),
            fixed=held if held.any() else None,
            **found,
        ).centred()
        return structure.free() if self.free_atoms_only else structure

    def labels(self) -> dict[str, str]:
        rows = [self._row(index) for index in spread(len(self))]
        names = self._names()
        return {
            kind: str(names[kind])
            for kind in KINDS
            if any(self._label(row, kind) is not None for row in rows)
        }

    def remarks(self) -> list[str]:
        said = [_said_by(self._row(index)) for index in spread(len(self))]
        return remarks(said, self.keys, references=self._has_references(), where=str(self))

    def contents(self) -> str:
        row = self._row(0)
        results = [name for name in all_properties if name in row]
        return (
            f"the first row has the key-value pairs {_named(row.key_value_pairs)}, the data "
            f"{_named(row.data)} and the results {_named(results)}"
        )

    def _label(self, row: AtomsRow, kind: str) -> Any:
        """A label in eV and Å, or None."""
        name, pairs, data = self._names()[kind], row.key_value_pairs, row.data
        if name is None:
            return None
        # A pair or a datum may have the name of a result; the row itself then shows that one.
        result = None if name in pairs else row.get(name)
        stored = [pairs.get(name), data.get(name)]
        places = [result, *stored] if name == kind else [*stored, result]
        value = next((value for value in places if value is not None), None)
        return None if value is None else self._converted(kind, name, value)

    def _names(self) -> dict[str, str | None]:
        return label_names(self.keys, self._has_references())

    def _has_references(self) -> bool:
        """Whether there are REF_ labels, by the rows that are looked at."""
        if self._references is None:
            rows = (self._row(index) for index in spread(len(self)))
            self._references = any(map(_references_in, rows))
        return self._references

    def _check_references(self, row: AtomsRow) -> None:
        """Where not every row was looked at, one may turn out to be of another method than those that were."""
        chosen = self.keys["energy"] and self.keys["forces"]
        if not chosen and not self._has_references() and _references_in(row):
            raise ValueError(
                "it has REF_ labels, which rows that were looked at before have not; labels of two methods are not mixed. Give "
                "energy_key and forces_key to say which are meant"
            )

    def _converted(self, kind: str, name: str, value: Any) -> Any:
        units = self._metadata.get("_property_unit_dict", {})
        unit, energy = units.get(name), units.get(self._names()["energy"])
        if kind == "stress":
            return value
        if unit is None and kind == "forces" and energy is not None and energy_unit(energy) != 1.0:
            raise ValueError(
                f"its metadata must say the unit of {name}, as they say that of the energies ({energy}), in _property_unit_dict: "
                f"forces may be per bohr or per Å"
            )
        if unit is None:
            return value
        factor = energy_unit(unit) if kind == "energy" else force_unit(unit)
        return np.asarray(value, dtype=np.float64) * factor

    def _row(self, index: int) -> AtomsRow:
        if self._rows is not None:
            return self._rows[index]
        database, id = self._database(), int(self._ids[index])
        try:
            return database.row(id) if isinstance(database, AseLmdb) else database.get(id=id)
        except Exception as error:
            raise self._unreadable(error) from error

    def _database(self) -> Database | AseLmdb:
        """The open database, one for each process and, with SQLite, for each thread."""
        found = getattr(self._handles, "database", None)
        if found is None or self._handles.process != os.getpid():
            found = self._handles.database = self._connect()
            self._handles.process = os.getpid()
        return found

    def _connect(self) -> Database | AseLmdb:
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {self.path}")
        try:
            if self.path.suffix == ".aselmdb":
                return open_lmdb(self.path)
            if self.path.suffix == ".db":
                return _open_sqlite(self.path)
            return ase.db.connect(self.path, use_lock_file=False, serial=True)
        except ImportError as error:
            raise ValueError(
                f"{self.path} needs the package lmdb, which is not installed: pip install lmdb"
            ) from error
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path} cannot be read as an ASE database ({type(error).__name__}: {error})"
        )


def _references_in(row: AtomsRow) -> bool:
    return any(
        f"REF_{kind}" in store for store in (row.key_value_pairs, row.data) for kind in KINDS
    )


def _said_by(row: AtomsRow) -> Said:
    results = {name: row.get(name) for name in all_properties if name in row}
    return Said.of(row.natoms, {**row.data, **results, **row.key_value_pairs})


def _named(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "(none)"


def _open_sqlite(path: Path) -> Database:
    # Looked at first, without the right to write: in a file of somebody else's tables ASE would make its own.
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        query = "SELECT COUNT(*) FROM sqlite_master WHERE name = 'systems'"
        if connection.execute(query).fetchone()[0] == 0:
            raise ValueError("it has no table of systems")
    database = ase.db.connect(path, use_lock_file=False, serial=True)
    # Entered for good: otherwise a connection is made for every row, which is most of the time that a row takes.
    database.__enter__()
    weakref.finalize(database, _close, database.connection)
    return database


def _close(connection: sqlite3.Connection) -> None:
    try:
        connection.close()
    except sqlite3.ProgrammingError:  # of a thread that has ended; SQLite closes it with the object
        pass


def _ids(database: Database) -> np.ndarray:
    with database.managed_connection() as connection:
        rows = connection.execute("SELECT id FROM systems ORDER BY id").fetchall()
    return np.array([row[0] for row in rows], dtype=np.int64)
