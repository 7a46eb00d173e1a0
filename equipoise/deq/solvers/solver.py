"""The interface of a solver, and the bookkeeping that all of them share."""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Result, Solution


@dataclass(frozen=True, kw_only=True)
class Solver(abc.ABC):
    """Finds z = f(z) from a start. A frozen record of settings; everything that changes lives in one call of ``solve``.

    Attributes:
      tolerance: residual (relative; see :class:`equipoise.deq.Solution`) at which a structure has converged. A start that
        meets it costs one pass.
      absolute: max_r |f(z) - z|_r at which a structure has converged too, whatever its residual. 0: relative only. For fixed
        points that may be zero.
      max_passes: evaluations of f after which a structure is returned as not converged.
      iterate: "best" returns the iterate with the smallest residual, "last" the last one (the two differ only where a solve
        does not converge).
      trajectory: passes (1, 2, ...) after which the state is kept, see :class:`equipoise.deq.Solution`.
    """

    tolerance: float = 1e-4
    absolute: float = 0.0
    max_passes: int = 50
    iterate: Literal["best", "last"] = "best"
    trajectory: tuple[int, ...] = ()

    def __post_init__(self):
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be >= 0, received {self.tolerance}")
        if not self.absolute >= 0:
            raise ValueError(f"absolute must be >= 0, received {self.absolute}")
        if self.max_passes < 1:
            raise ValueError(f"max_passes must be >= 1, received {self.max_passes}")
        if self.iterate not in ("best", "last"):
            raise ValueError(f"iterate must be 'best' or 'last', received {self.iterate!r}")
        if any(not 1 <= k <= self.max_passes for k in self.trajectory):
            raise ValueError(
                f"trajectory must hold passes from 1 to max_passes={self.max_passes}, received {self.trajectory}"
            )

    @abc.abstractmethod
    def solve(self, f: Callable[[Tensor], Tensor], start: Tensor, inner: Inner) -> Solution:
        """Solve without recording gradients. ``f`` maps a tensor to one of the same shape and dtype."""


class Progress:
    """Who has converged, and the iterate to be returned for everyone.

    A structure that has ended keeps its value: what its batch mates still need cannot change it any more. The bookkeeping is
    done on the host, with a few numbers per structure fetched at every pass: one device synchronisation, where a loop with a
    stopping test needs one anyway. Plain floats, since for one structure array operations would cost more than a small network.
    """

    def __init__(self, settings: Solver, start: Tensor, inner: Inner):
        count = inner.structures
        self.settings, self.inner, self.value = settings, inner, start
        self.roots = [max(n, 1) ** 0.5 for n in inner.counts(start)]
        self.tiny = torch.finfo(start.dtype).tiny
        self.residual = [math.inf] * count
        self.best = [math.inf] * count
        self.passes = [0] * count
        self.result = [int(Result.MAX_PASSES)] * count
        self.running = list(range(count))
        self.residuals: list[list[float]] = []
        self.trajectory: list[Tensor] = []

    def record(
        self,
        mapped: Tensor,
        change: Tensor,
        extra: Tensor | None = None,
        *,
        cost: int | np.ndarray = 1,
    ) -> list | None:
        """Take in f(z) and f(z) - z of one pass; return None when every structure has ended.

        The residual is the largest change of a row over the root mean square of the rows. A norm of all rows would let the
        error of the one atom that moved be diluted by a thousand that did not.

        Args:
          mapped, change: f(z) and f(z) - z.
          extra: numbers [k, structures] that the solver wants on the host; they travel along and are what is returned, for one
            structure as floats, for several as arrays.
          cost: evaluations of f spent, of all or of each structure.
        """
        norms, largest, *fetched = self.inner.fetch(mapped, change, extra)
        if self.inner.segments is None:
            norms, largest = [norms], [largest]
        settings, keep, running = self.settings, [], []
        residuals = [math.nan] * len(self.roots)
        for i in self.running:
            self.passes[i] += cost if isinstance(cost, int) else int(cost[i])
            change_size = float(largest[i])
            residual = change_size / max(float(norms[i]) / self.roots[i], self.tiny)
            # Not asked of the quotient: f(z) = 0 makes it overflow, and the next pass converges.
            if not (math.isfinite(change_size) and math.isfinite(norms[i])):
                self.result[i] = int(Result.NON_FINITE)
                continue
            residuals[i] = residual
            done = residual <= settings.tolerance or change_size <= settings.absolute
            if residual < self.best[i] or done or settings.iterate == "last":
                keep.append(i)
                self.residual[i] = residual
            self.best[i] = min(residual, self.best[i])
            if done:
                self.result[i] = int(Result.CONVERGED)
            elif self.passes[i] < settings.max_passes:
                running.append(i)
        self.residuals.append(residuals)
        self.value = self._where(keep, mapped, self.value)
        if len(self.residuals) in settings.trajectory:
            self.trajectory.append(self._where(self.running, mapped, self.value))
        self.running = running
        return fetched if running else None

    def _where(self, chosen: list[int], yes: Tensor, no: Tensor) -> Tensor:
        """``yes`` in the rows of the chosen structures, ``no`` elsewhere."""
        if len(chosen) in (0, len(self.roots)):
            return yes if chosen else no
        mask = torch.zeros(len(self.roots), dtype=torch.bool)
        mask[chosen] = True
        rows = self.inner.spread(mask.to(yes.device))
        return torch.where(rows.view(-1, *[1] * (yes.dim() - 1)), yes, no)

    def solution(self) -> Solution:
        """What there is to know about the solve."""
        missing = len(self.settings.trajectory) - len(self.trajectory)
        residuals = torch.tensor(self.residuals, dtype=torch.float64)
        return Solution(
            self.value,
            torch.tensor(self.passes),
            torch.tensor(self.residual, dtype=torch.float64),
            torch.tensor(self.result),
            first_residual=residuals[0],
            residuals=residuals,
            trajectory=(*self.trajectory, *[self.value] * missing),
        )


def evaluate(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """f(z), refused if it is not a map of the state onto itself."""
    mapped = f(z)
    if not isinstance(mapped, Tensor):
        raise ValueError(f"f must return a tensor like its first argument, received {type(mapped)}")
    if mapped.shape != z.shape or mapped.dtype != z.dtype or mapped.device != z.device:
        raise ValueError(
            "f must return a tensor like its first argument: received "
            f"{tuple(mapped.shape)} {mapped.dtype} on {mapped.device} for {tuple(z.shape)} {z.dtype} on {z.device}"
        )
    return mapped
