"""Newton's method with Krylov subspaces: few, expensive steps, for tolerances that others crawl to."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers.solver import Progress, Solver, evaluate


@dataclass(frozen=True, kw_only=True)
class Newton(Solver):
    r"""z ← z + t s with (I - J) s = f(z) - z solved by GMRES, J = ∂f/∂z by forward-mode products, for each structure.

    The linear systems are solved only as tightly as the progress of the outer steps deserves (Eisenstat and Walker), and t is
    halved while a step makes the residual grow. Converges quadratically where :class:`Anderson` is linear, and where plain
    iteration diverges; pays off below residuals of about 1e-8, on ill-conditioned maps, and for adjoint problems, which are
    linear. Above that Anderson is cheaper: a product with J takes the time of one to two evaluations of f and counts as one pass.

    f must consist of operations with forward-mode derivatives (custom ``torch.autograd.Function``s often have none), or offer a
    method ``linearise(z)`` that returns v ↦ J v.

    Source: Saad and Schultz, SIAM J. Sci. Stat. Comput. 7, 856 (1986), algorithm 4; Eisenstat and Walker, SIAM J. Sci. Comput.
    17, 16 (1996), eq. 2.6.

    Attributes:
      tolerance, absolute, max_passes, iterate, trajectory: see :class:`Solver`.
      krylov: dimension of the subspaces, and so most products per step; memory is that many states.
      forcing: relative accuracy of the first linear solve, and the worst of any.
    """

    max_passes: int = 200
    krylov: int = 20
    forcing: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.krylov < 1:
            raise ValueError(f"krylov must be >= 1, received {self.krylov}")
        if not 0 < self.forcing < 1:
            raise ValueError(f"forcing must lie in (0, 1), received {self.forcing}")

    def solve(self, f: Callable[[Tensor], Tensor], start: Tensor, inner: Inner) -> Solution:
        progress, z = Progress(self, start, inner), start
        affine = getattr(f, "affine", False)
        mapped = evaluate(f, z)
        change = mapped - z
        size = self._record(progress, mapped, change, 1)
        forcing = np.full(inner.structures, self.forcing)
        while size is not None:
            residual = np.nan_to_num(progress.residuals[-1], nan=1.0)
            enough = 0.3 * self.tolerance / np.maximum(residual, 1e-300)
            wanted = np.minimum(enough if affine else np.maximum(forcing, enough), self.forcing)
            budget = self.max_passes - np.array(progress.passes) - 1
            product = f.linearise(z) if hasattr(f, "linearise") else _product(f, z)
            running = np.zeros(inner.structures, dtype=bool)
            running[progress.running] = True
            step, products = self._gmres(product, change, size, wanted, running, budget, inner)
            old, length = z, np.ones(inner.structures)
            cost, before = products + 1, size
            while True:
                scaled = torch.from_numpy(length).to(z.device)
                z = old + inner.combine(scaled.unsqueeze(0), step.unsqueeze(0))
                mapped = evaluate(f, z)
                change = mapped - z
                size = self._record(progress, mapped, change, cost)
                if size is None:
                    return progress.solution()
                running[:] = False
                running[progress.running] = True
                worse = running & ~(size < before) & (length > 0.02)
                if not worse.any():
                    break
                length = np.where(worse, length / 2, length)
                cost = worse.astype(np.int64)
            forcing = np.clip(0.9 * (size / np.maximum(before, 1e-300)) ** 2, 0, self.forcing)
        return progress.solution()

    def _record(self, progress, mapped: Tensor, change: Tensor, cost) -> np.ndarray | None:
        """‖f(z) - z‖ of each structure, or None when all have ended."""
        norms = progress.inner.norm(change).to(change).unsqueeze(0)
        fetched = progress.record(mapped, change, norms, cost=cost)
        return None if fetched is None else np.nan_to_num(np.reshape(fetched[0], -1))

    def _gmres(
        self,
        product: Callable[[Tensor], Tensor],
        right: Tensor,
        size: np.ndarray,
        wanted: np.ndarray,
        running: np.ndarray,
        budget: np.ndarray,
        inner: Inner,
    ) -> tuple[Tensor, np.ndarray]:
        """(s, products spent) of each structure, (I - J) s ≈ right to ``wanted`` x |right|.

        All structures go through the products together, but each takes its answer from its own last one.
        """
        count, dimension = inner.structures, self.krylov
        size = np.where(np.isfinite(size), size, 0)
        basis = right.new_zeros(dimension + 1, *right.shape)
        basis[0] = self._scaled(right, size, inner)
        hessenberg = np.zeros((count, dimension + 1, dimension))
        answer = np.zeros((count, dimension))
        products = np.zeros(count, dtype=np.int64)
        active = running & (size > 0) & (budget > 0)
        for j in range(dimension):
            if not active.any():
                break
            new = basis[j] - evaluate(product, basis[j])
            overlaps = 0.0
            for _ in range(2):  # once is not enough in float32
                overlap = inner.dots(basis[: j + 1], new)
                new = new - inner.combine(overlap, basis[: j + 1])
                overlaps = overlaps + overlap
            fetched = torch.cat([overlaps.double(), inner.norm(new).unsqueeze(0)]).cpu().numpy()
            products += active
            fetched = np.where(np.isfinite(fetched), fetched, 0)
            hessenberg[:, : j + 2, j] = fetched.T
            basis[j + 1] = self._scaled(new, fetched[-1], inner)
            target = np.zeros((count, j + 2, 1))
            target[:, 0, 0] = size
            small = hessenberg[:, : j + 2, : j + 1]
            found = np.linalg.pinv(small) @ target
            left = np.linalg.norm(small @ found - target, axis=1)[:, 0]
            answer[active, : j + 1] = found[active, :, 0]
            # A subspace that stopped growing holds the solution.
            active &= (left > wanted * size) & (products < budget)
            active &= fetched[-1] > 1e-14 * np.abs(fetched).max(0)
        used = torch.from_numpy(np.ascontiguousarray(answer.T)).to(right.device)
        return inner.combine(used, basis[:dimension]), products

    def _scaled(self, vector: Tensor, size: np.ndarray, inner: Inner) -> Tensor:
        inverse = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
        factor = torch.from_numpy(inverse).to(vector.device).unsqueeze(0)
        return inner.combine(factor, torch.nan_to_num(vector).unsqueeze(0))


def _product(f: Callable[[Tensor], Tensor], z: Tensor) -> Callable[[Tensor], Tensor]:
    """v ↦ J(z) v."""

    def product(vector: Tensor) -> Tensor:
        with warnings.catch_warnings(), forward_ad.dual_level():
            # torch's own, at the first forward-mode derivative of a process.
            warnings.filterwarnings(
                "ignore", message="`torch.jit.script", category=DeprecationWarning
            )
            try:
                mapped = f(forward_ad.make_dual(z, vector))
            except (NotImplementedError, RuntimeError) as error:
                raise ValueError(
                    f"Newton needs forward-mode derivatives, and f has an operation without them ({error}); "
                    "use Anderson or Broyden, or give f a method linearise(z) that returns v -> J v"
                ) from error
            tangent = forward_ad.unpack_dual(mapped).tangent
        return torch.zeros_like(z) if tangent is None else tangent

    return product
