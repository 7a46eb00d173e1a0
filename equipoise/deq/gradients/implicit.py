"""The exact derivative of a fixed point, to any order, at the memory of one pass.

With z* = f(z*, x) the implicit function theorem gives dL/dx = λᵀ ∂f/∂x, where the adjoint λ = Jᵀλ + ∂L/∂z is a fixed point too.
Here it is found by the same differentiable ``solve``, so the derivative of the derivative is right as well; that is what the
gradient of a *force* loss needs. It only works if f gets everything it depends on as an argument: a tensor that f merely
closes over is a constant to second order, without any sign that something is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equipoise.deq.gradients.gradient import Gradient
from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers import Anderson, Solver


class Transposed:
    """The adjoint map λ ↦ Jᵀλ + v of f at z, itself a map g(λ, v, z, *args) whose fixed point is λ = (I - J)^-T v."""

    def __init__(self, f: Callable[..., Tensor]):
        self.f = f

    def __call__(self, adjoint: Tensor, source: Tensor, z: Tensor, *args: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            (product,) = torch.autograd.grad(self.f(z, *args), z, adjoint, create_graph=True)
        return product + source

    def bind(self, source: Tensor, z: Tensor, *args: Tensor) -> Callable[[Tensor], Tensor]:
        """The same map for a solver's loop: f is linearised once instead of at every pass."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            mapped = self.f(z, *[a.detach() for a in args])
        source = source.detach()
        return lambda adjoint: (
            torch.autograd.grad(mapped, z, adjoint, retain_graph=True)[0] + source
        )


@dataclass(frozen=True)
class Implicit(Gradient):
    """Exact gradients by the implicit function theorem.

    Attributes:
      solver: solves the adjoint problem; its tolerance bounds the relative error of the gradient (times 1 / (1 - ρ)).
      final: solves adjoint problems whose result is not differentiated again, such as the gradient of a loss with respect to
        parameters, where a rough direction may do; default ``solver``.
      observer: called with the solution of each adjoint problem, the first one being that of the first derivative.
    """

    solver: Solver = field(default_factory=lambda: Anderson(tolerance=1e-6))
    final: Solver | None = None
    observer: Callable[[Solution], None] | None = None

    def attach(
        self, f: Callable[..., Tensor], value: Tensor, args: tuple[Tensor, ...], inner: Inner
    ) -> Tensor:
        return _ImplicitFunction.apply(f, self, inner, value, *args)


class _ImplicitFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f, gradient, inner, value, *args):
        ctx.f, ctx.gradient, ctx.inner = f, gradient, inner
        value = value.clone()
        ctx.save_for_backward(value, *args)
        return value

    @staticmethod
    def backward(ctx, source):
        # As an output of this function z carries dz*/dargs, which the second derivative needs.
        z, *args = ctx.saved_tensors
        f = ctx.f
        create_graph = torch.is_grad_enabled()
        solver = ctx.gradient.solver
        if not create_graph and ctx.gradient.final is not None:
            solver = ctx.gradient.final
        transposed = Transposed(f)
        with torch.no_grad():
            loop = transposed.bind(source, z, *args)
            solution = solver.solve(loop, source.detach().contiguous(), ctx.inner)
        if ctx.gradient.observer is not None:
            ctx.gradient.observer(solution)
        adjoint = solution.value
        if create_graph:
            adjoint = ctx.gradient.attach(transposed, adjoint, (source, z, *args), ctx.inner)
        wanted = [i for i, arg in enumerate(args) if ctx.needs_input_grad[4 + i]]
        with torch.enable_grad():
            # Views, so that an argument reached along two paths counts once for each.
            inputs = [arg.view_as(arg) if arg.requires_grad else arg for arg in args]
            mapped = f(z if create_graph else z.detach(), *inputs)
        found = torch.autograd.grad(
            mapped,
            [inputs[i] for i in wanted],
            adjoint,
            create_graph=create_graph,
            allow_unused=True,
        )
        gradients: list[Tensor | None] = [None] * len(args)
        for i, value in zip(wanted, found, strict=True):
            gradients[i] = value
        return (None, None, None, None, *gradients)
