"""How a fixed point is differentiated."""

import abc
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers import Solver


class Gradient(abc.ABC):
    """Connects a solved state to the arguments of f in the autograd graph. A frozen record of settings.

    Class attributes:
      sees_closures: whether a tensor that f closes over gets its gradient too, as it does where f is applied under autograd.
    """

    sees_closures: ClassVar[bool] = True

    @abc.abstractmethod
    def attach(
        self, f: Callable[..., Tensor], value: Tensor, args: tuple[Tensor, ...], inner: Inner
    ) -> Tensor:
        """Return ``value`` (or a refinement of it) with derivatives with respect to ``args``."""

    def solve(
        self,
        f: Callable[..., Tensor],
        start: Tensor,
        args: tuple[Tensor, ...],
        solver: Solver,
        inner: Inner,
    ) -> Solution:
        """Run the solver without a graph, then attach the derivatives if any are wanted."""
        wanted = torch.is_grad_enabled()
        with torch.no_grad():
            detached = [arg.detach() for arg in args]
            loop = _Loop(f, detached, wanted)
            solution = solver.solve(loop, start.detach(), inner)
        if loop.hidden and not self.sees_closures:
            raise ValueError(
                f"f depends on tensors that require gradients but are not among its arguments{_suspects(f)}; "
                f"{type(self).__name__} cannot differentiate with respect to them. Pass them as arguments of f (for a module: "
                "equipoise.deq.DEQ(module), or torch.func.functional_call), detach them, or solve under torch.no_grad()"
            )
        if wanted and (loop.hidden or any(arg.requires_grad for arg in args)):
            solution = replace(solution, value=self.attach(f, solution.value, args, inner))
        return solution


class _Loop:
    """f(z, *args) with constant arguments, that notices at its first pass if f brings variables of its own."""

    def __init__(self, f: Callable[..., Tensor], args: list[Tensor], probe: bool):
        self.f, self.args, self.probe, self.hidden = f, args, probe, False
        self.bound = f.bind(*args) if hasattr(f, "bind") else lambda z: f(z, *args)

    def __getattr__(self, name: str):
        # What a bound map says of itself to solvers, such as ``linearise``.
        return getattr(self.bound, name)

    def __call__(self, z: Tensor):
        if not self.probe:
            return self.bound(z)
        # With constant arguments autograd records nothing, unless f closes over something that requires a gradient.
        self.probe = False
        with torch.enable_grad():
            mapped = self.f(z, *self.args)
        self.hidden = getattr(mapped, "requires_grad", False)
        return mapped.detach() if self.hidden else mapped


def _suspects(f: Callable[..., Tensor]) -> str:
    """The names under which f holds variables, where they can be seen from outside."""
    held = {"self": f, "self.__self__": getattr(f, "__self__", None)}
    if inspect.isfunction(f):
        seen = inspect.getclosurevars(f)
        held |= dict(seen.globals) | dict(seen.nonlocals)
    names = [
        name
        for name, value in held.items()
        if (isinstance(value, Tensor) and value.requires_grad)
        or (isinstance(value, nn.Module) and any(p.requires_grad for p in value.parameters()))
    ]
    return f" ({', '.join(names)})" if names else ""
