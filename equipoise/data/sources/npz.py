"""Reading `.npz` archives that came from somewhere else, without trusting them."""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

# Arrays of numbers shrink a few times, all zeros a thousandfold.
LARGEST_RATIO = 200
ALWAYS_ALLOWED = 1 << 30  # bytes of one array, whatever the ratio
# What zipfile raises for members that it cannot decompress or decrypt is a RuntimeError.
_BROKEN = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)


def read_npz(
    path: Path, keys: Sequence[str], *, optional: Sequence[str] = (), sha256: str | None = None
) -> dict[str, np.ndarray]:
    """The named arrays of an archive; nothing pickled is ever loaded.

    **Arguments**: `keys` must be there; those of `optional` are read if they are.

    **Raises** `FileNotFoundError` when there is no such file; `ValueError` when its
    sha256 is not the one given, when it is truncated or no npz archive, when keys are
    missing, and when an array is a pickled Python object or would fill the memory.
    """
    if sha256 is not None and path.is_file():
        _check_sha256(path, sha256)
    with _opened(path) as archive:
        missing = [key for key in keys if key not in archive.files]
        if missing:
            raise ValueError(
                f"{path} lacks {', '.join(missing)}; it holds "
                f"{', '.join(sorted(archive.files)) or 'nothing'}"
            )
        wanted = [*keys, *(key for key in optional if key in archive.files)]
        return {key: _member(archive, key, path) for key in wanted}


def npz_names(path: Path) -> list[str]:
    """Names of the arrays in an archive, none of which is read.

    **Raises** `FileNotFoundError` and `ValueError` as `read_npz` does.
    """
    with _opened(path) as archive:
        return list(archive.files)


def npz_text(path: Path, key: str) -> str | None:
    """A single word that an archive says about itself, such as its unit; None where it says nothing in plain text."""
    with _opened(path) as archive:
        try:
            _refuse_bomb(archive, key, path)
            value = archive[key]
        # Not there, damaged, or a pickled string of an old writer: no word we could do without.
        except (KeyError, ValueError, MemoryError, *_BROKEN):
            return None
    if value.shape not in ((), (1,)) or value.dtype.kind not in "US":
        return None
    text = value.reshape(()).item()
    return text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    # Opened here, because numpy leaves the file open when it turns out to be broken.
    with path.open("rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
        except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
            raise ValueError(
                f"{path} is not a readable .npz archive: truncated, or another kind "
                f"of file ({path.stat().st_size} bytes)"
            ) from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{path} holds a single array; an .npz archive is needed")
        yield archive


def _member(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    _refuse_bomb(archive, key, path)
    try:
        return archive[key]
    except MemoryError as error:
        raise ValueError(
            f"'{key}' in {path} says that it is larger than the memory of this machine ({error}); if it really is, the mapped "
            f"format is for such sets"
        ) from error
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"'{key}' in {path} is a pickled Python object, which could run code "
                f"when loaded and is refused; save it as a plain numeric array"
            ) from error
        raise ValueError(f"'{key}' in {path} cannot be read: {error}") from error
    except _BROKEN as error:
        raise ValueError(
            f"'{key}' in {path} cannot be read; the file is damaged: {error}"
        ) from error


def _refuse_bomb(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> None:
    """A few kilobytes may unpack to more than there is memory; zipfile reads no more of a member than it announces here."""
    names = (f"{key}.npy", key)
    found = next((each for each in archive.zip.infolist() if each.filename in names), None)
    if found is None or found.file_size <= ALWAYS_ALLOWED:
        return
    if found.file_size > LARGEST_RATIO * found.compress_size:
        raise ValueError(
            f"'{key}' in {path} is refused: {found.compress_size:,} bytes that unpack to {found.file_size:,}, as they do in files "
            f"that are made to fill a memory"
        )


def _check_sha256(path: Path, expected: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is not the file it should be: sha256 {found}, expected "
            f"{expected}; install the package again"
        )
