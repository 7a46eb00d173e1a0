"""The exact derivative of a fixed point, to any order, at the memory of one pass.

With z* = f(z*, x) the implicit function theorem gives dL/dx = λᵀ ∂f/∂x, where the adjoint λ = Jᵀλ + ∂L/∂z is a fixed point too.
Here it is found by the same differentiable ``solve``, so the derivative of the derivative is right as well; that is what the
gradient of a *force* loss needs. It only works if f gets everything it depends on as an argument: a tensor that f merely
closes over would be a constant, without any sign that something is missing; :func:`equipoise.deq.fixed_point` refuses it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.deq.gradients.gradient import Gradient
from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers import Anderson, Solver


class Adjoint:
    """λ ↦ Jᵀλ + v for the loop of a solver, with f linearised once: one vector–Jacobian product per pass.

    Args:
      mapped: f(z), computed under autograd.
      z: the leaf it was computed from.
      source: v.
    """

    affine = True

    def __init__(self, mapped: Tensor, z: Tensor, source: Tensor):
        self.mapped, self.z, self.source = mapped, z, source

    def product(self, adjoint: Tensor) -> Tensor:
        """Jᵀ λ."""
        (product,) = torch.autograd.grad(
            self.mapped, self.z, adjoint, retain_graph=True, materialize_grads=True
        )
        return product

    def __call__(self, adjoint: Tensor) -> Tensor:
        return self.product(adjoint) + self.source

    def linearise(self, adjoint: Tensor) -> Callable[[Tensor], Tensor]:
        """The derivative of this map, the same everywhere."""
        return self.product


class Transposed:
    """The adjoint map λ ↦ Jᵀλ + v of f at z, itself a map g(λ, v, z, *args) whose fixed point is λ = (I - J)^-T v."""

    def __init__(self, f: Callable[..., Tensor]):
        self.f = f

    def __call__(self, adjoint: Tensor, source: Tensor, z: Tensor, *args: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            mapped = self.f(z, *args)
            (product,) = torch.autograd.grad(
                mapped, z, adjoint, create_graph=True, materialize_grads=True
            )
        return product + source

    def bind(self, source: Tensor, z: Tensor, *args: Tensor) -> Adjoint:
        """The same map for a solver's loop."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            mapped = self.f(z, *[a.detach() for a in args])
            # A map that does not depend on z has no graph, and J = 0.
            mapped = mapped if mapped.requires_grad else mapped + 0 * z
        return Adjoint(mapped, z, source.detach())


@dataclass(frozen=True, kw_only=True)
class Implicit(Gradient):
    """Exact gradients by the implicit function theorem.

    The choice wherever the gradient itself is the product (forces!), and the reference for every other. It needs a solved fixed
    point: at one that did not converge it is the gradient of nothing in particular.

    Source: Bai, Kolter and Koltun, Deep equilibrium models (2019), theorem 1.

    Attributes:
      solver: solves the adjoint problem; its tolerance bounds the relative error of the gradient (times 1 / (1 - ρ)).
      final: solves adjoint problems whose result is not differentiated again, such as the gradient of a loss with respect to
        parameters, where a rough direction may do; default ``solver``. Mind that forces taken without ``create_graph``, to
        validate, are such a result as well: take them with another ``Implicit``.
      start: first guess for the adjoint of the first derivative, such as the adjoint of a similar problem; default ∂L/∂z.
      observer: called with the solution of each adjoint problem, the first one being that of the first derivative. This is where
        to notice one that did not converge, and to take the adjoint for the next ``start``.
    """

    sees_closures: ClassVar[bool] = False

    solver: Solver = field(default_factory=lambda: Anderson(tolerance=1e-6))
    final: Solver | None = None
    start: Tensor | None = None
    observer: Callable[[Solution], None] | None = None

    def attach(
        self, f: Callable[..., Tensor], value: Tensor, args: tuple[Tensor, ...], inner: Inner
    ) -> Tensor:
        if self.start is not None and self.start.shape != value.shape:
            raise ValueError(
                f"Implicit.start must be like the state, {tuple(value.shape)}, received {tuple(self.start.shape)}"
            )
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
        f, gradient = ctx.f, ctx.gradient
        create_graph = torch.is_grad_enabled()
        rough = gradient.final is not None and not create_graph
        solver = gradient.final if rough else gradient.solver
        transposed = Transposed(f)
        guess = source if gradient.start is None else gradient.start.to(source)
        with torch.no_grad():
            loop = transposed.bind(source, z, *args)
            solution = solver.solve(loop, guess.detach().contiguous(), ctx.inner)
        if gradient.observer is not None:
            gradient.observer(solution)
        adjoint = solution.value
        if create_graph:
            inside = replace(gradient, start=None)
            adjoint = inside.attach(transposed, adjoint, (source, z, *args), ctx.inner)
        wanted = [i for i, arg in enumerate(args) if ctx.needs_input_grad[4 + i]]
        with torch.enable_grad():
            # Views, so that an argument reached along two paths counts once for each.
            inputs = [arg.view_as(arg) if arg.requires_grad else arg for arg in args]
            mapped = f(z if create_graph else z.detach(), *inputs)
        gradients: list[Tensor | None] = [None] * len(args)
        if mapped.requires_grad:  # or f makes no use of any of them
            found = torch.autograd.grad(
                mapped,
                [inputs[i] for i in wanted],
                adjoint,
                create_graph=create_graph,
                allow_unused=True,
            )
            for i, value in zip(wanted, found, strict=True):
                gradients[i] = value
        return (None, None, None, None, *gradients)
