"""Who is within the cutoff of whom, with and without periodic boundaries.

Convention (the same in the whole library): an edge goes from a *sender* to a
*receiver*, and its vector is ::

    vector = positions[receiver] - positions[sender] + shift @ cell

with `shift` three integers and the rows of `cell` the lattice vectors. Both
directions of every pair are listed, an atom is its own neighbour only through a
periodic image, and the edges are sorted by (receiver, sender, shift), so that the
same structure gives the same edges in the same order however the list was made.

Only indices and shifts are made here. The vectors are formed again in torch
(`Graph.edge_vectors`), because the network needs their derivatives to second order
and those of the vesin library are wrong (its distances fail gradgradcheck).
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import vesin
from jaxtyping import Int64
from torch import Tensor

# Up to this many atoms in an open system the full distance matrix is faster than a
# cell list (9 atoms: 18 against 89 microseconds; equal at 200 atoms).
DENSE_ATOMS = 120

# Two atoms closer than this are one atom written twice: no chemistry happens at
# 0.001 Angstrom and every direction-dependent quantity is undefined at 0.
COINCIDENT = 1e-3  # Angstrom

# A cell given in the wrong unit (nm, or fractional coordinates as a unit cell) asks
# for more periodic images than fit in memory; stop before the machine does.
MAX_IMAGES = 1_000_000


class Edges(NamedTuple):
    """Directed edges of one structure, sorted by (receiver, sender, shift)."""

    senders: Int64[Tensor, " edges"]
    receivers: Int64[Tensor, " edges"]
    shifts: Int64[Tensor, "edges 3"]


class NeighbourList:
    """Edges within `cutoff`, with a Verlet skin that is reused along a trajectory.

    The list is built out to `cutoff + skin` and kept. As long as no atom has moved
    more than `skin / 2` since (so that no pair can have come closer by more than
    `skin`), the next call only measures the kept pairs again. The edges returned are
    those *within the cutoff*, and are identical, in content and order, to those of a
    fresh list: the skin changes the time, never the result.

    Use it for one structure that moves a little at a time (molecular dynamics,
    relaxation). For unrelated structures `skin=0.0`, the default, is right.

    **Arguments**

    - `cutoff`: Angstrom, larger than 0. Pairs at a distance `< cutoff` are edges.
    - `skin`: Angstrom, at least 0. About 0.5 suits room-temperature dynamics.

    **Attributes**

    - `builds`: how many times a list has been built from nothing.
    """

    def __init__(self, cutoff: float, skin: float = 0.0) -> None:
        if not (np.isfinite(cutoff) and cutoff > 0):
            raise ValueError(
                f"cutoff must be a finite length larger than 0 Angstrom, received {cutoff}"
            )
        if not (np.isfinite(skin) and skin >= 0):
            raise ValueError(
                f"skin must be a finite length of at least 0 Angstrom, received {skin}"
            )
        self.cutoff = float(cutoff)
        self.skin = float(skin)
        self.builds = 0
        self._built: _Built | None = None

    def update(
        self,
        positions: Any,
        cell: Any = None,
        pbc: Any = False,
    ) -> Edges:
        """The edges of the structure as it is now.

        **Arguments**

        - `positions`: [atoms, 3], Angstrom.
        - `cell`: [3, 3], rows are lattice vectors in Angstrom; None or zeros where
          there is none.
        - `pbc`: periodic or not, one bool or one per lattice vector.

        **Returns**

        `Edges(senders, receivers, shifts)`, int64 on the CPU. No edges at all (an
        isolated atom) is a valid answer.

        **Raises**

        `ValueError` for NaN or infinite positions or cell, wrong shapes, no atoms,
        a periodic direction without a usable lattice vector, and two atoms (or an
        atom and an image) closer than 0.001 Angstrom.
        """
        positions = _array(positions, "positions")
        cell = np.zeros((3, 3)) if cell is None else _array(cell, "cell")
        pbc = _pbc(pbc)
        if self._built is None or not self._built.covers(positions, cell, pbc, self.skin):
            self._built = None  # after an error below nothing stale stays behind
            check_positions(positions)
            check_cell(cell, pbc, self.cutoff + self.skin)
            self._built = _Built(
                positions.copy(),
                cell.copy(),
                pbc,
                *_pairs(positions, cell, pbc, self.cutoff + self.skin),
            )
            self.builds += 1
        built = self._built
        senders, receivers, shifts = built.senders, built.receivers, built.shifts
        distances = _distances(positions, cell, pbc, senders, receivers, shifts)
        near = distances < self.cutoff
        if not near.all():
            senders, receivers, shifts = senders[near], receivers[near], shifts[near]
            distances = distances[near]
        _check_coincident(distances, senders, receivers, shifts)
        return Edges(
            torch.tensor(senders, dtype=torch.int64),
            torch.tensor(receivers, dtype=torch.int64),
            torch.tensor(shifts, dtype=torch.int64),
        )


class _Built(NamedTuple):
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    shifts: np.ndarray

    def covers(self, positions, cell, pbc, skin) -> bool:
        if positions.shape != self.positions.shape:
            return False
        if not (np.array_equal(cell, self.cell) and np.array_equal(pbc, self.pbc)):
            return False
        moved = positions - self.positions
        # NaN compares false: a broken position is built afresh, and refused there.
        return bool(np.sum(moved * moved, axis=1).max() <= (skin / 2) ** 2)


def _pairs(positions, cell, pbc, cutoff):
    """(senders, receivers, shifts) within slightly more than `cutoff`, sorted."""
    if not pbc.any() and len(positions) <= DENSE_ATOMS:
        return dense_pairs(positions, cutoff)
    return vesin_pairs(positions, cell, pbc, cutoff)


def dense_pairs(positions: np.ndarray, cutoff: float):
    """Pairs of an open system from the full matrix of distances."""
    difference = positions[:, None, :] - positions[None, :, :]
    near = np.einsum("rsx,rsx->rs", difference, difference) < (cutoff * _WIDER) ** 2
    np.fill_diagonal(near, False)
    receivers, senders = np.nonzero(near)  # row by row: already sorted
    return senders, receivers, np.zeros((len(senders), 3), dtype=np.int64)


def vesin_pairs(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff):
    """Pairs from vesin's cell list, sorted by (receiver, sender, shift)."""
    finder = vesin.NeighborList(cutoff=cutoff * _WIDER, full_list=True, n_threads=1)
    senders, receivers, shifts = finder.compute(
        points=positions,
        box=_complete(cell, pbc),
        periodic=pbc,
        quantities="ijS",
    )
    senders, receivers = senders.astype(np.int64), receivers.astype(np.int64)
    shifts = shifts.astype(np.int64)
    order = np.lexsort((_rank(shifts), receivers * len(positions) + senders))
    return senders[order], receivers[order], shifts[order]


def _rank(shifts: np.ndarray) -> np.ndarray:
    """One integer per shift, in the lexical order of the shifts; one key sorts faster."""
    if len(shifts) == 0:
        return np.zeros(0, dtype=np.int64)
    low = shifts.min(axis=0)
    spans = shifts.max(axis=0) - low + 1
    return (shifts - low) @ np.array([spans[1] * spans[2], spans[2], 1])


# The finders look a hair further than asked and the caller measures every pair once
# more with one formula, so that both finders agree on pairs *at* the cutoff.
_WIDER = 1 + 1e-9


def _distances(positions, cell, pbc, senders, receivers, shifts) -> np.ndarray:
    vectors = positions[receivers] - positions[senders]
    if pbc.any():
        vectors = vectors + shifts @ cell
    return np.sqrt(np.einsum("ex,ex->e", vectors, vectors))


def _complete(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """`cell` with every non-periodic row replaced by a unit vector normal to the rest.

    A slab often comes with a zero third vector, which no cell list can invert; what
    stands in a non-periodic row never enters a distance.
    """
    cell = cell.copy()
    if pbc.all() or not pbc.any():
        return cell if pbc.all() else np.eye(3)
    # The right singular vectors beyond the rank span what the rows leave out.
    normals = np.linalg.svd(cell[pbc])[2][int(pbc.sum()) :]
    cell[~pbc] = normals
    return cell


def check_positions(positions: np.ndarray) -> None:
    """Raise `ValueError` unless `positions` is a finite [atoms, 3] with an atom."""
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError(f"positions must have shape [atoms, 3], received {positions.shape}")
    if len(positions) == 0:
        raise ValueError("a structure must have at least one atom, received 0 atoms")
    finite = np.isfinite(positions).all(axis=1)
    if not finite.all():
        atom = int(np.flatnonzero(~finite)[0])
        raise ValueError(
            f"positions must be finite, received {positions[atom].tolist()} for atom "
            f"{atom} ({int((~finite).sum())} of {len(positions)} atoms are affected)"
        )


def check_cell(cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> None:
    """Raise `ValueError` unless `cell` spans space in its periodic directions."""
    if cell.shape != (3, 3):
        raise ValueError(
            f"cell must have shape [3, 3] with lattice vectors as rows, received {cell.shape}"
        )
    if not np.isfinite(cell).all():
        raise ValueError(f"cell must be finite, received {cell.tolist()}")
    rows = cell[pbc]
    if len(rows) == 0:
        return
    lengths = np.linalg.norm(rows, axis=1)
    if lengths.min() < COINCIDENT:
        which = int(np.flatnonzero(pbc)[lengths.argmin()])
        raise ValueError(
            f"a periodic direction needs a lattice vector, but pbc={pbc.tolist()} and "
            f"cell vector {which} is {cell[which].tolist()}; give the cell or set "
            f"pbc to False in that direction"
        )
    if np.linalg.svd(rows / lengths[:, None], compute_uv=False).min() < 1e-6:
        raise ValueError(
            f"the periodic cell vectors must be linearly independent, received {rows.tolist()}"
        )
    heights = 1 / np.linalg.norm(np.linalg.pinv(rows), axis=0)
    images = float(np.prod(2 * np.ceil(cutoff / heights) + 1))
    if images > MAX_IMAGES:
        raise ValueError(
            f"the cell {cell.tolist()} is so small that a cutoff of {cutoff} Angstrom "
            f"reaches {images:.1e} periodic images; cells are in Angstrom, is this "
            f"one in another unit?"
        )


def _check_coincident(distances, senders, receivers, shifts) -> None:
    if len(distances) == 0:
        return
    edge = int(distances.argmin())
    if distances[edge] >= COINCIDENT:
        return
    image = shifts[edge].tolist()
    via = f" (through periodic image {image})" if any(image) else ""
    first, second = sorted((int(senders[edge]), int(receivers[edge])))
    raise ValueError(
        f"atoms must be at least {COINCIDENT} Angstrom apart, but atoms {first} and "
        f"{second}{via} are {distances[edge]:.2e} Angstrom apart; is an atom listed "
        f"twice?"
    )


def _array(values: Any, name: str) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error


def _pbc(pbc: Any) -> np.ndarray:
    if isinstance(pbc, Tensor):
        pbc = pbc.detach().cpu().numpy()
    flags = np.asarray(pbc, dtype=bool)
    if flags.shape not in ((), (3,)):
        raise ValueError(f"pbc must be one bool or three, one per lattice vector, received {pbc}")
    return np.broadcast_to(flags, (3,)).copy()
