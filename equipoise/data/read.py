"""Structures from whatever a path is: a file ASE can read, an `.npz` trajectory, a database, HDF5, a mapped folder."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import ase
import ase.io

from equipoise.data import ase_database, hdf5
from equipoise.data.ase_database import AseDatabase
from equipoise.data.extxyz import SUFFIXES
from equipoise.data.hdf5 import Hdf5Structures
from equipoise.data.mapped import MappedStructures
from equipoise.data.remarks import Said, remarks
from equipoise.data.sources.extxyz_frames import labels_in_text
from equipoise.data.sources.trajectory import read_trajectory
from equipoise.data.structures import KINDS, Report, Structure, Structures, each_structure
from equipoise.graph import Graph
from equipoise.graph.ase import find_labels, has_references, label_names


def read(
    path: str | Path,
    *,
    cutoff: float,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    labelled: bool = True,
) -> Sequence[Graph]:
    """All structures of a file or folder, with their labels.

    What is read is decided by the path:

    - a folder: the mapped format (:func:`write_mapped`);
    - ``.h5``, ``.hdf5``: HDF5 (:class:`Hdf5Structures`); ``.db``, ``.json``, ``.aselmdb``: a database of ASE
      (:class:`AseDatabase`);
    - ``.npz``: rMD17, sGDML or DeePMD arrays (:func:`read_trajectory`), whose labels have fixed names;
    - anything else: extxyz, or what else ASE reads.

    The last come as a list; the graphs of the others are made when they are asked for. Labels are looked for as
    `Graph.from_ase` does: `REF_energy`, `REF_forces`, `REF_stress` if the file has any of them, else plain `energy`,
    `forces`, `stress`; with a key given, in that key only, and a stress without a key then only if energy and forces are in
    their usual ones. Units must be eV, Å, eV/Å, eV/Å³, unless the file states
    others (`.npz`, HDF5, databases). A label that is NaN is missing; so is the force on an atom, if all three components are.
    Structures without any periodic direction are centred at the origin, in float64 (those of a mapped folder are as they
    were written).

    Show `Report.of(graphs)` to whoever is about to train on them: a label under an unexpected name is not an error here as long
    as another kind was found, only a warning that names the candidates. So are plain labels beside `REF_` labels, virials, and
    a `free_energy` that differs from the energy.

    Args:
      path: the file or folder.
      cutoff: Å, of the edges.
      energy_key, forces_key, stress_key: names of the labels, where they are not the usual ones.
      labelled: refuse a file without one single label (the default). False to read structures that are only to be predicted or
        simulated.

    Raises:
      FileNotFoundError: there is nothing at this path.
      ValueError: it cannot be read; it holds no structure or no label; a structure is none (named by its number in the file; in
        data that are not read into memory, when it is asked for); Python objects would have to be unpickled.
    """
    path = Path(path)
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    _refuse_pickles(path)
    lazy = _open(path, cutoff, keys)
    if lazy is not None:
        if labelled:
            check_lazy_labels(lazy, keys)
            _warn(lazy.remarks())
        return lazy
    frames = _frames(path)
    references = any(has_references(atoms) for atoms in frames)
    graphs = []
    for index, atoms in enumerate(frames):
        try:
            graph = Structure.from_ase(atoms, keys, references=references).graph(cutoff)
        except ValueError as error:
            raise ValueError(f"structure {index} of {path}: {error}") from error
        graphs.append(_centred(graph))
    if labelled:
        _check_labels(path, Report.of(graphs), frames, keys)
        said = [Said.by_atoms(atoms) for atoms in frames]
        _warn(remarks(said, keys, references=references, where=str(path)))
    return graphs


def label_keys(
    path: str | Path,
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
) -> dict[str, str]:
    """Under which key `read` finds each kind of label in a file.

    **Returns** such as `{"energy": "REF_energy", "forces": "forces"}`, without the kinds that are
    not there. To be shown: a file may hold energies of two methods, and only its reader knows
    which were meant.
    """
    path = Path(path)
    _refuse_pickles(path)
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    lazy = _open(path, 1.0, keys)  # no edges are made
    if lazy is not None:
        return lazy.labels()
    if path.suffix in SUFFIXES and path.is_file():
        return labels_in_text(path.read_bytes(), keys)
    frames = _frames(path)
    names = label_names(keys, any(has_references(atoms) for atoms in frames))
    every = [find_labels(atoms, names) for atoms in frames]
    return {
        kind: name
        for kind, name in names.items()
        if name is not None and any(found[kind] is not None for found in every)
    }


def _open(path: Path, cutoff: float, keys: dict[str, str | None]) -> Structures | None:
    """A data set that is not read into memory, if the path is one."""
    named = {f"{kind}_key": key for kind, key in keys.items()}
    if path.suffix in hdf5.SUFFIXES:
        return Hdf5Structures(path, cutoff=cutoff, **named)
    if path.suffix in ase_database.SUFFIXES:
        return AseDatabase(path, cutoff=cutoff, **named)
    if path.suffix == ".npz":
        _refuse_keys(path, keys, "the labels of an .npz file")
        return read_trajectory(path, cutoff=cutoff)
    if path.is_dir():
        _refuse_keys(path, keys, "the labels of a mapped data set")
        return MappedStructures(path, cutoff=cutoff)
    return None


def _refuse_keys(path: Path, keys: dict[str, str | None], what: str) -> None:
    given = [f"{kind}_key {key!r}" for kind, key in keys.items() if key is not None]
    if given:
        raise ValueError(
            f"{what} have fixed names, received {' and '.join(given)} for {path}; leave that out"
        )


def _refuse_pickles(path: Path) -> None:
    """An LMDB of other libraries holds pickled Python objects."""
    if path.suffix == ".lmdb" or (path / "data.mdb").is_file():
        raise ValueError(
            f"{path} is an LMDB of pickled Python objects (as OC20 was first published in, or of "
            f"other training libraries), which can run any code when they are loaded: Equipoise "
            f"never does. Take the extxyz or .aselmdb files of the same data; or write them as "
            f"extxyz with the library that made them, where you trust it. If it is an ASE "
            f"database, rename it to .aselmdb"
        )


def check_lazy_labels(graphs: Structures, keys: dict[str, str | None]) -> None:
    """Refuse data without labels, or without those of a key; looks no further than to the first label of each kind.

    **Raises** `ValueError`.
    """
    wanted = {kind for kind, key in keys.items() if key is not None}
    found: set[str] = set()
    for structure in each_structure(graphs):
        found |= {kind for kind in KINDS if structure.knows(kind)}
        if found >= wanted and found:
            return
    for kind in sorted(wanted - found):
        raise ValueError(
            f"no structure of {graphs} has the {kind} key '{keys[kind]}'; {graphs.contents()}"
        )
    raise ValueError(
        f"{graphs} has no labels: no energy, forces or stress under a known name in "
        f"{len(graphs)} structures; {graphs.contents()}. Give energy_key and forces_key if they "
        f"have other names"
    )


def _warn(texts: Iterable[str]) -> None:
    for text in texts:
        warnings.warn(text, stacklevel=3)


def _frames(path: Path) -> list[ase.Atoms]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        frames = ase.io.read(path, index=":")
    # Every ASE reader fails in its own way: KeyError, IndexError, OSError, ...
    except Exception as error:
        raise ValueError(f"ASE cannot read {path} ({type(error).__name__}: {error})") from error
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


def _keys(frames: Sequence[ase.Atoms]) -> str:
    info = sorted({str(key) for atoms in frames for key in atoms.info})
    arrays = sorted({key for atoms in frames for key in atoms.arrays})
    results = sorted({key for a in frames for key in getattr(a.calc, "results", {})})
    return (
        f"found per structure: {', '.join(info + results) or 'nothing'}; per atom: "
        f"{', '.join(arrays)}"
    )
