"""What a fixed-point solve hands back."""

import enum
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


class Result(enum.IntEnum):
    """How the solve of one structure ended. Not converging is a result, never silence: the caller decides what it means."""

    CONVERGED = 0
    MAX_PASSES = 1
    NON_FINITE = 2


@dataclass(frozen=True)
class Secants:
    """How f and its residual answered to steps, newest first; see :class:`equipoise.deq.Joint`."""

    mapped: Float[Tensor, "k rows ..."]  # S + Y, differences of f
    changes: Float[Tensor, "k rows ..."]  # Y, differences of the residual


@dataclass(frozen=True)
class Solution:
    """A fixed point z* = f(z*) of each structure, and of its adjoint where one was solved.

    States live on the device of f; statistics on the CPU, where the solver needed them anyway: reading them waits for nothing.

    Attributes:
      value: z*; differentiable in the arguments of f when the gradient says so.
      passes: evaluations of f spent on each structure.
      residual: max_r |f(z) - z|_r / rms_r |f(z)|_r over the rows r (atoms) of a structure, of the iterate returned. Relative
        and intensive: it neither grows nor shrinks with the number of rows.
      result: a :class:`Result` per structure.
      first_residual: the residual of the start: how good the first guess was.
      residuals: of every pass, NaN for a structure that had ended.
      trajectory: the states after the passes that the solver was told to keep; a structure that ended earlier stays at its
        fixed point, so that all have the same length.
      adjoint: λ = (I - J)^-T v, when an adjoint problem was solved; with its own passes, residual and result.
      secants: of state and adjoint, kept for the next solve by :class:`equipoise.deq.Joint`.
      descriptor: of the problem that was solved, for a predictor such as :class:`equipoise.deq.predictors.LeastSquares`: a tensor
        that moves with the problem as the solution does.
    """

    value: Float[Tensor, "rows ..."]
    passes: Int[Tensor, " structures"]
    residual: Float[Tensor, " structures"]
    result: Int[Tensor, " structures"]
    first_residual: Float[Tensor, " structures"] | None = None
    residuals: Float[Tensor, "passes structures"] | None = None
    trajectory: tuple[Float[Tensor, "rows ..."], ...] = ()
    adjoint: Float[Tensor, "rows ..."] | None = None
    adjoint_passes: Int[Tensor, " structures"] | None = None
    adjoint_residual: Float[Tensor, " structures"] | None = None
    adjoint_result: Int[Tensor, " structures"] | None = None
    secants: tuple[Secants, Secants] | None = None
    descriptor: Tensor | None = None

    @property
    def converged(self) -> bool:
        """Whether every structure converged, adjoint included."""
        good = bool((self.result == Result.CONVERGED).all())
        if self.adjoint_result is not None:
            good = good and bool((self.adjoint_result == Result.CONVERGED).all())
        return good
