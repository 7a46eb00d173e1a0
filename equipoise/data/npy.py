"""A `.npy` file written row by row, of which nobody knows the length beforehand."""

import hashlib
import os
from pathlib import Path

import numpy as np

_BUFFER = 1 << 18  # bytes; many structures in one write


class NpyWriter:
    """Appends rows to a new `.npy` file; the header gets the number of rows when the file is closed.

    Args:
      path: of the file, which must not exist.
      dtype: of the numbers, little-endian.
      shape: of one row.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, np.dtype(dtype), shape
        self.rows = 0
        self._sha256 = hashlib.sha256()
        self._file = path.open("xb", buffering=_BUFFER)
        self._header_bytes = self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Add rows: [n, *shape]."""
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        assert rows.shape[1:] == self.shape
        data = rows.data.cast("B")
        self._file.write(data)
        self._sha256.update(data)
        self.rows += len(rows)

    def fill(self, rows: int, value: float) -> None:
        """Add `rows` rows of the same value."""
        chunk = np.full((min(rows, 100_000), *self.shape), value, dtype=self.dtype)
        for start in range(0, rows, 100_000):
            self.append(chunk[: min(100_000, rows - start)])

    def close(self) -> dict[str, object]:
        """Finish the file and wait until it is on the disk; its type, shape, size and checksum."""
        self._file.seek(0)
        # numpy leaves room in the header for a first axis of up to 21 digits, so that it keeps its length.
        assert self._write_header() == self._header_bytes
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {
            "dtype": self.dtype.str,
            "shape": [self.rows, *self.shape],
            "bytes": self.path.stat().st_size,
            "sha256": self._sha256.hexdigest(),
        }

    def discard(self) -> None:
        """Give the file up, whatever state it is in."""
        try:
            self._file.close()
        except OSError:  # what was still in the buffer did not fit on the disk either
            pass

    def _write_header(self) -> int:
        header = {
            "descr": self.dtype.str,
            "fortran_order": False,
            "shape": (self.rows, *self.shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


def data_sha256(path: Path) -> str:
    """The sha256 of the numbers in a `.npy` file: of all that follows its header."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        digest = hashlib.sha256()
        while block := file.read(_BUFFER):
            digest.update(block)
    return digest.hexdigest()
