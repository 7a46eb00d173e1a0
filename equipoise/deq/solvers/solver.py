"""The interface of a solver, and the bookkeeping that all of them share."""

import abc
from collections.abc import Callable

import torch
from torch import Tensor

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Result, Solution


class Solver(abc.ABC):
    """Finds z = f(z) from a start. A frozen record of settings; everything that changes lives in one call of ``solve``."""

    @abc.abstractmethod
    def solve(self, f: Callable[[Tensor], Tensor], start: Tensor, inner: Inner) -> Solution:
        """Solve without recording gradients. ``f`` maps a tensor to one of the same shape and dtype."""


class Progress:
    """Who has converged, and the best iterate of everyone so far.

    A structure that has ended keeps its value: what its batch mates still need cannot change it any more.
    """

    def __init__(self, start: Tensor, inner: Inner, tolerance: float):
        shape, device = inner.structures, start.device
        self.inner, self.tolerance = inner, tolerance
        self.value = start
        self.root = inner.rows(start).sqrt()
        self.first: Tensor | None = None
        self.residual = torch.full((shape,), torch.inf, dtype=torch.float64, device=device)
        self.passes = torch.zeros(shape, dtype=torch.int64, device=device)
        self.result = torch.full((shape,), int(Result.MAX_PASSES), device=device)
        self.running = torch.ones(shape, dtype=torch.bool, device=device)

    def record(self, mapped: Tensor, change: Tensor) -> bool:
        """Take in f(z) and f(z) - z of one pass; return whether every structure has ended (one device synchronisation).

        The residual is the largest change of a row over the root mean square of the rows. A norm of all rows would let the
        error of the one atom that moved be diluted by a thousand that did not.
        """
        size = self.inner.norm(mapped) / self.root
        residual = self.inner.largest(change) / size.clamp_min(torch.finfo(mapped.dtype).tiny)
        self.first = residual if self.first is None else self.first
        broken = self.running & ~torch.isfinite(residual)
        better = self.running & (residual < self.residual)
        self.passes = self.passes + self.running
        self.residual = torch.where(better, residual, self.residual)
        keep = self.inner.spread(better)
        self.value = torch.where(keep.view(-1, *[1] * (mapped.dim() - 1)), mapped, self.value)
        done = self.running & (residual <= self.tolerance)
        self.result = torch.where(done, int(Result.CONVERGED), self.result)
        self.result = torch.where(broken, int(Result.NON_FINITE), self.result)
        self.running = self.running & ~done & ~broken
        return not bool(self.running.any())

    def solution(self) -> Solution:
        """The best f(z) of every structure."""
        return Solution(
            self.value, self.passes, self.residual, self.result, first_residual=self.first
        )


def check_settings(*, tolerance: float, max_passes: int) -> None:
    """Raise ValueError for settings that no solver can work with."""
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be >= 0, received {tolerance}")
    if max_passes < 1:
        raise ValueError(f"max_passes must be >= 1, received {max_passes}")


def evaluate(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """f(z), refused if it is not a map of the state onto itself."""
    mapped = f(z)
    if mapped.shape != z.shape or mapped.dtype != z.dtype:
        raise ValueError(
            "f must return a tensor like its first argument: received "
            f"{tuple(mapped.shape)} {mapped.dtype} for {tuple(z.shape)} {z.dtype}"
        )
    return mapped
