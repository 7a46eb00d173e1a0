"""Which structures train, which validate, and which are left."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.symbols import Symbols

from equipoise.data.structures import Structures, Subset, each_structure
from equipoise.graph import Graph

# Orders in which groups are tried. Only sets of very few groups ever need a second one.
_TRIES = 100


@dataclass(frozen=True)
class Split:
    """Disjoint parts of a data set: lists if it was a list, else views of it."""

    train: Sequence[Graph] = field(repr=False)
    validation: Sequence[Graph] = field(repr=False)
    rest: Sequence[Graph] = field(repr=False)  # neither; for testing, if anything


def split(
    graphs: Sequence[Graph],
    *,
    train: int | float,
    validation: int | float,
    seed: int,
    groups: Sequence[Hashable] | np.ndarray | None = None,
) -> Split:
    """Draw ``train`` and ``validation`` structures at random, without overlap.

    The same ``seed`` and number of structures (and groups) give the same split on every machine.

    When this is the wrong tool: consecutive frames of one trajectory are nearly equal, and a random split puts neighbours of the
    training structures into the validation set, which then looks better than it is. Name ``groups`` (:func:`blocks`,
    :func:`formulas`), or use an official split or separate trajectories.

    Args:
      graphs: what to divide; of a lazy data set nothing is read.
      train, validation: whole numbers are numbers of structures, others below 1 are fractions of all there are.
      groups: [structures], the group that each belongs to. No group is divided: whole groups are drawn, the first that fits into
        what is still missing. A part then has as many structures as asked for, or fewer, by less than one group.

    Raises:
      ValueError: for a negative number, no training structures, more structures asked for than there are, and groups too large
        for a part.
    """
    count = len(graphs)
    wanted = {
        "train": _number("train", train, count),
        "validation": _number("validation", validation, count),
    }
    if wanted["train"] < 1 or wanted["validation"] < 0:
        raise ValueError(
            f"train must be at least 1 and validation at least 0, received {train} and {validation}"
        )
    total = sum(wanted.values())
    if total > count:
        raise ValueError(
            f"{wanted['train']} training and {wanted['validation']} validation structures are "
            f"{total} in all, but there are only {count}"
        )
    generator = np.random.default_rng(seed)
    if groups is None:
        order = generator.permutation(count)
        train_rows, rest = order[: wanted["train"]], order[wanted["train"] :]
        validation_rows, rest = rest[: wanted["validation"]], rest[wanted["validation"] :]
    else:
        train_rows, validation_rows, rest = _by_group(groups, wanted, count, generator)
    return Split(*(_part(graphs, rows) for rows in (train_rows, validation_rows, rest)))


def blocks(count: int, length: int) -> np.ndarray:
    """Groups of ``length`` consecutive structures each, for :func:`split` of a trajectory: [count].

    Frames on either side of a boundary are still neighbours. With blocks much longer than the motion remembers (a picosecond or
    so for a molecule) these are few.
    """
    if length < 1:
        raise ValueError(f"a block must have at least 1 structure, received {length}")
    return np.arange(count) // length


def formulas(graphs: Sequence[Graph]) -> list[str]:
    """The chemical formula of each structure (Hill order), as groups for :func:`split` of a set of many molecules."""
    known: dict[bytes, str] = {}
    found = []
    for structure in each_structure(graphs):
        species = np.sort(np.asarray(structure.species, dtype=np.int64))
        key = species.tobytes()
        if key not in known:
            known[key] = Symbols(species).get_chemical_formula("hill")
        found.append(known[key])
    return found


def _number(name: str, wanted: int | float, count: int) -> int:
    if isinstance(wanted, float):
        if not 0 <= wanted < 1:
            raise ValueError(
                f"{name} must be a whole number of structures or a fraction below 1, received {wanted}"
            )
        return round(wanted * count)
    return wanted


def _by_group(
    groups: Sequence[Hashable] | np.ndarray,
    wanted: dict[str, int],
    count: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(groups) != count:
        raise ValueError(
            f"groups must name one group for each of the {count} structures, received {len(groups)}"
        )
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups.tolist() if isinstance(groups, np.ndarray) else groups):
        members.setdefault(group, []).append(row)
    in_order = list(members.values())
    for _ in range(_TRIES):
        parts: dict[str, list[int]] = {"train": [], "validation": [], "rest": []}
        for number in generator.permutation(len(in_order)).tolist():
            rows = in_order[number]
            fits = (name for name in wanted if len(parts[name]) + len(rows) <= wanted[name])
            parts[next(fits, "rest")] += rows
        empty = [name for name in wanted if wanted[name] > 0 and not parts[name]]
        if not empty:
            return tuple(np.array(rows, dtype=np.int64) for rows in parts.values())
    raise ValueError(
        f"no group is left that fits into the {wanted[empty[0]]} structures of {empty[0]}; the "
        f"{len(in_order)} groups have {min(map(len, in_order))} to {max(map(len, in_order))} "
        f"structures. Ask for more, or make smaller groups"
    )


def _part(graphs: Sequence[Graph], rows: np.ndarray) -> Sequence[Graph]:
    if isinstance(graphs, Structures):
        return Subset(graphs, rows)
    return [graphs[row] for row in rows.tolist()]
