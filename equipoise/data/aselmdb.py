"""ASE databases in LMDB files (``.aselmdb``), as ase-db-backends writes them. Needs the package lmdb.

Each value is zlib-compressed JSON: the rows under their ids "1", "2", ..., then "nextid", "deleted_ids" and "metadata". Read here
rather than by ase-db-backends, whose objects cannot be used after a fork and which brings drivers of three other databases along.
"""

import importlib
import os
import threading
import weakref
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import all_properties
from ase.db.row import AtomsRow
from ase.io.jsonio import decode


class AseLmdb:
    """One such file, open for reading; used by all data sets and threads of a process, as LMDB opens a file only once in each.

    Attributes:
      ids: [rows] of the rows that there are, ascending.
      metadata: of the database.
    """

    def __init__(self, path: Path) -> None:
        lmdb = importlib.import_module("lmdb")  # optional
        self.process = os.getpid()
        # Without locks, for folders that belong to somebody else; without reading ahead, as rows are read at random.
        self._environment = lmdb.open(
            str(path), subdir=False, readonly=True, lock=False, readahead=False
        )
        deleted = np.array(self._value("deleted_ids", []), dtype=np.int64)
        self.ids = np.setdiff1d(np.arange(1, self._value("nextid", 1)), deleted)
        self.metadata = dict(self._value("metadata", {}))

    def row(self, id: int) -> AtomsRow:
        """The row with this id."""
        values = self._value(str(id), None)
        if values is None:
            raise KeyError(f"there is no row {id}")
        for name in all_properties:  # JSON makes lists of small arrays
            if isinstance(values.get(name), list):
                values[name] = np.array(values[name])
        return AtomsRow({**values, "id": id})

    def close(self) -> None:
        self._environment.close()

    def _value(self, key: str, default: Any) -> Any:
        with self._environment.begin() as transaction:
            stored = transaction.get(key.encode())
        return default if stored is None else decode(zlib.decompress(stored).decode())


_OPEN: "weakref.WeakValueDictionary[Path, AseLmdb]" = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def open_lmdb(path: Path) -> AseLmdb:
    """The file, opened in this process now or before.

    Raises:
      ImportError: lmdb is not installed. Other errors are those of lmdb, for files that it cannot read.
    """
    path = path.resolve()
    with _LOCK:
        found = _OPEN.get(path)
        if found is not None and found.process != os.getpid():
            found.close()  # opened before a fork: it stays the parent's, who does not notice
            found = None
        if found is None:
            found = _OPEN[path] = AseLmdb(path)
        return found
