"""Reading `.npz` archives that came from somewhere else, without trusting them."""

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def read_npz(
    path: Path, keys: Sequence[str], *, sha256: str | None = None
) -> dict[str, np.ndarray]:
    """The named arrays of an archive; nothing pickled is ever loaded.

    **Raises** `FileNotFoundError` when there is no such file; `ValueError` when its
    sha256 is not the one given, when it is truncated or no npz archive, when keys are
    missing, and when an array is a pickled Python object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if sha256 is not None:
        _check_sha256(path, sha256)
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
        missing = [key for key in keys if key not in archive.files]
        if missing:
            raise ValueError(
                f"{path} lacks {', '.join(missing)}; it holds "
                f"{', '.join(sorted(archive.files)) or 'nothing'}"
            )
        return {key: _member(archive, key, path) for key in keys}


def _member(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"'{key}' in {path} is a pickled Python object, which could run code "
                f"when loaded and is refused; save it as a plain numeric array"
            ) from error
        raise ValueError(f"'{key}' in {path} cannot be read: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"'{key}' in {path} cannot be read; the file is damaged: {error}"
        ) from error


def _check_sha256(path: Path, expected: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is not the file it should be: sha256 {found}, expected "
            f"{expected}; install the package again"
        )
