"""The structures to label, or to start from, as a file has them."""

from collections.abc import Sequence
from pathlib import Path

import ase
import ase.io
import numpy as np

from equipoise.data.read import read

# Only labels are wanted of such a file, and no neighbours; a cutoff has to be given all the same.
NEAR = 1.0  # Å


def read_structures(path: str | Path, *, index: str = ":") -> list[ase.Atoms]:
    """Structures of any file ASE reads, or of an ``.npz`` that :func:`read` takes; old labels are left behind.

    Args:
      index: which ones, as ASE and Python slice: ``:`` all, ``0`` the first, ``::10`` every tenth, ``-1`` the last.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it cannot be read, holds no structures, or ``index`` selects none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".npz":
        graphs = read(path, cutoff=NEAR, labelled=False)
        frames = [graph.to_ase()[0] for graph in _select(graphs, index)]
    else:
        try:
            frames = ase.io.read(path, index=index)
        except Exception as error:  # ASE's readers raise whatever their parsing meets
            raise ValueError(
                f"ASE cannot read structures {index!r} of {path} ({type(error).__name__}: {error})"
            ) from error
    frames = [frames] if isinstance(frames, ase.Atoms) else list(frames)
    if not frames:
        raise ValueError(f"{path} holds no structures at {index!r}; there is nothing to label")
    return [bare(atoms) for atoms in frames]


def bare(atoms: ase.Atoms) -> ase.Atoms:
    """A copy without a calculator and without what was computed before."""
    copy = atoms.copy()
    copy.calc = None
    copy.info = {key: value for key, value in atoms.info.items() if key == "charge"}
    kept = ("numbers", "positions", "initial_charges", "initial_magmoms", "masses", "tags")
    for name in set(copy.arrays) - set(kept):
        del copy.arrays[name]
    return copy


def check_structures(structures: Sequence[ase.Atoms]) -> None:
    """Refuse what no method could compute.

    Raises:
      ValueError: for no structures at all, one without atoms, dummy atoms (element X), and positions or cells that are not finite.
    """
    if not structures:
        raise ValueError("there must be at least one structure to label, received none")
    for number, atoms in enumerate(structures):
        if len(atoms) == 0:
            raise ValueError(f"structure {number} must have atoms, received none")
        dummies = np.flatnonzero(atoms.numbers == 0)
        if len(dummies):
            raise ValueError(
                f"atom {dummies[0]} of structure {number} is a dummy (element X), which no method "
                f"can compute; take it out"
            )
        for name, values in (("positions", atoms.positions), ("cell", atoms.cell.array)):
            if not np.isfinite(values).all():
                raise ValueError(
                    f"the {name} of structure {number} must be finite, received NaN or infinity"
                )


def _select(graphs: Sequence, index: str) -> list:
    try:
        parts = [int(part) if part else None for part in index.split(":")]
        return [graphs[parts[0]]] if len(parts) == 1 else list(graphs[slice(*parts)])
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"index must be a number or a slice such as ::10 within {len(graphs)} structures, "
            f"received {index!r}"
        ) from error
