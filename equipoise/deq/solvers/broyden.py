"""A quasi-Newton method that learns the inverse Jacobian from its own steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers.solver import Progress, Solver, evaluate


@dataclass(frozen=True, kw_only=True)
class Broyden(Solver):
    r"""z ← z - H g, g = f(z) - z, with H ≈ (J - I)⁻¹ updated by a rank-one term per pass, separately for each structure:

    H ← H + (Δz - H Δg) Δzᵀ H / (Δzᵀ H Δg),    H₀ = -β I   ("good Broyden").

    Remembers more of the map than :class:`Anderson` with a short window and has no least-squares problem to go wrong, but
    nothing damps it: the choice for smooth maps near their fixed point, and for tight tolerances without Jacobian products.
    Memory is 2 x ``memory`` states.

    Source: Broyden, Math. Comp. 19, 577 (1965), eq. 4.12; Nocedal and Wright, Numerical Optimization (2006), section 11.1.

    Attributes:
      tolerance, absolute, max_passes, iterate, trajectory: see :class:`Solver`.
      memory: rank-one terms kept; when there are that many, H starts again from H₀.
      mixing: β.
    """

    memory: int = 40
    mixing: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"memory must be >= 1, received {self.memory}")
        if not 0 < self.mixing <= 1:
            raise ValueError(f"mixing must lie in (0, 1], received {self.mixing}")

    def solve(self, f: Callable[[Tensor], Tensor], start: Tensor, inner: Inner) -> Solution:
        progress, z = Progress(self, start, inner), start
        left = start.new_empty(min(self.memory, self.max_passes), *start.shape)
        right = torch.empty_like(left)
        terms, step, previous = 0, None, None
        while True:
            mapped = evaluate(f, z)
            change = mapped - z
            if progress.record(mapped, change) is None:
                return progress.solution()
            if terms == len(left):
                terms, step = 0, None
            newton = -self.mixing * change
            if terms:
                known = left[:terms], right[:terms]
                newton += inner.combine(inner.dots(known[1], change), known[0])
            if step is not None:
                # Δzᵀ H of this step; H Δg = newton + step, as step = -H g of the last pass.
                row = -self.mixing * step
                if terms:
                    row += inner.combine(inner.dots(known[0], step), known[1])
                overlap = inner.dots(torch.stack([change, previous]), row)
                below = overlap[0] - overlap[1]
                # A step that taught nothing (an ended structure makes none) leaves H as it is.
                scale = torch.where(below.abs() > torch.finfo(z.dtype).tiny, -1 / below, 0.0)
                torch.mul(newton, inner.spread(scale).to(z).view(-1, *_ones(z)), out=left[terms])
                right[terms] = row
                newton = torch.addcmul(
                    newton, left[terms], inner.spread(overlap[0]).to(z).view(-1, *_ones(z))
                )
                terms += 1
            step, previous = -newton, change
            z = z + step


def _ones(z: Tensor) -> tuple[int, ...]:
    return (1,) * (z.dim() - 1)
