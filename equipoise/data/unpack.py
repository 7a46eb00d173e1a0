"""Archives from elsewhere, opened without trusting them."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from equipoise.data.download import CHUNK, alone

MOST_MEMBERS = 2_000_000
# Text of numbers shrinks about tenfold; a bomb a thousandfold and more.
LARGEST_RATIO = 100
ALWAYS_ALLOWED = 64 << 20  # bytes, whatever the ratio

_SINGLE = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# The last is what zipfile raises for ways to compress that it does not know.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
)


class _Member(NamedTuple):
    name: str
    refused: str | None  # why, if it is nothing to be unpacked
    folder: bool
    stream: io.BufferedIOBase | None


def unpack(
    archive: Path, folder: Path, *, limit: int | None = None, console: Console | None = None
) -> list[Path]:
    """Write the files of a .zip, a .tar (also .gz, .bz2, .xz) or a single compressed file below ``folder``.

    An archive is refused as a whole if any of its members would leave ``folder`` (an absolute name, "..", a drive, a link already
    there), is no plain file or folder (a link, a device), or if it grows beyond ``limit``. Files written before that is found out
    are removed. Existing files of the same names are replaced, each at once.

    An archive that was unpacked is not unpacked again: ``ARCHIVE.unpacked`` remembers it.

    Args:
      archive: the file; its kind is told by its name.
      folder: where to; made if it is not there.
      limit: largest number of bytes to write; by default 100 times the size of the archive, or 64 MiB if that is more.
      console: where progress is shown; None for silence.

    Returns:
      the files written, or those written the first time.

    Raises:
      ValueError: for a hostile, damaged or unknown archive.
      OSError: the disk is full or may not be written.
    """
    with alone(archive, console):
        stamp = archive.with_name(archive.name + ".unpacked")
        size = archive.stat().st_size
        if stamp.exists():
            remembered = json.loads(stamp.read_text(encoding="utf-8"))
            written = [folder / name for name in remembered["files"]]
            if remembered["size"] == size and all(path.is_file() for path in written):
                return written
        limit = max(LARGEST_RATIO * size, ALWAYS_ALLOWED) if limit is None else limit
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        try:
            with _status(console, archive.name) as progress:
                _unpack(archive, folder, limit, written, progress)
        except BaseException as error:
            for path in written:
                path.unlink(missing_ok=True)
            # gzip and bz2 raise OSError for damaged data, without the number that the system's own errors have.
            damaged = isinstance(error, OSError) and error.errno is None
            if damaged or isinstance(error, _BROKEN):
                raise ValueError(f"{archive} is damaged, or no archive: {error}") from error
            raise
        names = [path.relative_to(folder).as_posix() for path in written]
        stamp.write_text(json.dumps({"size": size, "files": names}), encoding="utf-8")
        return written


def _unpack(
    archive: Path, folder: Path, limit: int, written: list[Path], progress: Progress
) -> None:
    for member in _members(archive):
        if member.refused:
            raise ValueError(f"{archive} is refused: {member.name!r} {member.refused}")
        if member.folder or _clutter(member.name):
            continue
        target = _inside(folder, member.name, archive)
        limit -= _write(member.stream, target, limit, archive)
        written.append(target)  # only now: what was there before under its name stays if this fails
        progress.advance(progress.task_ids[0])
        if len(written) > MOST_MEMBERS:
            raise ValueError(f"{archive} is refused: more than {MOST_MEMBERS:,} files")


def _members(archive: Path) -> Iterator[_Member]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        yield from _zip_members(archive)
    elif name.endswith(_TARS):
        yield from _tar_members(archive)
    elif archive.suffix.lower() in _SINGLE:
        with _SINGLE[archive.suffix.lower()](archive, "rb") as stream:
            yield _Member(archive.stem, None, False, stream)
    else:
        raise ValueError(f"{archive} must be a .zip, {', '.join(_TARS)}, .gz, .bz2 or .xz")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = info.external_attr >> 28  # the Unix file type, where there is one
            refused = "is no plain file or folder" if kind not in (0, 0o10, 0o4) else None
            if refused or info.is_dir():
                yield _Member(info.filename, refused, info.is_dir(), None)
            elif info.flag_bits & 1:
                yield _Member(info.filename, "is encrypted", False, None)
            else:
                with file.open(info) as stream:
                    yield _Member(info.filename, None, False, stream)


def _tar_members(archive: Path) -> Iterator[_Member]:
    # "|": in one go from beginning to end, which is what compressed files are good at.
    with tarfile.open(archive, "r|*") as file:
        for info in file:
            refused = None if info.isreg() or info.isdir() else "is no plain file or folder"
            stream = file.extractfile(info) if info.isreg() else None
            yield _Member(info.name, refused, info.isdir(), stream)


def _clutter(name: str) -> bool:
    """What macOS leaves in archives."""
    parts = PurePosixPath(name).parts
    return any(part in ("__MACOSX", ".DS_Store") or part.startswith("._") for part in parts)


def _inside(folder: Path, name: str, archive: Path) -> Path:
    """Where a member goes; refused if that is not below ``folder``, links that are there already followed."""
    parts = PurePosixPath(name).parts
    odd = any(character in name for character in ("\\", "\0", ":"))
    if not parts or name.startswith("/") or ".." in parts or odd:
        raise ValueError(f"{archive} is refused: {name!r} would be written outside of {folder}")
    target = folder.joinpath(*parts)
    if not target.resolve().is_relative_to(folder.resolve()) or target.is_symlink():
        raise ValueError(f"{archive} is refused: {name!r} leads outside of {folder} through a link")
    return target


def _write(stream: io.BufferedIOBase, target: Path, limit: int, archive: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    done = 0
    try:
        with partial.open("wb") as file:
            while piece := stream.read(CHUNK):
                done += len(piece)
                if done > limit:
                    raise ValueError(
                        f"{archive} is refused: it grows to more than {LARGEST_RATIO} times its size, as archives do that are "
                        f"made to fill a disk; unpack it yourself if you trust it"
                    )
                file.write(piece)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return done


def _status(console: Console | None, name: str) -> Progress:
    quiet = console is None or not console.is_terminal
    columns = (
        TextColumn("unpacking {task.description}: {task.completed:,} files"),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=console, disable=quiet, transient=True)
    progress.add_task(name, total=None)
    return progress
