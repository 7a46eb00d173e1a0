"""A run folder, read: whatever of it is there.

A report is most wanted when something went wrong, so nothing here insists on a complete folder: a
file that is missing is None, a file that cannot be read is None and named in `problems`, and a
table or trajectory cut short by a kill is read as far as it goes.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread
from omegaconf import OmegaConf

Table = dict[str, np.ndarray]  # column name -> one float64 per row, NaN where the cell is empty

# What one file of a run folder may throw when half-written or foreign. IndexError, KeyError and
# AssertionError are how ase's extxyz reader meets a frame that ends early.
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, AssertionError, EOFError)


@dataclass(frozen=True)
class Parity:
    """Reference and predicted labels of the evaluated structures."""

    energy_true: np.ndarray  # eV, one per structure
    energy_pred: np.ndarray  # eV
    forces_true: np.ndarray  # eV/Å, one per Cartesian component
    forces_pred: np.ndarray  # eV/Å
    atoms: np.ndarray | None = None  # of each structure
    energy_mean: np.ndarray | None = None  # eV, what the composition alone says


@dataclass(frozen=True)
class RunFolder:
    """Everything a report shows; each part is None (or empty) where its file is missing."""

    folder: Path
    recipe: dict[str, Any] | None  # recipe.yaml
    log: Table | None  # log.csv: one row per epoch
    evaluation: dict[str, Any] | None  # evaluation.json
    parity: Parity | None  # evaluation.npz
    comparison: dict[str, Any] | None  # comparison.json
    md_log: Table | None  # md/log.csv
    md_summary: dict[str, Any] | None  # md/summary.json
    md_cold: Table | None  # md/cold_passes.csv
    frames: tuple[Atoms, ...]  # md/trajectory.extxyz
    problems: tuple[str, ...]  # files that are there and cannot be read, with the reason

    @property
    def data_name(self) -> str | None:
        """How the run names its data set, if it does."""
        for measured in (self.evaluation, self.comparison):
            if measured and measured.get("data"):
                return str(measured["data"])
        data = (self.recipe or {}).get("data")
        return title_of(data) if isinstance(data, dict) else None

    @property
    def compares_only(self) -> bool:
        """Whether this is the folder of a comparison, and not of one potential."""
        own = (self.recipe, self.log, self.evaluation, self.md_log, self.frames or None)
        return self.comparison is not None and all(each is None for each in own)

    @property
    def n_atoms(self) -> int | None:
        """Atoms of the simulated structure."""
        if self.frames:
            return len(self.frames[0])
        return (self.md_summary or {}).get("atoms")


def read_run(folder: str | Path) -> RunFolder:
    """Reads a run folder.

    Raises:
        FileNotFoundError: if `folder` is not a folder, or holds nothing a report could show.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"a report needs a run folder, and {str(folder)!r} is not one; "
            "`equipoise quickstart` or `equipoise train RECIPE --folder ...` makes one"
        )
    problems: list[str] = []

    def part(name: str, reader: Callable[[Path], Any]) -> Any:
        path = folder / name
        if not path.exists():
            return None
        try:
            return reader(path)
        except _UNREADABLE as error:
            problems.append(f"{name} cannot be read: {type(error).__name__}: {error}")
            return None

    run = RunFolder(
        folder=folder,
        recipe=part("recipe.yaml", _read_yaml),
        log=part("log.csv", read_table),
        evaluation=part("evaluation.json", _read_json),
        parity=part("evaluation.npz", read_parity),
        comparison=part("comparison.json", _read_json),
        md_log=part("md/log.csv", read_table),
        md_summary=part("md/summary.json", _read_json),
        md_cold=part("md/cold_passes.csv", read_table),
        frames=part("md/trajectory.extxyz", read_frames) or (),
        problems=tuple(problems),
    )
    shown = (run.recipe, run.log, run.evaluation, run.comparison, run.md_log, run.frames or None)
    if not problems and all(each is None for each in shown):
        raise FileNotFoundError(
            f"{str(folder)!r} holds no recipe.yaml, log.csv, evaluation.json, comparison.json or md/log.csv: "
            "it is not the folder of an Equipoise run"
        )
    return run


def title_of(data: dict[str, Any]) -> str | None:
    """What the `data` section of a recipe names: "rmd17:aspirin", or the path of a file; of any version, so nothing is checked."""
    source = data.get("source", "rmd17")
    if source == "file":
        return data.get("train")
    subset = data.get("subset") or (data.get("molecule", "ethanol") if source == "rmd17" else None)
    return f"{source}:{subset}" if subset else str(source)


def read_table(path: Path) -> Table | None:
    """Reads a CSV file of numbers; None if it has no complete row.

    Empty cells become NaN. A last line with too few cells, as a killed run leaves it, is dropped.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        header = next(lines, None)
        rows = [row for row in lines if header and len(row) == len(header)]
    if not header or not rows:
        return None
    columns = zip(*rows, strict=True)
    return {
        name: np.array([_number(cell) for cell in column])
        for name, column in zip(header, columns, strict=True)
    }


def read_frames(path: Path) -> tuple[Atoms, ...]:
    """Reads a trajectory as far as it is complete.

    Raises:
        ValueError: if not even the first frame can be read.
    """
    frames: list[Atoms] = []
    try:
        for atoms in iread(path, index=":", format="extxyz"):
            frames.append(atoms)
    except _UNREADABLE as error:
        if not frames:
            raise ValueError(f"no complete frame ({type(error).__name__}: {error})") from error
    if not frames:
        raise ValueError("no frame at all")
    return tuple(frames)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, received {type(value).__name__}")
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    value = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping, received {type(value).__name__}")
    return value


def read_parity(path: Path) -> Parity:
    """Reads an evaluation.npz."""
    with np.load(path, allow_pickle=False) as arrays:
        return Parity(
            energy_true=np.ravel(arrays["energy_true"]).astype(float),
            energy_pred=np.ravel(arrays["energy_pred"]).astype(float),
            forces_true=np.ravel(arrays["forces_true"]).astype(float),
            forces_pred=np.ravel(arrays["forces_pred"]).astype(float),
            # Files of older versions hold the four above only.
            atoms=np.ravel(arrays["atoms"]).astype(float) if "atoms" in arrays else None,
            energy_mean=np.ravel(arrays["energy_mean"]).astype(float)
            if "energy_mean" in arrays
            else None,
        )
