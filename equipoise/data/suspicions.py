"""What looks wrong with a data set: the questions that an experienced eye asks."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from equipoise.data.structures import Report, Structure, Structures, Subset
from equipoise.data.unit_check import likely_units
from equipoise.graph import Graph

HUGE_FORCE = 50.0  # eV/Å; a covalent bond breaks at a tenth of it
NET_FORCE = 0.1  # eV/Å
CLOSE = 0.5  # Å; the shortest bond there is, H2, has 0.74
OUTLIER = 12.0  # standard deviations, estimated from the median
RARE = 10  # structures with an element, below which it is hardly learned
_PAIRS = 40  # neighbours in the file that are compared
_NOWHERE = (np.nan, -1)


@dataclass
class Seen:
    """What was noticed while the structures went by. Pairs are (value, number of the structure)."""

    rows: np.ndarray  # which structures were looked at
    pairs: list[tuple[np.ndarray, float]] = field(default_factory=list)  # (species, energy) of some
    structures_of: Counter[int] = field(default_factory=Counter)  # that contain an element
    duplicates: list[tuple[int, int]] = field(default_factory=list)
    largest_force: tuple[float, int] = _NOWHERE  # eV/Å
    largest_net: tuple[float, int] = _NOWHERE  # eV/Å, of a whole structure
    closest: tuple[float, int] = _NOWHERE  # minus the shortest distance, Å
    nearest: list[float] = field(default_factory=list)  # that of each molecule with hydrogen
    periodic: int = 0
    lonely: int = 0  # structures with an atom that has no neighbour
    zero_forces: int = 0
    held: int = 0  # structures with forces on some atoms only


def suspicions(
    seen: Seen, report: Report, energies: np.ndarray, force_rms: float, graphs: Sequence[Graph]
) -> Iterator[str]:
    """What looks wrong, one sentence each.

    Args:
      seen: what was noticed.
      report: labels of the structures that were looked at.
      energies: [looked at] eV per atom beyond the reference energies, NaN without a label.
      force_rms: eV/Å, over components.
      graphs: all structures.
    """
    yield from _label_warnings(seen, report)
    yield from _value_warnings(seen, energies, force_rms)
    yield from _geometry_warnings(seen)
    if _goes_on(graphs):
        yield (
            "neighbours in the file are much more alike than others: frames of a trajectory. A random split puts near-copies of "
            "training structures into the test set; split by blocks"
        )


def _label_warnings(seen: Seen, report: Report) -> Iterator[str]:
    for kind in ("energy", "forces", "stress"):
        number = getattr(report, kind)
        if 0 < number < report.structures:
            yield f"{report.structures - number} of {report.structures} structures have no {kind} label"
    if report.energy == report.forces == 0:
        yield "no structure has an energy or forces: nothing to learn"
    if seen.held:
        yield f"{seen.held} structures have atoms without forces (held atoms, or missing labels)"
    if seen.zero_forces:
        yield f"all forces are zero in {seen.zero_forces} structures: perfect crystals, or missing labels written as 0?"
    units = likely_units(seen.pairs)
    if None not in units and not units <= {"eV"}:
        yield f"the energies are what these molecules have in {' and in '.join(sorted(units))}, but are read as eV"
    values = np.array([energy for _, energy in seen.pairs])
    if len(values) > 1 and np.array_equal(values, values.astype(np.float32)):
        step = float(np.spacing(np.abs(values).max().astype(np.float32)))
        if step > 1e-5:
            yield f"energies are rounded to float32: they come in steps of {step:.2g} eV"
    for z, number in seen.structures_of.items():
        if number < RARE <= report.structures // 10:
            yield f"{chemical_symbols[z]} is in {number} of {report.structures} structures only"


def _value_warnings(seen: Seen, energies: np.ndarray, force_rms: float) -> Iterator[str]:
    force, row = seen.largest_force
    if force > HUGE_FORCE or force > 40 * force_rms:
        yield f"the largest force is {force:.3g} eV/Å, in structure {row}; all are {force_rms:.3g} eV/Å rms per component"
    net, row = seen.largest_net
    if net > NET_FORCE:
        yield f"forces do not add up to zero: {net:.2g} eV/Å in structure {row}. A potential has no net force, so this error stays"
    known = energies[~np.isnan(energies)]
    if len(known) > 20:
        middle = np.median(known)
        width = 1.4826 * np.median(np.abs(known - middle))
        far = np.abs(energies - middle) > max(OUTLIER * width, 1e-3)
        if far.any():
            first = int(seen.rows[far.argmax()])
            yield (
                f"{int(far.sum())} energies are far from all others, such as that of structure {first} "
                f"({energies[far.argmax()] - middle:+.3g} eV per atom): unconverged, another method, or another unit?"
            )


def _geometry_warnings(seen: Seen) -> Iterator[str]:
    if seen.duplicates:
        first, second = seen.duplicates[0]
        yield (
            f"{len(seen.duplicates)} structures are there twice, such as {first} and {second}: they must not be in two parts of a "
            f"split"
        )
    shortest, row = -seen.closest[0], seen.closest[1]
    if shortest < CLOSE:
        yield f"two atoms of structure {row} are {shortest:.2f} Å apart"
    if seen.nearest:
        bond = float(np.median(seen.nearest))  # 0.95 to 1.1 Å in molecules with hydrogen
        if 1.7 < bond < 2.2:
            yield f"the shortest bonds are {bond:.2f} long: are positions in bohr?"
        elif bond < 0.2:
            yield f"the shortest bonds are {bond:.2f} long: are positions in nm?"
    if seen.lonely:
        yield f"{seen.lonely} structures have atoms without any neighbour within the cutoff: they feel no force"
    if 0 < seen.periodic < len(seen.rows):
        yield f"{seen.periodic} of {len(seen.rows)} structures are periodic, the others are not"


def _goes_on(graphs: Sequence[Graph]) -> bool:
    """Whether each structure resembles the one before it, as frames of a trajectory do."""
    count = len(graphs)
    if count < 2 * _PAIRS:
        return False
    every = graphs if isinstance(graphs, Structures) else Subset(graphs, range(count))
    generator = np.random.default_rng(0)
    firsts = generator.choice(count - 1, size=_PAIRS, replace=False)
    near = [_difference(every.structure(int(i)), every.structure(int(i) + 1)) for i in firsts]
    others = generator.integers(count, size=(_PAIRS, 2))
    far = [
        _difference(every.structure(int(i)), every.structure(int(j))) for i, j in others if i != j
    ]
    near, far = ([each for each in some if each is not None] for some in (near, far))
    enough = min(len(near), len(far)) > _PAIRS // 2
    return enough and bool(np.median(near) < 0.5 * np.median(far))


def _difference(one: Structure, other: Structure) -> float | None:
    """RMS change of the distances between atoms, Å; None for different molecules. Rotations do not count."""
    if not np.array_equal(one.species, other.species) or len(one.species) < 2:
        return None
    atoms = slice(0, 200)
    a, b = (
        np.linalg.norm(each.positions[atoms, None] - each.positions[None, atoms], axis=-1)
        for each in (one, other)
    )
    return float(np.sqrt(np.mean((a - b) ** 2)))
