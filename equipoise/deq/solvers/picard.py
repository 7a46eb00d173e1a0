"""Plain iteration."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers.solver import Progress, Solver, evaluate


@dataclass(frozen=True, kw_only=True)
class Picard(Solver):
    """z ← (1 - β) z + β f(z), the fixed-point iteration.

    Converges when the spectral radius of (1 - β) I + β J is below 1, one factor of it per pass. Where f is no contraction use
    :class:`Anderson`; where it is a strong one nothing is cheaper.

    Attributes:
      tolerance, absolute, max_passes, iterate, trajectory: see :class:`Solver`.
      damping: β in (0, 1].
    """

    max_passes: int = 100
    damping: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must lie in (0, 1], received {self.damping}")

    def solve(self, f: Callable[[Tensor], Tensor], start: Tensor, inner: Inner) -> Solution:
        progress, z = Progress(self, start, inner), start
        while True:
            mapped = evaluate(f, z)
            if progress.record(mapped, mapped - z) is None:
                return progress.solution()
            z = mapped if self.damping == 1 else torch.lerp(z, mapped, self.damping)
