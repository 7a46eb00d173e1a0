"""The verb: find z* = f(z*, *args), differentiably."""

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

from equipoise.deq.gradients import Gradient, Implicit
from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers import Anderson, Solver


def fixed_point(
    f: Callable[..., Tensor],
    start: Shaped[Tensor, "rows ..."],
    *args: Tensor,
    solver: Solver | None = None,
    gradient: Gradient | None = None,
    inner: Inner | None = None,
) -> Solution:
    """Solve z = f(z, *args) from ``start``.

    Args:
      f: maps a state (and the arguments) to a state of the same shape and dtype. Everything that the result is to be
        differentiated by must be among ``args``, network parameters included; :class:`equipoise.deq.DEQ` does that for a module.
        An object with a method ``bind(*args)`` may return a faster map of the state alone for the solver's loop.
      start: first guess; a solution of a similar problem is a good one. No gradient flows to it, except by
        :class:`equipoise.deq.Unrolled`.
      args: tensors that f depends on.
      solver: default :class:`Anderson`.
      gradient: default :class:`Implicit`; not used when gradients are disabled or no argument requires one.
      inner: which rows form a structure; default one structure.

    Returns:
      a :class:`Solution`. Look at its ``result``: a solve that ran out of passes returns its best iterate, one that met NaN
      or infinity its last finite one.

    Raises:
      ValueError: if f returns another shape, dtype or device, if ``start`` is empty, not floating point or not finite, or if
        f closes over a tensor that requires a gradient which this kind of gradient would miss.
    """
    solver = Anderson() if solver is None else solver
    gradient = Implicit() if gradient is None else gradient
    inner = Inner() if inner is None else inner
    if not start.is_floating_point():
        raise ValueError(f"start must be a floating-point tensor, received {start.dtype}")
    if start.dim() == 0 or start.numel() == 0:
        raise ValueError(f"start must have at least one row, received shape {tuple(start.shape)}")
    if inner.segments is not None and len(inner.segments) != len(start):
        raise ValueError(
            f"inner.owner names {len(inner.segments)} rows, but start has {len(start)}"
        )
    if not bool(torch.isfinite(start).all()):
        raise ValueError(
            "start must be finite, received NaN or infinity; pass a fresh start instead"
        )
    return gradient.solve(f, start, args, solver, inner)
