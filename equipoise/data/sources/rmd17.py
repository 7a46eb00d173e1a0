"""Revised MD17: ten small molecules, PBE/def2-SVP energies and forces.

A. S. Christensen, O. A. von Lilienfeld, "On the role of gradients for machine learning
of molecular energies and forces", Mach. Learn.: Sci. Technol. 1, 045018 (2020),
arXiv:2007.09593. Data: figshare 12672038 (CC0-1.0). Ethanol, split 01, is part of this
package (see `rmd17_ethanol/README.md`).
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path

import ase.units
import numpy as np

from equipoise.data.sources.npz import read_npz
from equipoise.graph import Graph

KCAL_PER_MOL = ase.units.kcal / ase.units.mol  # eV

MOLECULES = (
    "aspirin",
    "azobenzene",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
)
SPLITS = (1, 2, 3, 4, 5)

_SHIPPED = Path(__file__).parent / "rmd17_ethanol"
_SHIPPED_SHA256 = {
    "train_01.npz": "977335fe9cf181249869eca0f14f98e5de0afc28551e58df526426fe6a8168f2",
    "test_01.npz": "4f1530dcc69ccf3094d43089f4870d1871d1fbb155407c8d2c4f4e97fbcd72f9",
}
_KEYS = ("nuclear_charges", "coords", "energies", "forces")


@dataclass(frozen=True)
class Rmd17:
    """One official split of one molecule, in the order of the official files.

    The usual protocol trains on 950 of the 1000 `train` structures and validates on
    the other 50 (`equipoise.data.split`); `test` is for testing only.
    """

    molecule: str
    split: int
    train: list[Graph] = field(repr=False)
    test: list[Graph] = field(repr=False)


def rmd17(
    molecule: str = "ethanol",
    split: int = 1,
    *,
    cutoff: float,
    folder: str | Path | None = None,
) -> Rmd17:
    """One official split of revised MD17, in eV and Angstrom, positions centred.

    **Arguments**

    - `molecule`: one of `MOLECULES`. `split`: 1 to 5.
    - `cutoff`: Angstrom, of the graphs.
    - `folder`: where the files are; None for ethanol split 1, which is shipped. Two
      layouts are understood: `rmd17_<molecule>_train_0<split>.npz` and
      `..._test_0<split>.npz`; or that of figshare, `rmd17_<molecule>.npz` (100,000
      frames; also in `npz_data/`) with `index_train_0<split>.csv` and
      `index_test_0<split>.csv` (also in `splits/`).

    **Raises** `ValueError` for an unknown molecule or split and for damaged files;
    `FileNotFoundError`, naming the files looked for, when they are not there.
    """
    if molecule not in MOLECULES:
        close = difflib.get_close_matches(molecule.lower(), MOLECULES, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(
            f"unknown rMD17 molecule '{molecule}'; {hint}Known are {', '.join(MOLECULES)}"
        )
    if split not in SPLITS:
        raise ValueError(f"rMD17 has splits 1 to 5, received {split}")
    if folder is None:
        if (molecule, split) != ("ethanol", 1):
            raise ValueError(
                f"only ethanol split 1 comes with the package; for {molecule} split "
                f"{split} download the data set (figshare 12672038) and give the "
                f"folder it is in"
            )
        parts = {
            name: read_npz(_SHIPPED / file, _KEYS, sha256=_SHIPPED_SHA256[file])
            for name, file in (("train", "train_01.npz"), ("test", "test_01.npz"))
        }
        origin = _SHIPPED
    else:
        origin = Path(folder)
        parts = _from_folder(origin, molecule, split)
    graphs = {name: _graphs(arrays, cutoff, f"{origin} ({name})") for name, arrays in parts.items()}
    return Rmd17(molecule, split, train=graphs["train"], test=graphs["test"])


def read_rmd17(path: str | Path, *, cutoff: float) -> list[Graph]:
    """All structures of one official rMD17 file, in eV and Angstrom, centred."""
    path = Path(path)
    return _graphs(read_npz(path, _KEYS), cutoff, str(path))


def _from_folder(folder: Path, molecule: str, split: int) -> dict[str, dict]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    pair = {name: folder / f"rmd17_{molecule}_{name}_{split:02d}.npz" for name in ("train", "test")}
    if all(path.is_file() for path in pair.values()):
        return {name: read_npz(path, _KEYS) for name, path in pair.items()}
    whole = _first(folder, "npz_data", f"rmd17_{molecule}.npz")
    indices = {name: _first(folder, "splits", f"index_{name}_{split:02d}.csv") for name in pair}
    if whole is None or None in indices.values():
        raise FileNotFoundError(
            f"no rMD17 {molecule} split {split} in {folder}. Looked for "
            f"{pair['train'].name} and {pair['test'].name}; or rmd17_{molecule}.npz "
            f"(there or in npz_data/) with index_train_{split:02d}.csv and "
            f"index_test_{split:02d}.csv (there or in splits/)"
        )
    arrays = read_npz(whole, _KEYS)
    return {
        name: _select(arrays, _read_indices(path, len(arrays["coords"])))
        for name, path in indices.items()
    }


def _first(folder: Path, inner: str, name: str) -> Path | None:
    for path in (folder / name, folder / inner / name):
        if path.is_file():
            return path
    return None


def _read_indices(path: Path, frames: int) -> np.ndarray:
    try:
        indices = np.array([int(line) for line in path.read_text().split()])
    except ValueError as error:
        raise ValueError(f"{path} must hold one frame number per line: {error}") from error
    if len(indices) == 0 or indices.min() < 0 or indices.max() >= frames:
        raise ValueError(
            f"{path} must hold frame numbers from 0 to {frames - 1}, received "
            f"{len(indices)} numbers"
            + (f" from {indices.min()} to {indices.max()}" if len(indices) else "")
        )
    return indices


def _select(arrays: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {
        key: value if key == "nuclear_charges" else value[rows] for key, value in arrays.items()
    }


def _graphs(arrays: dict[str, np.ndarray], cutoff: float, origin: str) -> list[Graph]:
    species = arrays["nuclear_charges"].astype(np.int64)
    coords = arrays["coords"].astype(np.float64)
    frames = len(coords)
    shapes = {
        "coords": (frames, len(species), 3),
        "forces": (frames, len(species), 3),
        "energies": (frames,),
    }
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise ValueError(
                f"{origin}: '{key}' must have shape {shape}, received {arrays[key].shape}"
            )
    # The trajectories drift (benzene by 200 Angstrom): centre before any cast.
    coords = coords - coords.mean(axis=1, keepdims=True)
    energies = arrays["energies"].astype(np.float64) * KCAL_PER_MOL
    forces = arrays["forces"].astype(np.float64) * KCAL_PER_MOL
    graphs = []
    for index in range(frames):
        try:
            graph = Graph.build(
                coords[index],
                species,
                cutoff=cutoff,
                energy=energies[index],
                forces=forces[index],
            )
        except ValueError as error:
            raise ValueError(f"structure {index} of {origin}: {error}") from error
        graphs.append(graph)
    return graphs
