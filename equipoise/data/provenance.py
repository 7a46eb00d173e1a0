"""How the labels of a file were computed, where it says so; and keeping apart what cannot be learned together.

Energies of two methods have different zeros, and their forces differ by more than a good potential errs. A network trained on both
fits neither, without any message. So files that say what they are (`theory` in the comment lines of an extxyz file, in the header
of a mapped data set, in an `.npz` of sGDML) are held against each other; files that say nothing are believed to be one thing.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from equipoise.data.extxyz import SUFFIXES
from equipoise.data.mapped import is_mapped, read_header
from equipoise.data.sources.npz import npz_text
from equipoise.data.structures import Structure, Structures
from equipoise.data.unit_check import check_unit
from equipoise.graph import Graph

_THEORY = re.compile(r"""(?:^|\s)theory=(?:"([^"]*)"|'([^']*)'|(\S+))""")
_CHECKED = 16  # structures whose energies are looked at


def theories_of(path: Path) -> tuple[str, ...]:
    """The levels of theory that a file names, in the order in which they appear; none for most files."""
    if is_mapped(path):
        named = read_header(path)["info"].get("theory")
        return (str(named),) if named else ()
    if path.suffix == ".npz":
        named = npz_text(path, "theory")
        return (named,) if named else ()
    if path.suffix in SUFFIXES:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = (_THEORY.search(line) for line in file if "theory=" in line)
            named = (next(filter(None, each.groups()), "") for each in found if each)
            return tuple(dict.fromkeys(filter(None, named)))
    return ()


def one_theory(paths: Iterable[Path]) -> str | None:
    """The level of theory that all files share that name one; None if none does.

    Raises:
      ValueError: they differ; the message names files and theories.
    """
    named = {path: theories_of(path) for path in dict.fromkeys(paths)}
    every = list(dict.fromkeys(theory for theories in named.values() for theory in theories))
    if len(every) > 1:
        listed = "; ".join(
            f"{path}: {' and '.join(theories)}" for path, theories in named.items() if theories
        )
        raise ValueError(
            f"structures that are learned together must be of one level of theory, received {len(every)} ({listed}); their "
            f"energies have different zeros. Keep them apart, or compute them again with one method"
        )
    return every[0] if every else None


def check_energies(graphs: Sequence[Graph], *, where: str) -> None:
    """Refuse energies that are read as eV but must be something else (:mod:`equipoise.data.unit_check`).

    Raises:
      ValueError: they are total energies in another unit.
    """
    rows = np.unique(np.linspace(0, len(graphs) - 1, _CHECKED).astype(int)) if len(graphs) else []
    structures = [
        graphs.structure(int(row))
        if isinstance(graphs, Structures)
        else Structure.of(graphs[int(row)])[0]
        for row in rows
    ]
    pairs = [(each.species, each.energy) for each in structures if each.knows("energy")]
    if pairs:
        check_unit("eV", pairs, where=where)
