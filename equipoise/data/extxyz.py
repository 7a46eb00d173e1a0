"""Structures as extended XYZ: the text that everybody reads."""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from equipoise.data.structures import KINDS, Structure, each_structure
from equipoise.graph import Graph
from equipoise.graph.ase import calculator_results

SUFFIXES = (".extxyz", ".xyz")


def write_extxyz(
    path: str | Path,
    graphs: Iterable[Graph],
    *,
    about: dict[str, str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write structures with their labels, one at a time.

    Labels are called energy, forces and stress; tags and held atoms (move_mask) go along. Positions and forces have eight decimals.
    The file appears under its name when it is complete.

    Args:
      path: the file.
      graphs: single structures or batches; a lazy data set, or a generator.
      about: what each structure says in its comment line beside its labels, such as ``{"theory": "PBE/def2-SVP"}``.
      overwrite: replace an existing file.
      progress: called with the number of structures written so far.

    Returns:
      how many structures were written.

    Raises:
      FileExistsError: there is such a file, and it is not to be replaced.
      ValueError: there are no structures.
      OSError: the disk is full or may not be written; nothing is left behind then.
    """
    frames = (frame_text(structure, about or {}) for structure in each_structure(graphs))
    return write_frames(path, frames, overwrite=overwrite, progress=progress)


def write_frames(
    path: str | Path,
    frames: Iterable[str],
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write frames that are text already; see :func:`write_extxyz`."""
    number = 0
    with whole_file(Path(path), overwrite=overwrite) as file:
        for text in frames:
            file.write(text)
            number += 1
            if progress is not None:
                progress(number)
        if number == 0:
            raise ValueError(f"there are no structures to write to {path}")
    return number


def frame_text(structure: Structure, about: dict[str, str]) -> str:
    """One structure, with what its comment line is to say beside its labels."""
    atoms = to_atoms(structure)
    atoms.info.update(about)
    return _text(atoms)


def renamed_text(atoms: ase.Atoms, structure: Structure, keys: dict[str, str | None]) -> str:
    """A frame with its labels under the usual names, and all else that it says.

    Args:
      atoms: the frame.
      structure: what was read of it.
      keys: "energy", "forces", "stress" -> where it was read. Labels under usual names that were not are left out, or the next
        reader would take them for these.
    """
    usual = {name for kind in KINDS for name in (kind, f"REF_{kind}")}
    taken = usual | {key for key in keys.values() if key is not None}
    new = to_atoms(structure)
    new.positions = atoms.positions
    new.info = {key: value for key, value in atoms.info.items() if key not in taken}
    for name in atoms.arrays.keys() - new.arrays.keys() - taken:
        new.set_array(name, atoms.arrays[name])
    if new.calc is not None:
        results = calculator_results(atoms)
        new.calc.results |= {key: results[key] for key in results.keys() - taken}
    return _text(new)


def _text(atoms: ase.Atoms) -> str:
    file = io.StringIO()
    ase.io.write(file, atoms, format="extxyz")
    return file.getvalue()


def to_atoms(structure: Structure) -> ase.Atoms:
    """An ``ase.Atoms`` with the labels of a structure as single-point results, its tags, and its held atoms fixed."""
    atoms = ase.Atoms(
        numbers=structure.species,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
        tags=structure.tags,
    )
    labels = {kind: getattr(structure, kind) for kind in KINDS if structure.knows(kind)}
    if labels:
        atoms.calc = SinglePointCalculator(atoms, **labels)
    if structure.fixed is not None and np.any(structure.fixed):
        atoms.set_constraint(FixAtoms(mask=structure.fixed))
    return atoms


@contextmanager
def whole_file(path: Path, *, overwrite: bool = False) -> Iterator[IO[str]]:
    """A text file that is there when the block ends well, and not at all when it does not.

    Raises:
      FileExistsError, OSError: see :func:`write_extxyz`.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name, or have it replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None or isinstance(error, FileExistsError):
            raise
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror}; nothing was left behind"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
