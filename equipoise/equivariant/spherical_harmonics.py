"""Real spherical harmonics of unit vectors, in the order and normalisation that e3nn calls "component".

The polar axis is y and degree 1 is the vector itself, so that a degree-1 feature rotates like (x, y, z).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spherical_harmonics(unit: Float[Tensor, "rows 3"], lmax: int) -> Float[Tensor, "rows K"]:
    r"""Real spherical harmonics to degree ``lmax``; polynomial in the components, so smooth everywhere.

    Y_{l,±m}(x, y, z) = N_{lm} Π_l^m(y) {Re, Im} (z + i x)^m with Π_l^m(y) = d^m P_l(y) / dy^m and Σ_m Y_lm² = 2l + 1.

    Args:
      unit: unit vectors. A vector that is not of unit length gives a polynomial, not a spherical harmonic.
      lmax: highest degree, >= 0.

    Returns:
      K = (lmax+1)² values per row in the order l = 0, 1, …; m = -l … l. Degree 1 is √3 (x, y, z).

    Raises:
      ValueError: for a negative ``lmax`` or vectors that are not three-dimensional.
    """
    if lmax < 0:
        raise ValueError(f"lmax must be >= 0, received {lmax}")
    if unit.shape[-1] != 3:
        raise ValueError(f"vectors must have 3 components, received shape {tuple(unit.shape)}")
    x, y, z = unit.unbind(-1)
    cosine, sine = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(lmax):
        cosine.append(z * cosine[-1] - x * sine[-1])
        sine.append(x * cosine[-2] + z * sine[-1])
    columns = [torch.empty(0)] * (lmax + 1) ** 2
    for m in range(lmax + 1):
        before, legendre = torch.zeros_like(y), torch.full_like(y, float(_odd_factorial(m)))
        for degree in range(m, lmax + 1):
            if degree > m:
                before, legendre = (
                    legendre,
                    ((2 * degree - 1) * y * legendre - (degree + m - 1) * before) / (degree - m),
                )
            norm = math.sqrt(
                (2 * degree + 1) * math.factorial(degree - m) / math.factorial(degree + m)
            )
            centre = degree * degree + degree
            if m == 0:
                columns[centre] = norm * legendre
            else:
                columns[centre + m] = math.sqrt(2) * norm * legendre * cosine[m]
                columns[centre - m] = math.sqrt(2) * norm * legendre * sine[m]
    return torch.stack(columns, dim=-1)


def _odd_factorial(m: int) -> int:
    """(2m-1)!! = the value of d^m P_m / dy^m."""
    return math.prod(range(1, 2 * m, 2))
