"""Files of a simulation that survive being killed at any moment.

The log and the trajectory only grow, and the checkpoint notes how long they were when
it was written. A restart cuts them back to that length, so that the steps after the
checkpoint, which will be made again, leave no second copy and no half line. The
checkpoint itself is replaced in one piece, or not at all.
"""

import errno
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Disk full, quota exceeded, file-size limit reached.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFullError(OSError):
    """There was no space left to write; the previous checkpoint is intact."""


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" into an error that says what was lost and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            error.errno,
            f"no space left to write {path.name} ({error.strerror}); the last "
            f"checkpoint in this folder is intact: free some space and run the same "
            f"again to continue from it",
            str(path),
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other simulations out of an existing folder; the lock goes with the process, however that ends.

    **Raises** `ValueError` if one is going on there.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"a simulation is going on in {folder} at this moment; wait for it or stop it, or choose another folder"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


class AppendFile:
    """A text file that grows, and can be cut back to a noted length.

    **Arguments**

    - `path`: the file.
    - `keep`: bytes to keep of an existing file; None starts an empty one.
    - `header`: written at the top of an empty one.

    **Raises** `ValueError` if the file is shorter than `keep`; `DiskFullError`.
    """

    def __init__(self, path: Path, *, keep: int | None, header: str = "") -> None:
        self.path = path
        if keep is None:
            self._file = open(path, "wb", buffering=0)
            self.write(header)
            return
        size = path.stat().st_size if path.exists() else 0
        if size < keep:
            raise ValueError(
                f"{path} must hold the {keep} bytes that the checkpoint counts on, "
                f"received {size}; it was changed or deleted since. Restore it, or "
                f"start again (resume=False, or another folder)"
            )
        os.truncate(path, keep)
        self._file = open(path, "ab", buffering=0)

    def write(self, text: str) -> None:
        # Unbuffered: what a full disk refused would be tried again, and refused again,
        # on closing. One call may take only a part; the next then says why.
        data = memoryview(text.encode())
        with explain_full_disk(self.path):
            while data:
                data = data[self._file.write(data) :]

    def sync(self) -> int:
        """Bring everything to the disk; the length in bytes."""
        with explain_full_disk(self.path):
            os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz in one piece: after a crash the file is the old one or the new one.

    **Raises** `DiskFullError`, with the old file intact.
    """
    # Packed in memory: a zip file on a full disk fails a second time while closing,
    # with an error that no longer says why.
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    temporary = path.with_name(path.name + ".part")
    try:
        with explain_full_disk(path):
            with open(temporary, "wb") as file:
                file.write(packed.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote; nothing pickled is ever loaded.

    **Raises** `ValueError` if the file is not a complete npz of plain arrays.
    """
    try:
        # Opened here: np.load leaves the file open when it is not what it should be.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be a complete npz checkpoint, but reading it failed "
            f"({error}); start again (resume=False, or another folder)"
        ) from error


def _sync_folder(folder: Path) -> None:
    # The new name is only safe once the folder itself is on the disk.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
