"""Plain iteration."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers.solver import Progress, Solver, check_settings, evaluate


@dataclass(frozen=True)
class Picard(Solver):
    """z ← (1 - β) z + β f(z), the fixed-point iteration.

    Converges when the spectral radius of (1 - β) I + β J is below 1, one factor of it per pass. Where f is no contraction use
    :class:`Anderson`; where it is a strong one nothing is cheaper.

    Attributes:
      tolerance: residual (see :class:`equipoise.deq.Solution`) at which a structure has converged.
      max_passes: evaluations of f after which the best iterate is returned as not converged.
      damping: β in (0, 1].
    """

    tolerance: float = 1e-4
    max_passes: int = 100
    damping: float = 1.0

    def __post_init__(self):
        check_settings(tolerance=self.tolerance, max_passes=self.max_passes)
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must lie in (0, 1], received {self.damping}")

    def solve(self, f: Callable[[Tensor], Tensor], start: Tensor, inner: Inner) -> Solution:
        progress, z = Progress(start, inner, self.tolerance), start
        for _ in range(self.max_passes):
            mapped = evaluate(f, z)
            change = mapped - z
            if progress.record(mapped, change):
                break
            z = z + self.damping * change
        return progress.solution()
