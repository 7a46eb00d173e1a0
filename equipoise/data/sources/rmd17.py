"""Revised MD17: ten small molecules, PBE/def2-SVP energies and forces. Ethanol, split 01, is part of this package."""

import difflib
from dataclasses import dataclass, field
from pathlib import Path

import ase.units
import numpy as np

from equipoise.data.download import Remote, cache_folder
from equipoise.data.sources.npz import npz_names, read_npz
from equipoise.data.sources.record import Parts, Query, Source, Variant
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
_FRAMES = ("old_indices",)
# The labels of the original MD17 for the same frames, which the files hold as well.
_OLD_KEYS = ("old_energies", "old_forces")
TARGETS = {
    "revised": "PBE/def2-SVP, tightly converged",
    "original": "the labels of MD17 for the same frames (PBE+vdW-TS), where the files have them",
}


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
    # Which frame of original MD17 each structure is, counted from 0: [structures]. None where the files do not say.
    train_frames: np.ndarray | None = field(default=None, repr=False, compare=False)
    test_frames: np.ndarray | None = field(default=None, repr=False, compare=False)


def rmd17(
    molecule: str = "ethanol",
    split: int = 1,
    *,
    cutoff: float,
    folder: str | Path | None = None,
    target: str = "revised",
) -> Rmd17:
    """One official split of revised MD17, in eV and Angstrom, positions centred.

    **Arguments**

    - `molecule`: one of `MOLECULES`. `split`: 1 to 5.
    - `cutoff`: Angstrom, of the graphs.
    - `folder`: where the files are; None for ethanol split 1, which is shipped, and for
      what `equipoise data download rmd17` fetched. Three layouts are understood:
      `rmd17_<molecule>_train_0<split>.npz` and `..._test_0<split>.npz`; splits 2 to 5
      in one file, `rmd17_<molecule>_splits02-05.npz`, with their frames in
      `idx_train_0<split>` and `idx_test_0<split>`; or that of figshare,
      `rmd17_<molecule>.npz` (100,000 frames; also in `npz_data/`) with
      `index_train_0<split>.csv` and `index_test_0<split>.csv` (also in `splits/`).
    - `target`: "revised", or "original" for the labels of MD17 on the same frames.

    **Raises** `ValueError` for an unknown molecule, split or target and for damaged files;
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
    if target not in TARGETS:
        raise ValueError(f"rMD17 has the targets {' and '.join(TARGETS)}, received {target!r}")
    fetched = cache_folder() / SOURCE.name / "rmd17"  # as the archive of figshare unpacks
    shipped = (molecule, split, target) == ("ethanol", 1, "revised")
    if folder is None and not shipped and not fetched.is_dir():
        raise ValueError(
            f"only ethanol split 1 comes with the package; for {molecule} split {split} run "
            f"`equipoise data download rmd17`, or give the folder that the data set (figshare "
            f"12672038) is in"
        )
    if folder is None and shipped:
        parts = {
            name: read_npz(_SHIPPED / file, _KEYS, optional=_FRAMES, sha256=_SHIPPED_SHA256[file])
            for name, file in (("train", "train_01.npz"), ("test", "test_01.npz"))
        }
        origin = _SHIPPED
    else:
        origin = fetched if folder is None else Path(folder)
        parts = _from_folder(origin, molecule, split, target)
    graphs = {name: _graphs(arrays, cutoff, f"{origin} ({name})") for name, arrays in parts.items()}
    frames = {name: arrays.get("old_indices") for name, arrays in parts.items()}
    return Rmd17(
        molecule, split, **graphs, train_frames=frames["train"], test_frames=frames["test"]
    )


def read_rmd17(path: str | Path, *, cutoff: float) -> list[Graph]:
    """All structures of one official rMD17 file, in eV and Angstrom, centred."""
    path = Path(path)
    return _graphs(read_npz(path, _KEYS), cutoff, str(path))


def _from_folder(folder: Path, molecule: str, split: int, target: str) -> dict[str, dict]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    folder = folder / "rmd17" if (folder / "rmd17").is_dir() else folder
    pair = {name: folder / f"rmd17_{molecule}_{name}_{split:02d}.npz" for name in ("train", "test")}
    if all(path.is_file() for path in pair.values()):
        return {name: _arrays(path, target) for name, path in pair.items()}
    packed = folder / f"rmd17_{molecule}_splits02-05.npz"
    if packed.is_file() and split > 1:
        arrays = _arrays(packed, target)
        rows = read_npz(packed, [f"idx_{name}_{split:02d}" for name in pair])
        return {
            name: _select(arrays, _checked(each, len(arrays["coords"]), f"{packed}: {key}"))
            for (name, (key, each)) in zip(pair, rows.items(), strict=True)
        }
    whole = _first(folder, "npz_data", f"rmd17_{molecule}.npz")
    indices = {name: _first(folder, "splits", f"index_{name}_{split:02d}.csv") for name in pair}
    if whole is None or None in indices.values():
        raise FileNotFoundError(
            f"no rMD17 {molecule} split {split} in {folder}. Looked for "
            f"{pair['train'].name} and {pair['test'].name}; {packed.name} (splits 2 to 5); or rmd17_{molecule}.npz "
            f"(there or in npz_data/) with index_train_{split:02d}.csv and "
            f"index_test_{split:02d}.csv (there or in splits/)"
        )
    arrays = _arrays(whole, target)
    return {
        name: _select(arrays, _read_indices(path, len(arrays["coords"])))
        for name, path in indices.items()
    }


def _arrays(path: Path, target: str) -> dict[str, np.ndarray]:
    """The arrays of a file under the names of the revised labels, whichever labels they are."""
    if target == "revised":
        return read_npz(path, _KEYS, optional=_FRAMES)
    if _OLD_KEYS[0] not in npz_names(path):
        raise ValueError(
            f"{path} lacks {_OLD_KEYS[0]}: it holds the revised labels only; use target revised"
        )
    # Files of split 01 have both; the re-packed splits 02 to 05 lack the old forces.
    arrays = read_npz(path, _KEYS[:2], optional=_OLD_KEYS + _FRAMES)
    names = dict(zip(_OLD_KEYS, _KEYS[2:], strict=True))
    return {names.get(key, key): value for key, value in arrays.items()}


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
    return _checked(indices, frames, str(path))


def _checked(indices: np.ndarray, frames: int, where: str) -> np.ndarray:
    if len(indices) == 0 or indices.min() < 0 or indices.max() >= frames:
        raise ValueError(
            f"{where} must hold frame numbers from 0 to {frames - 1}, received "
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
        if key in arrays and arrays[key].shape != shape:
            raise ValueError(
                f"{origin}: '{key}' must have shape {shape}, received {arrays[key].shape}"
            )
    # The trajectories drift (benzene by 200 Angstrom): centre before any cast.
    coords = coords - coords.mean(axis=1, keepdims=True)
    energies = arrays["energies"].astype(np.float64) * KCAL_PER_MOL
    forces = arrays["forces"].astype(np.float64) * KCAL_PER_MOL if "forces" in arrays else None
    graphs = []
    for index in range(frames):
        try:
            graph = Graph.build(
                coords[index],
                species,
                cutoff=cutoff,
                energy=energies[index],
                forces=None if forces is None else forces[index],
            )
        except ValueError as error:
            raise ValueError(f"structure {index} of {origin}: {error}") from error
        graphs.append(graph)
    return graphs


def _read(query: Query) -> Parts:
    found = rmd17(
        query.variant.name,
        query.split,
        cutoff=query.cutoff,
        folder=query.folder,
        target=query.target,
    )
    return Parts(train=found.train, test=found.test)


SOURCE = Source(
    name="rmd17",
    title="revised MD17 (rMD17)",
    theory="PBE/def2-SVP (ORCA)",
    units="kcal/mol, kcal/mol/Å",
    labels="energy, forces",
    periodic=False,
    licence="CC0-1.0",
    citation="A. S. Christensen, O. A. von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020), arXiv:2007.09593; geometries: "
    "S. Chmiela et al., Sci. Adv. 3, e1603015 (2017)",
    homepage="https://doi.org/10.6084/m9.figshare.12672038",
    subset="a molecule",
    variants=tuple(
        Variant(name=name, structures=99_988 if name == "azobenzene" else 100_000, training=1000)
        for name in MOLECULES
    ),
    default="ethanol",
    official_splits=len(SPLITS),
    splits="five official splits of 1000 training and 1000 test structures, the same frames for all molecules; 50 of the 1000 "
    "choose the best weights. The authors ask to train on no more than 1000: the frames are those of a trajectory.",
    notes="Coordinates drift by up to 200 Å (benzene); they are centred.",
    files=(
        Remote(
            url="https://figshare.com/ndownloader/files/23950376",
            name="rmd17.tar.bz2",
            digest="sha256:cddeea2ec2c4b22a9de16a9a65a3eeedac5b29da9c99c20bbff0153912bf922b",
            size=1_066_301_513,
            unpack=True,
            mirrors=("https://archive.materialscloud.org/records/pfffs-fff86/files/rmd17.tar.bz2",),
        ),
    ),
    targets=TARGETS,
    target_theory={"original": "PBE+vdW-TS (FHI-aims)"},
    read=_read,
    shipped="ethanol, split 1",
)
