r"""Operator splittings: maps whose fixed point is the equilibrium of a monotone cell, and which converge where the cell does not.

The equilibrium z = σ(Wz + q) is the solution of 0 ∈ (I - W)z - q + ∂φ(z), σ = (1 + ∂φ)⁻¹. Well-posedness asks I - W to be
monotone in a metric Λ, which says nothing about the size of W: iterating the cell itself (Picard) may diverge to infinity while the
equilibrium exists and is unique. A splitting treats the two operators in turn and contracts in the metric Λ.

Each map is f(u, drive, matrix): one product with a matrix that is computed once per solve, and elementwise operations. Everything
that is differentiated reaches it through ``drive`` and ``matrix``, so any solver may iterate it, and any gradient differentiate it.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from equipoise.deq.monotone.activation import Activation
from equipoise.deq.monotone.equation import identity, symmetric, whitened


class Prepared(NamedTuple):
    """What one solve needs: ``fixed_point(splitting.map(activation), *prepared)``.

    Attributes:
      state: u, where to start.
      drive, matrix: the arguments of the map, differentiable in q and W.
    """

    state: Float[Tensor, "samples hidden"]
    drive: Float[Tensor, "samples hidden"]
    matrix: Float[Tensor, "hidden hidden"]


class Splitting(abc.ABC):
    """How the equilibrium is turned into a fixed point. A frozen record of settings."""

    @abc.abstractmethod
    def check(self, activation: Activation) -> None:
        """Raise ValueError if this splitting has no closed form with that activation."""

    @abc.abstractmethod
    def prepare(
        self,
        activation: Activation,
        z: Float[Tensor, "samples hidden"],
        injection: Float[Tensor, "samples hidden"],
        weight: Float[Tensor, "hidden hidden"],
        metric: Float[Tensor, " hidden"],
    ) -> Prepared:
        """Do what is done once per solve, for a guess z, q = ``injection``, W = ``weight`` and the diagonal of Λ, ``metric``."""

    @abc.abstractmethod
    def map(self, activation: Activation) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The map f(u, drive, matrix) -> u."""

    @abc.abstractmethod
    def equilibrium(
        self, activation: Activation, u: Float[Tensor, "samples hidden"]
    ) -> Float[Tensor, "samples hidden"]:
        """The z that belongs to a state u."""


@dataclass(frozen=True)
class PeacemanRachford(Splitting):
    r"""Reflect at the activation, then at the resolvent of I - W:

        r = 2σ(u) - u,    u⁺ = 2V(r + αq) - r = C r + 2αVq,    V = (I + α(I - W))⁻¹,  C = 2V - I,

    and z = σ(u) at the fixed point. Contracts for *every* α > 0, by at least √(1 - 4αm / (1 + αL)²) per pass in the metric Λ,
    where m and L are the monotonicity and the norm of I - W there. The right choice while an inverse of W's size is affordable:
    one factorisation per solve, one product per pass.

    Not to be confused with Douglas–Rachford, which takes half the step and does not need m > 0.

    Source: Winston and Kolter (2020), arXiv:2006.08591; Lions and Mercier, SIAM J. Numer. Anal. 16, 964 (1979).

    Attributes:
      alpha: α > 0. None: 1/√(mL) of the present weights (the optimum if I - W is symmetric), which keeps the number of passes
        nearly independent of the size of W. With activations that are not ``scale_free`` only 1 has a closed form, and is taken.
    """

    alpha: float | None = None

    def __post_init__(self):
        _check_alpha(self.alpha)

    def check(self, activation: Activation) -> None:
        if self.alpha is not None:
            _check_closed_form(self.alpha, activation)

    def prepare(
        self,
        activation: Activation,
        z: Float[Tensor, "samples hidden"],
        injection: Float[Tensor, "samples hidden"],
        weight: Float[Tensor, "hidden hidden"],
        metric: Float[Tensor, " hidden"],
    ) -> Prepared:
        if self.alpha is not None or not activation.scale_free:
            alpha = 1.0 if self.alpha is None else self.alpha
        else:
            # A constant: z does not depend on α, so neither do its derivatives.
            alpha = best_step(weight, metric).to(weight)
        one = identity(weight)
        # Never singular: in the metric Λ its symmetric part is larger than 1.
        resolvent = torch.linalg.inv(one + alpha * (one - weight))
        state = z + alpha * (z @ weight.T + injection - z)
        return Prepared(state, 2 * alpha * injection @ resolvent.T, 2 * resolvent - one)

    def map(self, activation: Activation) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return _Reflections(activation)

    def equilibrium(
        self, activation: Activation, u: Float[Tensor, "samples hidden"]
    ) -> Float[Tensor, "samples hidden"]:
        return activation(u)


@dataclass(frozen=True)
class _Reflections:
    activation: Activation

    def __call__(self, u: Tensor, drive: Tensor, matrix: Tensor) -> Tensor:
        return (2 * self.activation(u) - u) @ matrix.T + drive


@dataclass(frozen=True)
class ForwardBackward(Splitting):
    r"""An explicit step along I - W, then the activation:  z⁺ = σ((1 - α) z + α(Wz + q)).

    Needs no inverse, but a small step: contracts for α < 2m/L² (m: monotonicity, L: norm of I - W in the metric Λ). What the proof
    uses is the cocoercivity β, the smallest eigenvalue of sym((I - W)⁻¹) in that metric: α < 2β suffices, and β >= m/L² is the
    sharper number (1/L if I - W is symmetric). The automatic choice is α = β, with a factor of at most √(1 - βm) per pass.

    The wrong tool when W is large: β falls like 1/L or faster, and passes go into the thousands. With α = 1 this is Picard.

    Source: Winston and Kolter (2020), arXiv:2006.08591; Bauschke and Combettes, Convex analysis and monotone operator theory in
    Hilbert spaces (2011), the chapter on zeros of sums.

    Attributes:
      alpha: None: β of the present weights, found anew for every solve. A number is held against 2β, and refused when it is too
        large. Other numbers than 1 only for activations that are ``scale_free``; others have no closed form there.
    """

    alpha: float | None = None

    def __post_init__(self):
        _check_alpha(self.alpha)

    def check(self, activation: Activation) -> None:
        _check_closed_form(self.alpha, activation)

    def prepare(
        self,
        activation: Activation,
        z: Float[Tensor, "samples hidden"],
        injection: Float[Tensor, "samples hidden"],
        weight: Float[Tensor, "hidden hidden"],
        metric: Float[Tensor, " hidden"],
    ) -> Prepared:
        step = cocoercivity(weight, metric).clamp_min(torch.finfo(torch.float64).tiny)
        if self.alpha is not None and not self.alpha < 2 * step:
            raise ValueError(
                f"alpha of ForwardBackward must be < {2 * float(step):.3g} for these weights, received {self.alpha}; leave "
                "it out for the automatic choice, or use PeacemanRachford, which takes any alpha"
            )
        alpha = step.to(weight) if self.alpha is None else self.alpha
        matrix = (1 - alpha) * identity(weight) + alpha * weight
        return Prepared(z, alpha * injection, matrix)

    def map(self, activation: Activation) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return _Step(activation)

    def equilibrium(
        self, activation: Activation, u: Float[Tensor, "samples hidden"]
    ) -> Float[Tensor, "samples hidden"]:
        return u


@dataclass(frozen=True)
class _Step:
    activation: Activation

    def __call__(self, z: Tensor, drive: Tensor, matrix: Tensor) -> Tensor:
        return self.activation(z @ matrix.T + drive)


def extremes(
    weight: Float[Tensor, "hidden hidden"], metric: Float[Tensor, " hidden"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(m, L) of M = Λ^½ (I - W) Λ^-½: ⟨v, Mv⟩ >= m |v|² and |Mv| <= L |v| for all v."""
    matrix = whitened(weight, metric)
    smallest = torch.linalg.eigvalsh(symmetric(matrix))[0]
    return smallest, torch.linalg.eigvalsh(matrix @ matrix.T)[-1].sqrt()


def best_step(
    weight: Float[Tensor, "hidden hidden"], metric: Float[Tensor, " hidden"]
) -> Float[Tensor, ""]:
    """1/√(mL), which balances the fastest and the slowest direction of a Peaceman–Rachford pass."""
    smallest, largest = extremes(weight, metric)
    # m is positive by construction, but of enormous weights rounding may leave it negative.
    return (smallest.clamp_min(1e-14 * largest) * largest).rsqrt()


def cocoercivity(
    weight: Float[Tensor, "hidden hidden"], metric: Float[Tensor, " hidden"]
) -> Float[Tensor, ""]:
    """β, the smallest eigenvalue of sym(M⁻¹), M as in :func:`extremes`: ⟨v, Mv⟩ >= β |Mv|² for all v."""
    return torch.linalg.eigvalsh(symmetric(torch.linalg.inv(whitened(weight, metric))))[0]


def _check_alpha(alpha: float | None) -> None:
    if alpha is not None and not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be > 0 and finite, received {alpha}")


def _check_closed_form(alpha: float | None, activation: Activation) -> None:
    if alpha != 1 and not activation.scale_free:
        chosen = "None (the automatic choice)" if alpha is None else alpha
        raise ValueError(
            f"alpha must be 1 with {activation}, received {chosen}: the proximal step of another length has no closed form "
            "(only ReLU and HardTanh have one); use PeacemanRachford()"
        )
