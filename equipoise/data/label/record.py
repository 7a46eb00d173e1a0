"""``record.json``: what the labels are, and where they come from."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from equipoise.data.label.request import differences

FORMAT = "equipoise labels 1"
UNITS = {
    "energy": "eV",
    "forces": "eV/Å",
    "stress": "eV/Å³, Voigt xx yy zz yz xz xy, positive under tension",
}


@dataclass(frozen=True)
class Summary:
    """What has been made.

    Attributes:
      folder, labels_file, failures_file, record_file: where it lies; the failures file only where there are any.
      frames: labelled structures in the file.
      units: structures asked for, or trajectories.
      noun: what a unit is, "structures" or "trajectories".
      failures: number of the unit -> why it failed. A trajectory that failed may have given frames before.
      seconds: of all workers together.
      wall_seconds: of this start.
    """

    folder: Path
    labels_file: Path
    failures_file: Path
    record_file: Path
    frames: int
    units: int
    noun: str
    failures: dict[int, str]
    seconds: float
    wall_seconds: float

    @property
    def seconds_per_frame(self) -> float:
        return self.seconds / max(self.frames, 1)


def check_folder(folder: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The record in ``folder``, if this request may go on there; None if nothing is there. Touches nothing.

    Raises:
      ValueError: if the folder holds another request, with what differs; and if it holds labels that were not made here.
    """
    path = folder / "record.json"
    if not path.exists():
        if (folder / "labels.extxyz").exists():
            raise ValueError(
                f"{folder} holds a labels.extxyz but no record.json to compare with; use another folder, or "
                f"start afresh with resume=False, which deletes it"
            )
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        changed = differences(record["request"], request)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must be the record of labels made earlier, but cannot be read as one "
            f"({type(error).__name__}: {error}); use another folder, or start afresh with resume=False"
        ) from error
    if changed:
        raise ValueError(
            f"{folder} holds the labels of another request: {'; '.join(changed)}. Use another folder, or "
            f"start afresh with resume=False, which deletes them"
        )
    return record


def first_record(
    request: dict[str, Any], *, source: str, before: dict[str, Any] | None
) -> dict[str, Any]:
    """The record while the work goes on."""
    before = before or {}
    return {
        "format": FORMAT,
        "complete": False,
        "request": request,
        "source": source,
        "units": UNITS,
        "energy": "the one whose negative gradient the forces are (ASE's free_energy where there is one)",
        "versions": {
            "equipoise": _version("equipoise"),
            "ase": _version("ase"),
            "numpy": _version("numpy"),
            "python": python_version(),
            "calculator": request["calculator_version"],
        },
        "started": before.get("started", _now()),
        "starts": int(before.get("starts", 0)) + 1,
    }


def final_record(record: dict[str, Any], summary: Summary, *, complete: bool) -> dict[str, Any]:
    """The record when the work has ended, or was stopped."""
    digest = None
    if summary.labels_file.exists():
        with open(summary.labels_file, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return record | {
        "complete": complete,
        "ended": _now(),
        "frames": summary.frames,
        summary.noun: summary.units,
        "failed": len(summary.failures),
        "worker_seconds": round(summary.seconds, 1),
        "worker_seconds_per_frame": round(summary.seconds_per_frame, 5),
        "labels_sha256": digest,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source tree"
