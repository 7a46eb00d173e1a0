"""A cheap direction for training; never a force."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.deq.gradients.gradient import Gradient
from equipoise.deq.gradients.implicit import Adjoint, Implicit
from equipoise.deq.inner import Inner
from equipoise.deq.solution import Result, Solution
from equipoise.deq.solvers import Solver


@dataclass(frozen=True, kw_only=True)
class Phantom(Gradient):
    """Differentiate k damped steps from the (detached) fixed point: z ← (1 - τ) z + τ f(z).

    Approximates (I - J)⁻¹ by τ Σ_{i<k} (τJ + (1 - τ) I)^i. A descent direction for training when f contracts, but not the
    gradient of any energy: as a force it is wrong by several per cent and heats a simulation. Use :class:`Implicit` there.

    Source: Geng et al., On training implicit models (2021), eq. 8 (unrolled form) and 9 (Neumann form).

    Attributes:
      steps: k >= 1.
      damping: τ in (0, 1].
      neumann: sum the series with J frozen at the fixed point, at the memory of one pass, instead of differentiating through
        the steps, at that of k. The same gradient at a solved fixed point. f must then close over nothing that is to be
        differentiated.
    """

    steps: int = 1
    damping: float = 1.0
    neumann: bool = False

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be >= 1, received {self.steps}")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must lie in (0, 1], received {self.damping}")

    @property
    def sees_closures(self) -> bool:
        return not self.neumann

    def attach(
        self, f: Callable[..., Tensor], value: Tensor, args: tuple[Tensor, ...], inner: Inner
    ) -> Tensor:
        if self.neumann:
            series = _Series(steps=self.steps, damping=self.damping)
            return Implicit(solver=series).attach(f, value, args, inner)
        for _ in range(self.steps):
            mapped = f(value, *args)
            value = mapped if self.damping == 1 else torch.lerp(value, mapped, self.damping)
        return value


@dataclass(frozen=True, kw_only=True)
class _Series(Solver):
    """k terms of the Neumann series in place of a solve of the adjoint problem."""

    steps: int = 1
    damping: float = 1.0

    def solve(self, f: Adjoint, start: Tensor, inner: Inner) -> Solution:
        term = self.damping * f.source
        total = term
        for _ in range(self.steps - 1):
            term = self.damping * f.product(term) + (1 - self.damping) * term
            total = total + term
        unknown = torch.full((inner.structures,), torch.nan, dtype=torch.float64)
        passes = torch.full((inner.structures,), self.steps)
        return Solution(total, passes, unknown, torch.full_like(passes, int(Result.MAX_PASSES)))
