r"""What can be promised of a monotone cell, and what is measured of it.

The promise, |y(x) - y(x')| <= γ|x - x'|, is about the exact equilibria of the cell with the parameters as they are. What a program
returns, ŷ, is a solve that stopped at a tolerance, with rounding. So a certified answer has three parts:

- :func:`certify`: γ, checked on the matrices W, U, G themselves in float64 rather than believed from the parametrisation;
- :func:`error_bound`: ε(x) >= |ŷ(x) - y(x)|, rigorous, after the fact, whatever the solver did;
- together |ŷ(x) - ŷ(x')| <= γ|x - x'| + ε(x) + ε(x').

:func:`gain` is what to compare γ with: the steepest slope at given inputs.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from equipoise.deq.fixed_point import fixed_point
from equipoise.deq.inner import Inner
from equipoise.deq.monotone.cell import Monotone
from equipoise.deq.monotone.equation import Equation, identity
from equipoise.deq.monotone.splitting import PeacemanRachford, best_step, extremes
from equipoise.deq.solvers import Anderson

# How the float64 reference of an error bound is solved. Falling short makes the bound larger, not wrong.
REFERENCE = Anderson(tolerance=1e-12, max_passes=500)


@dataclass(frozen=True)
class Certificate:
    """What holds for every input, in the Euclidean norms of x and y.

    Attributes:
      lipschitz: γ with |y(x) - y(x')| <= γ|x - x'|: the smallest that the matrix inequality in Λ proves for the present weights.
        At most the prescribed one, and there also for a cell to which none was prescribed.
      prescribed: γ that the cell was built with, or None.
      definiteness: smallest eigenvalue of sym(Λ(I - W)). Positive, so there is exactly one equilibrium for every input.
      monotonicity: the same in the metric Λ, so of sym(Λ^½ (I - W) Λ^-½); at least the cell's margin. Sets the rate of the
        splittings.
      norm: ‖I - W‖ in the metric Λ.
    """

    lipschitz: float
    prescribed: float | None
    definiteness: float
    monotonicity: float
    norm: float


@torch.no_grad()
def certify(cell: Monotone) -> Certificate:
    r"""Check well-posedness and find the Lipschitz bound from W, U, G and Λ, in float64.

    The bound is min_c λ_max(P^-½ (GᵀG / c + c ΛUUᵀΛ) P^-½), P = 2Λ - ΛW - WᵀΛ; c stands for the freedom to scale Λ, and the
    expression is convex in log c. Floating-point linear algebra, so good to about 10⁻¹⁶ times the condition number of P; not
    interval arithmetic.

    Raises:
      ValueError: if P is not positive definite, which rounding can bring about when the parameters span too many orders of
        magnitude.

    Source: Revay, Wang and Manchester (2020), arXiv:2010.01732, whose condition for a Lipschitz bound is c = 1.
    """
    equation = cell.equation(torch.float64)
    form = equation.form()
    definiteness = float(torch.linalg.eigvalsh(form)[0])
    factor = _factor(form)
    # P = 2H; each term as a Gram matrix, so that nothing is squared twice.
    read = torch.linalg.solve_triangular(factor, equation.read.T, upper=False)
    bound = equation.metric[:, None] * equation.inject
    inject = torch.linalg.solve_triangular(factor, bound, upper=False)
    read, inject = read @ read.T / 2, inject @ inject.T / 2
    smallest, largest = extremes(equation.weight, equation.metric)
    return Certificate(
        lipschitz=_smallest(read, inject),
        prescribed=cell.lipschitz,
        definiteness=definiteness,
        monotonicity=float(smallest),
        norm=float(largest),
    )


def _smallest(read: Tensor, inject: Tensor) -> float:
    """min over c > 0 of λ_max(read / c + c inject), by golden section in log c; c = 1 is always among the tried."""

    def value(log: float) -> float:
        scale = math.exp(log)
        return float(torch.linalg.eigvalsh(read / scale + scale * inject)[-1])

    # With a, b the norms of the terms, the value lies between max(a / c, bc) and their sum. So it is at most 2√(ab) at c = √(a/b),
    # and more than that a factor of 2 away from there.
    norms = [float(torch.linalg.matrix_norm(term, 2)) for term in (read, inject)]
    if min(norms) == 0:
        return 0.0
    centre = math.log(norms[0] / norms[1]) / 2
    low, high = centre - math.log(2), centre + math.log(2)
    golden = (5**0.5 - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = value(left), value(right)
    best = min(value(0.0), at_left, at_right)
    for _ in range(25):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = value(right)
        best = min(best, at_left, at_right)
    return best


@torch.no_grad()
def error_bound(
    cell: Monotone, x: Float[Tensor, "samples _"], y: Float[Tensor, "samples _"]
) -> Float64[Tensor, " samples"]:
    r"""ε with |y - y*| <= ε, where y* is the exact output of the cell for x, and y what some solve returned.

    The equation is solved again, in float64 and to 10⁻¹², for a pre-activation v. For *any* v, converged or not, z = σ(v) obeys
    |H^½ (z - z*)| <= |H^-½ Λ (v - W z - q)| with H = sym(Λ(I - W)), because v - z ∈ ∂φ(z) and ∂φ is monotone. Hence

        ε = |y - (G z + c)| + ‖G H^-½‖ |H^-½ Λ (v - W z - q)|,

    in which the second term is usually around 10⁻¹². Float32 parameters are numbers like any other: y* is their exact output.

    Args:
      cell, x: what was evaluated.
      y: what came back, of the cell's dtype or any other.

    Raises:
      ValueError: if y has not the shape of the cell's output for x; or as :func:`certify` does.
    """
    equation = cell.equation(torch.float64)
    shape = (len(x), len(equation.read))
    if y.shape != shape:
        raise ValueError(f"y must have shape {shape}, received {tuple(y.shape)}")
    injection = equation.injection(x.double())
    alpha = 1.0
    if cell.activation.scale_free:
        alpha = float(best_step(equation.weight, equation.metric))
    splitting = PeacemanRachford(alpha)
    u = fixed_point(
        splitting.map(cell.activation),
        *splitting.prepare(
            cell.activation,
            torch.zeros_like(injection),
            injection,
            equation.weight,
            equation.metric,
        ),
        solver=REFERENCE,
        inner=Inner(torch.arange(len(x), device=x.device), len(x)),
    ).value
    z = cell.activation(u)
    # u = prox of length α: u - z = αs with s ∈ ∂φ(z), and v = z + s.
    v = z + (u - z) / alpha
    residual = equation.metric * (v - z @ equation.weight.T - injection)
    factor = _factor(equation.form())
    read = torch.linalg.solve_triangular(factor, equation.read.T, upper=False)
    residual = torch.linalg.solve_triangular(factor, residual.T, upper=False)
    remainder = torch.linalg.matrix_norm(read, 2) * residual.norm(dim=0)
    return (y.double() - equation.readout(z)).norm(dim=1) + remainder


def gain(cell: Monotone, x: Float[Tensor, "samples _"]) -> Float[Tensor, " samples"]:
    r"""‖∂y/∂x‖₂ at every input, by the implicit function theorem: ∂y/∂x = G (I - DW)⁻¹ DU, D = diag σ'(Wz + q).

    Never above γ, even where the solve was loose: that D lies between 0 and 1 is all the proof needs. Differentiable, so that it
    may be maximised (to see how much of the bound is used) or penalised. It solves a dense system for each input: not too many.
    """
    equation = cell.equation()
    v = cell.solve(x).value @ equation.weight.T + equation.injection(x)
    return torch.linalg.matrix_norm(jacobian(equation, cell.activation.slope(v)), 2)


def jacobian(
    equation: Equation, slope: Float[Tensor, "samples hidden"]
) -> Float[Tensor, "samples outputs inputs"]:
    """G (I - DW)⁻¹ DU for D = diag ``slope`` of each sample."""
    matrix = identity(equation.weight) - slope[:, :, None] * equation.weight
    return equation.read @ torch.linalg.solve(matrix, slope[:, :, None] * equation.inject)


def _factor(form: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(form)
    if int(info):
        eigenvalues = torch.linalg.eigvalsh(form)
        raise ValueError(
            "sym(Λ(I - W)) must be positive definite, received one that is not after rounding: its eigenvalues reach from "
            f"{float(eigenvalues[0]):.3g} to {float(eigenvalues[-1]):.3g}; use smaller weights or a larger margin"
        )
    return factor
