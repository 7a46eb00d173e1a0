"""A network in, an equilibrium network out."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.deq import contraction, dropout
from equipoise.deq.fixed_point import fixed_point
from equipoise.deq.gradients import Gradient
from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers import Solver


class ModuleMap:
    """module(z, *inputs) as a map f(z, *args) with everything it depends on among the arguments.

    Attributes:
      args: the inputs, then the module's parameters, then its buffers: what to call f with.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        loop: Callable[..., Tensor] | None = None,
    ):
        self.module, self.size, self.loop = module, len(inputs), module if loop is None else loop
        named = dict(module.named_parameters()) | dict(module.named_buffers())
        self.names = list(named)
        self.args = (*inputs, *named.values())

    def __call__(self, z: Tensor, *args: Tensor) -> Tensor:
        inputs, named = args[: self.size], dict(zip(self.names, args[self.size :], strict=True))
        return torch.func.functional_call(self.module, named, (z, *inputs))

    def bind(self, *args: Tensor) -> Callable[[Tensor], Tensor]:
        """For a solver's loop: the module itself, without the detour through functional_call."""
        inputs = args[: self.size]
        return lambda z: self.loop(z, *inputs)


class DEQ(nn.Module):
    """z* = module(z*, *inputs): a deep equilibrium layer made of any network that maps a state to one like it.

    ``DEQ(module)(start, *inputs).value`` is differentiable in the inputs and in the parameters of ``module``, to any order.
    For the fixed point to exist, ``module`` should bound its state (a norm or a squashing function last) and contract; see
    :mod:`equipoise.deq.contraction` and :func:`equipoise.deq.jacobian_penalty`. Layers that draw random numbers or update
    statistics at every call, as ``nn.Dropout`` and ``nn.BatchNorm1d`` do, make f another map at every pass: use
    :class:`equipoise.deq.Dropout`, of which each training call draws one mask, and norms without memory.

    Args:
      module: called as module(z, *inputs) with tensors.
      solver, gradient: as for :func:`equipoise.deq.fixed_point`.
      loop: a faster function with the same values, such as ``torch.compile(module)``, for passes without derivatives. Compiled
        functions cannot be differentiated twice, so the passes with derivatives run ``module``.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        solver: Solver | None = None,
        gradient: Gradient | None = None,
        loop: Callable[..., Tensor] | None = None,
    ):
        super().__init__()
        self.module, self.solver, self.gradient = module, solver, gradient
        # Not as an attribute of its own: a compiled module is a module, and its weights must not be listed twice.
        self._loop = (loop,)

    def forward(
        self, start: Float[Tensor, "rows ..."], *inputs: Tensor, inner: Inner | None = None
    ) -> Solution:
        """The :class:`Solution` found from ``start``."""
        if self.training:
            dropout.draw(self.module)
            contraction.refresh(self.module)
        f = ModuleMap(self.module, inputs, self._loop[0])
        return fixed_point(
            f, start, *f.args, solver=self.solver, gradient=self.gradient, inner=inner
        )
