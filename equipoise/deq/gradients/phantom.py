"""A cheap direction for training; never a force."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from equipoise.deq.gradients.gradient import Gradient
from equipoise.deq.inner import Inner


@dataclass(frozen=True)
class Phantom(Gradient):
    """Differentiate k damped steps from the (detached) fixed point: z ← (1 - τ) z + τ f(z).

    Approximates (I - J)⁻¹ by τ Σ_{i<k} (τJ + (1 - τ) I)^i. A descent direction for training when f contracts, but not the
    gradient of any energy: as a force it is wrong by several per cent and heats a simulation. Use :class:`Implicit` there.

    Source: Geng et al., On training implicit models (2021), eq. 8.

    Attributes:
      steps: k >= 1.
      damping: τ in (0, 1].
    """

    steps: int = 1
    damping: float = 1.0

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be >= 1, received {self.steps}")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must lie in (0, 1], received {self.damping}")

    def attach(
        self, f: Callable[..., Tensor], value: Tensor, args: tuple[Tensor, ...], inner: Inner
    ) -> Tensor:
        for _ in range(self.steps):
            value = (1 - self.damping) * value + self.damping * f(value, *args)
        return value
