"""Where each (l, m) coefficient stands.

Node features are ``[rows, K, channels]`` with K = (lmax+1)², l = 0, 1, … and m = -l … l inside ("degree order").
In the frame of an edge only |m| <= mmax is kept, sorted by m first ("edge-frame order"): m = 0 for l = 0 … lmax, then for each
m = 1 … mmax the cosine part (+m) for l = m … lmax and the sine part (-m) likewise. Each SO(2) weight then acts on
a contiguous slice.
"""

from functools import cache

import torch
from torch import Tensor


def degrees(lmax: int) -> list[int]:
    """Degree l of each of the (lmax+1)² node coefficients."""
    return [degree for degree in range(lmax + 1) for _ in range(2 * degree + 1)]


@cache
def edge_rows(lmax: int, mmax: int) -> tuple[tuple[int, int], ...]:
    """(l, m) of each coefficient kept in the edge frame, in its order."""
    rows = [(degree, 0) for degree in range(lmax + 1)]
    for m in range(1, mmax + 1):
        rows += [(degree, m) for degree in range(m, lmax + 1)]
        rows += [(degree, -m) for degree in range(m, lmax + 1)]
    return tuple(rows)


def split_orders(x: Tensor, lmax: int, mmax: int) -> tuple[Tensor, ...]:
    """Edge-frame coefficients [edges, M, channels] as views by order: m = 0, then the cosine and the sine part of each m > 0.

    Every part is a matrix [edges, degrees · channels] with evenly spaced rows, which a matrix product takes without a copy.
    """
    sizes = [lmax + 1]
    for m in range(1, mmax + 1):
        sizes += [lmax + 1 - m] * 2
    return x.split(sizes, dim=1)


def degree_average(lmax: int) -> Tensor:
    """[K, lmax+1] matrix that averages over the 2l+1 components of each degree."""
    index = torch.tensor(degrees(lmax))
    onehot = torch.nn.functional.one_hot(index, lmax + 1).double()
    return onehot / onehot.sum(0)


def check_degrees(lmax: int, mmax: int) -> None:
    """Raise ValueError unless 0 <= mmax <= lmax."""
    if lmax < 0:
        raise ValueError(f"lmax must be >= 0, received {lmax}")
    if not 0 <= mmax <= lmax:
        raise ValueError(f"mmax must lie between 0 and lmax={lmax}, received {mmax}")
