"""Fixed point and adjoint in the same few passes, with what earlier, similar problems taught about the Jacobian.

The fixed point z* of f and the adjoint λ* = Jᵀλ* + ∂e/∂z are together the stationary point of one function,

    L(z, λ) = e(z) + λᵀ (f(z) - z),     ∂L/∂λ = f(z) - z,     ∂L/∂z = Jᵀλ + ∂e/∂z - λ,

whose value there is e(z*), with an error of second order in the two gradients. So one forward and one backward evaluation of
L are a pass of both problems, and where L depends on a parameter as well, the last pass gives the derivative of e(z*) for
nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Result, Secants, Solution


@dataclass(frozen=True, kw_only=True)
class Joint:
    """A given number of joint passes from a good guess. A frozen record of settings.

    For sequences of problems that change little from one to the next, such as the steps of a simulation, where a predictor
    supplies the guess. The wrong tool without one: a solve from nothing needs a solver and its tolerance.

    The differences between the passes of a problem are secants: S_i = w_i' - w_i moved the residual r by Y_i = r_i' - r_i. They
    hold for the next problem too, nearly, so its first update can already be that of a quasi-Newton method,

        w ← w + r - Σ_i γ_i (S_i + Y_i),     γ = argmin ‖r - Σ_i γ_i Y_i‖,

    for w = z and w = λ each, and for each structure.

    Source: the multisecant update of Fang and Saad, Numer. Linear Algebra Appl. 16, 197 (2009), with secants kept from solve to
    solve. E_L: Niklasson, Phys. Rev. Lett. 100, 123004 (2008), for the idea of a shadow energy stationary in what was not
    solved exactly.

    Attributes:
      passes: evaluations of L, the one for the derivatives included; with a tolerance, at most so many.
      tolerance: of the residuals (relative, as in :class:`Solution`). Once a pass has found both at or below it for every
        structure, the next is the last. None: all the passes, so that every step of a simulation treats errors alike.
      recycled: secants kept; memory is 4 states each. They leave a tenth of the residual, and know a past only: the energy of a
        simulation drifts with them. 0 keeps none: plain passes, reversible in time to the order that the guess is.
      max_residual: above which (relative, as in :class:`Solution`) a structure counts as not converged: the guess was no
        guess.
    """

    passes: int = 2
    recycled: int = 0
    max_residual: float = 0.03
    tolerance: float | None = None

    def __post_init__(self):
        if self.passes < 1:
            raise ValueError(f"passes must be >= 1, received {self.passes}")
        if self.recycled < 0:
            raise ValueError(f"recycled must be >= 0, received {self.recycled}")
        if not self.max_residual > 0:
            raise ValueError(f"max_residual must be > 0, received {self.max_residual}")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance must be > 0 or None, received {self.tolerance}")

    def begin(self, start: Solution, inner: Inner) -> "JointIteration":
        """Iterate from ``start``, which must have an adjoint.

        Raises:
          ValueError: if it has none.
        """
        if start.adjoint is None:
            raise ValueError(
                "joint passes start from a state and its adjoint, received a solution without one; solve to a tolerance first"
            )
        return JointIteration(self, start, inner)


class JointIteration:
    """The passes of one problem: evaluate the gradient of L at (value, adjoint), hand it to ``step``, the last one to ``finish``.

    Attributes:
      value, adjoint: where to evaluate next.
      last: whether that is for ``finish``.
    """

    def __init__(self, settings: Joint, start: Solution, inner: Inner):
        self.settings, self.inner = settings, inner
        # Detached: the passes make leaves of them, and the start is somebody else's.
        self.value, self.adjoint = start.value.detach(), start.adjoint.detach()
        self._secants = (start.secants if settings.recycled else None) or (None, None)
        self._before: tuple[tuple[Tensor, Tensor], ...] | None = None
        self._passed = 0
        self.last = settings.passes == 1

    def step(self, residual: Float[Tensor, "rows ..."], pull: Float[Tensor, "rows ..."]) -> None:
        """Take in ∂L/∂λ and ∂L/∂z; go to the next iterate."""
        self._passed += 1
        self.last = self._passed == self.settings.passes - 1 or self._arrived(residual, pull)
        self.value, self.adjoint = self._next(residual, pull)

    def _arrived(self, residual: Tensor, pull: Tensor) -> bool:
        if self.settings.tolerance is None:
            return False
        pairs = (self.value, residual), (self.adjoint, pull)
        found = [float(self._judge(w + change, change)[0].max()) for w, change in pairs]
        return max(found) <= self.settings.tolerance

    def finish(
        self, residual: Float[Tensor, "rows ..."], pull: Float[Tensor, "rows ..."]
    ) -> Solution:
        """The same for the last pass: the states after it, the residuals before it."""
        z, adjoint = self.value, self.adjoint
        found, result = self._judge(z + residual, residual)
        adjoint_found, adjoint_result = self._judge(adjoint + pull, pull)
        value, adjoint = self._next(residual, pull)
        passes = torch.full((self.inner.structures,), self._passed + 1)
        secants = None if None in self._secants else self._secants
        return Solution(
            value=value,
            passes=passes,
            residual=found,
            result=result,
            adjoint=adjoint,
            adjoint_passes=passes,
            adjoint_residual=adjoint_found,
            adjoint_result=adjoint_result,
            secants=secants,
        )

    def _next(self, *residuals: Tensor) -> tuple[Tensor, Tensor]:
        now = tuple(zip((self.value, self.adjoint), residuals, strict=True))
        if self._before is not None and self.settings.recycled:
            self._secants = tuple(
                _add(secants, w - w_before, r - r_before, self.settings.recycled)
                for secants, (w, r), (w_before, r_before) in zip(
                    self._secants, now, self._before, strict=True
                )
            )
        self._before = now
        return tuple(
            _update(secants, w, r, self.inner)
            for secants, (w, r) in zip(self._secants, now, strict=True)
        )

    def _judge(self, mapped: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals and results; see :class:`equipoise.deq.solvers.solver.Progress`."""
        norms, largest = self.inner.fetch(mapped, change, None)
        norms, largest = np.atleast_1d(norms), np.atleast_1d(largest)
        roots = np.sqrt(np.maximum(self.inner.counts(mapped), 1))
        tiny = torch.finfo(mapped.dtype).tiny
        residual = largest / np.maximum(norms / roots, tiny)
        result = np.where(
            residual <= self.settings.max_residual, Result.CONVERGED, Result.MAX_PASSES
        )
        finite = np.isfinite(norms) & np.isfinite(largest)
        result = np.where(finite, result, Result.NON_FINITE)
        return torch.as_tensor(residual, dtype=mapped.dtype), torch.as_tensor(result)


def _add(known: Secants | None, step: Tensor, change: Tensor, most: int) -> Secants:
    mapped, change = (step + change)[None], change[None]
    if known is None:
        return Secants(mapped, change)
    return Secants(
        torch.cat([mapped, known.mapped[: most - 1]]),
        torch.cat([change, known.changes[: most - 1]]),
    )


def _update(secants: Secants | None, w: Tensor, r: Tensor, inner: Inner) -> Tensor:
    """w + r - Σ γ (S + Y); without secants w + r."""
    if secants is None:
        return w + r
    overlaps = inner.overlaps(secants.changes, torch.cat([secants.changes, r[None]]))
    products = overlaps.double().cpu().numpy().transpose(2, 0, 1)  # [structures, k, k + 1]
    gram, right = products[:, :, :-1], products[:, :, -1]
    size = np.sqrt(np.einsum("sii->si", gram))
    usable = np.isfinite(products).all((1, 2)) & (size > 0).all(1)
    gamma = np.zeros_like(right)
    if usable.any():
        size = size[usable]
        values, vectors = np.linalg.eigh(gram[usable] / (size[:, :, None] * size[:, None, :]))
        # Secants of neighbouring solves resemble each other: what they differ in by rounding alone is left out.
        cut = len(secants.changes) * max(torch.finfo(w.dtype).eps, math.ulp(1.0))
        kept = values > cut * values[:, -1:]
        along = np.einsum("sij,si->sj", vectors, right[usable] / size)
        along = np.where(kept, along, 0.0) / np.where(kept, values, 1.0)
        gamma[usable] = np.einsum("sij,sj->si", vectors, along) / size
    coefficients = torch.as_tensor(gamma.T, device=w.device)
    return w + r - inner.combine(coefficients, secants.mapped)
