"""Back-propagation through time: the fixed point as an ordinary network with tied weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from equipoise.deq.gradients.gradient import Gradient
from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers import Solver
from equipoise.deq.solvers.solver import Progress, evaluate


@dataclass(frozen=True, kw_only=True)
class Unrolled(Gradient):
    """K passes z ← (1 - τ) z + τ f(z) from the start, all under autograd: exactly the gradient of what was computed.

    No solver runs, and the start is differentiated like everything else. The result depends on the start and on K but on no
    history, so an energy computed this way is conserved exactly however far from the fixed point it stays; memory grows with K,
    and the start cannot be a warm one without giving that up. The reference that :class:`Implicit` and :class:`Phantom` tend to,
    and a good way to begin a training.

    Attributes:
      passes: K >= 1.
      damping: τ in (0, 1].
    """

    passes: int
    damping: float = 1.0

    def __post_init__(self):
        if self.passes < 1:
            raise ValueError(f"passes must be >= 1, received {self.passes}")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must lie in (0, 1], received {self.damping}")

    def attach(
        self, f: Callable[..., Tensor], value: Tensor, args: tuple[Tensor, ...], inner: Inner
    ) -> Tensor:
        for _ in range(self.passes):
            _, value = self._step(f, value, args)
        return value

    def solve(
        self,
        f: Callable[..., Tensor],
        start: Tensor,
        args: tuple[Tensor, ...],
        solver: Solver,
        inner: Inner,
    ) -> Solution:
        """The passes; ``result`` says whether the last one met the tolerances of ``solver``, which does nothing else."""
        value = start
        for _ in range(self.passes):
            before = value
            mapped, value = self._step(f, before, args)
        with torch.no_grad():
            told = replace(solver, max_passes=self.passes, iterate="last", trajectory=())
            progress = Progress(told, start, inner)
            progress.record(mapped, mapped - before, cost=self.passes)
        return replace(progress.solution(), value=value)

    def _step(self, f, z: Tensor, args: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        mapped = evaluate(lambda z: f(z, *args), z)
        return mapped, mapped if self.damping == 1 else torch.lerp(z, mapped, self.damping)
