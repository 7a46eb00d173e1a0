"""Rotations of spherical-harmonic coefficients, written as polynomials of a unit quaternion.

The (lmax+1)(2lmax+1)(2lmax+3)/3 entries of D⁰ … D^lmax are exactly as many as the monomials of degree 2·lmax in four
variables, and each entry is a combination of them. One small matrix product therefore gives every Wigner block of every
edge, its derivatives are those of a polynomial, and there is no direction at which Euler angles would be undefined.
"""

import math
from functools import cache
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.equivariant.layout import check_degrees, edge_rows


def edge_quaternion(unit: Float[Tensor, "edges 3"]) -> Float[Tensor, "edges 4"]:
    """A quaternion (w, x, y, z) of a rotation that takes each unit vector n to the polar axis: R(q) n = (0, 1, 0).

    The rotation is fixed only up to a turn about the axis (the roll), which no SO(2)-equivariant operation can see. No single
    smooth choice exists on the sphere, so two are used: the shortest rotation where n_y >= 0, and the shortest rotation after a
    half turn about x elsewhere. Both denominators are >= 1: values and derivatives of every order are finite for each n.

    Args:
      unit: unit vectors; differentiable.

    Returns:
      unit quaternions, a deterministic function of ``unit``.
    """
    x, y, z = unit.unbind(-1)
    upper = y >= 0
    zero = torch.zeros_like(x)
    # 1 + |n_y| also on the side that `where` discards, else its infinite derivative would turn into NaN.
    scale = torch.rsqrt(2 * torch.where(upper, 1 + y, 1 - y))
    first = torch.stack([torch.where(upper, 1 + y, -z), torch.where(upper, -z, 1 - y)], -1)
    second = torch.stack([torch.where(upper, zero, x), torch.where(upper, x, zero)], -1)
    return torch.cat([first, second], -1) * scale.unsqueeze(-1)


class Wigner(nn.Module):
    """Wigner blocks of quaternions, restricted to the rows that an edge frame keeps.

    D(q) is block diagonal with Y_l(R(q) n) = D^l(q) Y_l(n); its rows stand in the edge-frame order of
    :mod:`equipoise.equivariant.layout` (|m| <= mmax), its columns in degree order.

    Source: Wigner, Group Theory (1959), eq. 15.27, with the Cayley–Klein parameters expanded in the quaternion's components.

    Args:
      lmax: highest degree.
      mmax: highest order kept in the edge frame; ``lmax`` keeps all.
    """

    def __init__(self, lmax: int, mmax: int | None = None):
        super().__init__()
        mmax = lmax if mmax is None else mmax
        check_degrees(lmax, mmax)
        rows = edge_rows(lmax, mmax)
        exponents, blocks = _coefficients(lmax)
        table = np.zeros((len(exponents), len(rows), (lmax + 1) ** 2))
        for row, (degree, m) in enumerate(rows):
            columns = slice(degree**2, (degree + 1) ** 2)
            table[:, row, columns] = blocks[degree][:, degree + m, :]
        self.shape = table.shape[1:]
        self.degree = 2 * lmax
        self.register_buffer("exponents", torch.tensor(exponents).T.contiguous(), persistent=False)
        self.register_buffer("table", torch.tensor(table).flatten(1), persistent=False)

    def forward(self, quaternion: Float[Tensor, "edges 4"]) -> Float[Tensor, "edges M K"]:
        """Wigner blocks in the quaternion's dtype. A quaternion that is not of unit length scales degree l by |q|^(2 lmax)."""
        powers = [torch.ones_like(quaternion)]
        for _ in range(self.degree):
            powers.append(powers[-1] * quaternion)
        powers = torch.stack(powers, -1)  # [edges, 4, degree+1]
        monomials = powers[:, 0, self.exponents[0]]
        for axis in range(1, 4):
            monomials = monomials * powers[:, axis, self.exponents[axis]]
        # On a GPU that is allowed TF32 the blocks would be equivariant to 1e-3 only.
        exact = monomials.double() if monomials.is_cuda else monomials
        blocks = exact @ self.table.to(exact.dtype)
        return blocks.to(quaternion.dtype).view(len(quaternion), *self.shape)


@cache
def _coefficients(lmax: int) -> tuple[list[tuple[int, ...]], list[np.ndarray]]:
    """Exponents of the monomials of degree 2·lmax in (w, x, y, z), and per degree l their coefficients [monomials, 2l+1, 2l+1]."""
    size = 2 * lmax
    exponents = [e for e in product(range(size + 1), repeat=4) if sum(e) == size]
    index = {e: i for i, e in enumerate(exponents)}
    blocks = []
    for degree in range(lmax + 1):
        width = 2 * degree + 1
        # Homogeneous, so the power of w is implied by the other three.
        polynomial = np.zeros((width, width) + (size + 1,) * 3, dtype=complex)
        for column, row in product(range(width), repeat=2):
            _add_complex_entry(polynomial[row, column], degree, row - degree, column - degree)
        # Raise to the common degree with |q|² = 1.
        for _ in range(lmax - degree):
            polynomial = polynomial + sum(
                np.roll(polynomial, 2, axis=2 + axis) for axis in range(3)
            )
        basis = _real_basis(degree)
        polynomial = np.tensordot(basis, polynomial.conj(), (1, 0))
        polynomial = np.moveaxis(np.tensordot(basis.conj(), polynomial, (1, 1)), 1, 0)
        block = np.zeros((len(exponents), width, width))
        for exponent, position in index.items():
            block[position] = polynomial[(slice(None), slice(None), *exponent[1:])].real
        blocks.append(block)
    return exponents, blocks


def _add_complex_entry(polynomial: np.ndarray, degree: int, row: int, column: int) -> None:
    """Add D^l_{row,column} in the |l m> basis about the polar axis, as coefficients over (x, y, z) exponents.

    With our axes (x, y, z) = (y', z', x') of the usual ones, U = [[w - i y, -x - i z], [x - i z, w + i y]]; an entry is a
    sum over k of products U11^k U22^n U12^p U21^q, each separable into a polynomial of (w, y) and one of (x, z).
    """
    factorial = math.factorial
    prefactor = math.sqrt(
        factorial(degree + row)
        * factorial(degree - row)
        / (factorial(degree + column) * factorial(degree - column))
    )
    for k in range(max(0, row + column), min(degree + row, degree + column) + 1):
        q, p = degree + column - k, degree + row - k
        n = k - row - column
        weight = prefactor * math.comb(degree + column, k) * math.comb(degree - column, p)
        # Polynomials in y (the power of w follows) and in z (the power of x follows).
        wy = np.polynomial.polynomial.polymul(_power(1, -1j, k), _power(1, 1j, n))
        xz = np.polynomial.polynomial.polymul(_power(-1, -1j, p), _power(1, -1j, q))
        for (power_y, a), (power_z, b) in product(enumerate(wy), enumerate(xz)):
            polynomial[p + q - power_z, power_y, power_z] += weight * a * b


def _power(constant: int, linear: complex, exponent: int) -> np.ndarray:
    """Coefficients of (constant + linear t)^exponent."""
    return np.array(
        [
            math.comb(exponent, j) * constant ** (exponent - j) * linear**j
            for j in range(exponent + 1)
        ]
    ).astype(complex)


def _real_basis(degree: int) -> np.ndarray:
    """Rows: real harmonics m = -l … l as combinations of complex ones (Condon–Shortley phase)."""
    basis = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=complex)
    basis[degree, degree] = 1
    for m in range(1, degree + 1):
        sign = (-1) ** m
        basis[degree + m, degree + m] = sign / math.sqrt(2)
        basis[degree + m, degree - m] = 1 / math.sqrt(2)
        basis[degree - m, degree - m] = 1j / math.sqrt(2)
        basis[degree - m, degree + m] = -1j * sign / math.sqrt(2)
    return basis
