"""How a fixed point is differentiated."""

import abc
from collections.abc import Callable

from torch import Tensor

from equipoise.deq.inner import Inner


class Gradient(abc.ABC):
    """Connects a solved state to the arguments of f in the autograd graph. A frozen record of settings."""

    @abc.abstractmethod
    def attach(
        self, f: Callable[..., Tensor], value: Tensor, args: tuple[Tensor, ...], inner: Inner
    ) -> Tensor:
        """Return ``value`` (or a refinement of it) with derivatives with respect to ``args``."""
