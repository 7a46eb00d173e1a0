"""Any file ASE can read, and rMD17's own, as graphs; and how many labels were really found in it."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch

from equipoise.data.sources.rmd17 import read_rmd17
from equipoise.graph import Graph


@dataclass(frozen=True)
class Report:
    """How many structures there are, and how many of them have each label.

    `str(report)` is one line for a person: "1000 structures: 1000 with energy, ...".
    """

    structures: int
    energy: int
    forces: int
    stress: int

    @classmethod
    def of(cls, graphs: Iterable[Graph]) -> "Report":
        """Count the labels of `graphs`; a NaN is a missing label."""
        structures = energy = forces = stress = 0
        for batch in graphs:
            for graph in batch.split() if batch.n_structures > 1 else [batch]:
                structures += 1
                energy += _has(graph.energy)
                forces += _has(graph.forces)
                stress += _has(graph.stress)
        return cls(structures=structures, energy=energy, forces=forces, stress=stress)

    def __str__(self) -> str:
        noun = "structure" if self.structures == 1 else "structures"
        return (
            f"{self.structures} {noun}: {self.energy} with energy, {self.forces} with "
            f"forces, {self.stress} with stress"
        )


def read(
    path: str | Path,
    *,
    cutoff: float,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    labelled: bool = True,
) -> list[Graph]:
    """All structures of a file (extxyz, or anything else ASE reads) with their labels.

    A `.npz` file is read as an official rMD17 file, whose labels have fixed names and units.

    Labels are looked for as `Graph.from_ase` does: `REF_energy`, `REF_forces`,
    `REF_stress` first, then plain `energy`, `forces`, `stress`; with a key given, in
    that key only. Units must be eV, Angstrom, eV/Angstrom, eV/Angstrom^3. Structures
    without any periodic direction are centred at the origin, in float64.

    Show `Report.of(graphs)` to whoever is about to train on them: a label under an
    unexpected name is not an error here as long as another kind was found, only a
    warning that names the candidates.

    **Arguments**

    - `labelled`: refuse a file without one single label (the default). False to read
      structures that are only to be predicted or simulated.

    **Raises** `FileNotFoundError`; `ValueError` when ASE cannot read the file, when it
    holds no structure, when no label was found, and for a structure that is no
    structure (named by its number in the file).
    """
    path = Path(path)
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    if path.suffix == ".npz":
        given = [f"{kind}_key {key!r}" for kind, key in keys.items() if key is not None]
        if given:
            raise ValueError(
                f"the labels of an .npz file of rMD17 have fixed names, received "
                f"{' and '.join(given)} for {path}; leave that out"
            )
        return read_rmd17(path, cutoff=cutoff)
    frames = _frames(path)
    graphs = []
    for index, atoms in enumerate(frames):
        try:
            graph = Graph.from_ase(
                atoms,
                cutoff,
                energy_key=energy_key,
                forces_key=forces_key,
                stress_key=stress_key,
            )
        except ValueError as error:
            raise ValueError(f"structure {index} of {path}: {error}") from error
        graphs.append(_centred(graph))
    if labelled:
        _check_labels(path, Report.of(graphs), frames, keys)
    return graphs


def label_keys(
    path: str | Path, *, energy_key: str | None = None, forces_key: str | None = None
) -> dict[str, str]:
    """Under which key `read` finds each kind of label in the first structure of a file.

    **Returns** such as `{"energy": "REF_energy", "forces": "forces"}`, without the kinds that are
    not there. To be shown: a file may hold energies of two methods, and only its reader knows
    which were meant.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return {"energy": "energies", "forces": "forces"}
    atoms = next(iter(_frames(path, index=0)))
    there = {*atoms.info, *atoms.arrays, *getattr(atoms.calc, "results", {})}
    wanted = {
        "energy": (energy_key,) if energy_key else ("REF_energy", "energy"),
        "forces": (forces_key,) if forces_key else ("REF_forces", "forces"),
        "stress": ("REF_stress", "stress"),
    }
    first = {kind: next((k for k in keys if k in there), None) for kind, keys in wanted.items()}
    return {kind: key for kind, key in first.items() if key is not None}


def _has(label: torch.Tensor | None) -> bool:
    return label is not None and not bool(torch.isnan(label).any())


def _frames(path: Path, index: int | str = ":") -> list[ase.Atoms]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        frames = ase.io.read(path, index=index)
    # Every ASE reader fails in its own way: KeyError, IndexError, OSError, ...
    except Exception as error:
        raise ValueError(f"ASE cannot read {path} ({type(error).__name__}: {error})") from error
    if isinstance(frames, ase.Atoms):  # a single index gives a single structure
        return [frames]
    if len(frames) == 0:
        raise ValueError(f"{path} holds no structures")
    return frames


def _centred(graph: Graph) -> Graph:
    if bool(graph.pbc.any()):
        return graph
    return graph.replace(positions=graph.positions - graph.positions.mean(dim=0))


def _check_labels(
    path: Path,
    report: Report,
    frames: Sequence[ase.Atoms],
    keys: dict[str, str | None],
) -> None:
    for kind, key in keys.items():
        if key is not None and getattr(report, kind) == 0:
            raise ValueError(f"no structure of {path} has the {kind} key '{key}'; {_keys(frames)}")
    if report.energy == report.forces == report.stress == 0:
        raise ValueError(
            f"{path} has no labels: no REF_energy, REF_forces, REF_stress, energy, "
            f"forces or stress in {report.structures} structures; {_keys(frames)}. "
            f"Give energy_key and forces_key if they have other names"
        )
    candidates = sorted(
        {
            key
            for atoms in frames
            for key, value in atoms.arrays.items()
            if "force" in key.lower() and np.shape(value) == (len(atoms), 3)
        }
    )
    if report.forces == 0 and candidates:
        warnings.warn(
            f"{path} has energies but no forces under a known name; is it one of "
            f"{', '.join(candidates)}? Give forces_key to read it",
            stacklevel=3,
        )


def _keys(frames: Sequence[ase.Atoms]) -> str:
    info = sorted({str(key) for atoms in frames for key in atoms.info})
    arrays = sorted({key for atoms in frames for key in atoms.arrays})
    results = sorted({key for a in frames for key in getattr(a.calc, "results", {})})
    return (
        f"found per structure: {', '.join(info + results) or 'nothing'}; per atom: "
        f"{', '.join(arrays)}"
    )
