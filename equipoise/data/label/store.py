"""What has been done, on the disk: a journal that only grows, and the files made from it.

A unit of work (a structure, or a chunk of a trajectory) is written when it is done, in whatever order that happens: its frames at
the end of ``journal/frames.extxyz``, then one line at the end of ``journal/units.jsonl`` that says how many bytes they take. After
a crash at any moment the journal is cut back to its last complete line. ``labels.extxyz`` is put together from it, in the order of
the units, so that it does not depend on who was faster.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from equipoise.data.label.tasks import Outcome

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder go unnoticed there
    fcntl = None

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StoreError(OSError):
    """A file could not be written; everything that the journal holds is safe."""


class Part(NamedTuple):
    """Frames of one unit that lie together in the journal."""

    start: int  # bytes
    length: int  # bytes
    frames: int


@dataclass
class Unit:
    """How far a structure or a trajectory has come.

    Attributes:
      parts: its frames, in their order.
      step: of a trajectory.
      state: to go on from.
      failure: why it ended early. failed_at: the step at which it did.
    """

    parts: list[Part] = field(default_factory=list)
    step: int | None = None
    state: dict[str, Any] | None = None
    failure: str | None = None
    failed_at: int | None = None

    @property
    def frames(self) -> int:
        return sum(part.frames for part in self.parts)


class Store:
    """The folder of one request.

    Args:
      folder: made if needed.
      fresh: forget what it holds.

    Attributes:
      units: number of the unit -> :class:`Unit`, for those that were begun.
      frames: labelled, in all.
      failures: number of the unit -> why it failed.
      seconds: of all workers so far.

    Raises:
      ValueError: if another run works in the folder, or its journal is gone.
      StoreError: if files cannot be written.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        self.units: dict[int, Unit] = {}
        self.failures: dict[int, str] = {}
        self.frames = 0
        self.seconds = 0.0
        with writing(folder):
            (folder / "journal").mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / "journal" / "lock", "a")
        try:
            self._claim()
            if fresh:
                self._forget()
            elif self.record_file.exists() and not self._lines_file.exists():
                raise ValueError(
                    f"{folder} holds finished labels whose journal is gone, so that nothing can go on from "
                    f"them; use another folder, or start afresh with resume=False, which deletes them"
                )
            self._open()
        except BaseException:
            self._lock.close()
            raise

    @property
    def labels_file(self) -> Path:
        return self.folder / "labels.extxyz"

    @property
    def failures_file(self) -> Path:
        return self.folder / "failures.jsonl"

    @property
    def record_file(self) -> Path:
        return self.folder / "record.json"

    @property
    def _frames_file(self) -> Path:
        return self.folder / "journal" / "frames.extxyz"

    @property
    def _lines_file(self) -> Path:
        return self.folder / "journal" / "units.jsonl"

    def append(self, number: int, outcome: Outcome) -> None:
        """Write down what became of a unit. When this returns, not even kill -9 can undo it.

        Raises:
          StoreError: if the disk refuses; the journal then ends before this outcome.
        """
        text = outcome.text.encode()
        line = {
            "unit": number,
            "bytes": len(text),
            "frames": outcome.frames,
            "seconds": round(outcome.seconds, 4),
            "step": outcome.step,
            "failure": outcome.failure,
            "state": outcome.state,
        }
        with writing(self.folder):
            _write(self._frames, text)
            _write(self._lines, (json.dumps(line) + "\n").encode())
        self._take(line)

    def retry(self) -> int:
        """Forget the failures, so that those units are tried again from their last good state; how many."""
        again = list(self.failures)
        with writing(self.folder):
            for number in again:
                line = {"unit": number, "retry": True}
                _write(self._lines, (json.dumps(line) + "\n").encode())
                self._take(line)
        return len(again)

    def sync(self) -> None:
        """Bring the journal to the disk itself, beyond the reach of a power cut. Frames first: lines promise them."""
        with writing(self.folder):
            os.fsync(self._frames.fileno())
            os.fsync(self._lines.fileno())

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace ``record.json`` in one piece."""
        with self._replacing(self.record_file) as file:
            file.write((json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())

    def assemble(self, failures: list[dict[str, Any]]) -> None:
        """Put ``labels.extxyz`` together, and ``failures.jsonl`` where there are any."""
        self.sync()
        for path in (self.labels_file, self.failures_file):  # an empty one would only mislead
            if not (self.frames if path == self.labels_file else failures):
                path.unlink(missing_ok=True)
        if self.frames:
            with open(self._frames_file, "rb") as source, self._replacing(self.labels_file) as file:
                for _, unit in sorted(self.units.items()):
                    for part in unit.parts:
                        source.seek(part.start)
                        file.write(source.read(part.length))
        if failures:
            with self._replacing(self.failures_file) as file:
                for failure in failures:
                    file.write((json.dumps(failure, ensure_ascii=False) + "\n").encode())

    def close(self) -> None:
        self._frames.close()
        self._lines.close()
        self._lock.close()  # and with it the claim

    def _claim(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another run is making labels in {self.folder}; wait for it, or use another folder"
            ) from error
        except OSError:  # a file system without locks
            return

    def _forget(self) -> None:
        own = (self.labels_file, self.failures_file, self._lines_file, self._frames_file)
        for path in (self.record_file, *own):
            path.unlink(missing_ok=True)

    def _open(self) -> None:
        """Read the journal, cut off what a crash left half done, and open it for more."""
        with writing(self.folder):
            for path in (self._frames_file, self._lines_file):
                path.touch()
            self._size, good, available = 0, 0, self._frames_file.stat().st_size
            with open(self._lines_file, "rb") as file:
                for raw in file:
                    line = _parse(raw)
                    if line is None or self._size + line.get("bytes", 0) > available:
                        break
                    self._take(line)
                    good += len(raw)
            os.truncate(self._lines_file, good)
            os.truncate(self._frames_file, self._size)
            # Unbuffered: what a full disk refused would be tried, and refused, again on closing.
            self._frames = open(self._frames_file, "ab", buffering=0)
            self._lines = open(self._lines_file, "ab", buffering=0)

    def _take(self, line: dict[str, Any]) -> None:
        unit = self.units.setdefault(line["unit"], Unit())
        if line.get("retry"):
            # The frames of the attempt that failed will be made again.
            unit.failure = unit.failed_at = None
            self.frames -= unit.parts.pop().frames
            del self.failures[line["unit"]]
            return
        unit.parts.append(Part(self._size, line["bytes"], line["frames"]))
        self._size += line["bytes"]
        self.frames += line["frames"]
        self.seconds += line["seconds"]
        if line["failure"] is None:
            unit.step, unit.state = line["step"], line["state"]
        else:
            unit.failure, unit.failed_at = line["failure"], line["step"]
            self.failures[line["unit"]] = line["failure"]

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[Any]:
        partial = path.with_name(f"{path.name}.part")
        with writing(self.folder):
            try:
                with open(partial, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error that says what to do.

    Raises:
      StoreError: for any ``OSError``.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        why = "there is no space left" if error.errno in FULL else (error.strerror or str(error))
        raise StoreError(
            f"{folder} cannot be written: {why}. What was finished before is safe: make room or "
            f"correct this, then start the same again to go on",
        ) from error


def _write(file: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _parse(raw: bytes) -> dict[str, Any] | None:
    """A line of the journal; None for one that was cut off."""
    if not raw.endswith(b"\n"):
        return None
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "unit" in line else None
