"""Anderson acceleration, one set of coefficients per structure."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers.solver import Progress, Solver, evaluate


@dataclass(frozen=True, kw_only=True)
class Anderson(Solver):
    r"""z ← Σ_i α_i (z_i + β g_i) over the last ``window`` iterates, g_i = f(z_i) - z_i,

    where α minimises ‖Σ α_i g_i‖² + ε Σ α_i² ‖g_i‖² under Σ α_i = 1, separately for each structure.

    The penalty is *relative* to each residual. An absolute one (as in TorchDEQ) outweighs the residuals as soon as these are
    small, and acceleration dies just where a warm start begins.

    Source: Anderson (1965); Walker and Ni, SIAM J. Numer. Anal. 49, 1715 (2011), eq. 1.2.

    Attributes:
      tolerance, absolute, max_passes, iterate, trajectory: see :class:`Solver`.
      window: iterates kept; memory is 2 x window states.
      mixing: β.
      regularisation: ε. Below the square of the precision of f it has no effect.
      orthogonal: solve the least-squares problem by QR instead of its normal equations. These see the square of the condition
        number, which costs passes below residuals of 1e-8 with long windows; QR costs about three times the time per pass.
      restart: forget the history of a structure whose residual exceeds this many times its best one, for maps on which
        acceleration goes astray.
    """

    window: int = 6
    mixing: float = 1.0
    regularisation: float = 1e-8
    orthogonal: bool = False
    restart: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"window must be >= 1, received {self.window}")
        if not 0 < self.mixing <= 1:
            raise ValueError(f"mixing must lie in (0, 1], received {self.mixing}")
        if not self.regularisation > 0:
            raise ValueError(f"regularisation must be > 0, received {self.regularisation}")
        if self.restart is not None and not self.restart > 1:
            raise ValueError(f"restart must be > 1 or None, received {self.restart}")

    def solve(self, f: Callable[[Tensor], Tensor], start: Tensor, inner: Inner) -> Solution:
        progress, z = Progress(self, start, inner), start
        steps = start.new_empty(self.window, *start.shape)
        changes = start.new_empty(self.window, *start.shape)
        step_of, change_of = steps.unbind(), changes.unbind()
        # Entries are floats for one structure and arrays over structures for several; the algebra is the same.
        one = inner.segments is None
        zero = 0.0 if one else np.zeros(inner.structures)
        gram = [[zero] * self.window for _ in range(self.window)]
        valid = None if self.restart is None else [zero] * self.window
        k = 0
        while True:
            mapped = evaluate(f, z)
            slot, filled = k % self.window, min(k + 1, self.window)
            change = torch.sub(mapped, z, out=change_of[slot])
            overlaps = progress.record(mapped, change, inner.dots(changes[:filled], change))
            if overlaps is None:
                return progress.solution()
            torch.add(z, change, alpha=self.mixing, out=step_of[slot])
            for i, overlap in enumerate(overlaps):
                gram[slot][i] = gram[i][slot] = overlap
            if valid is not None:
                keep = self._in_order(progress)
                valid = [v * (float(keep[0]) if one else keep) for v in valid]
                valid[slot] = zero + 1.0
            if self.orthogonal:
                alpha = self._by_qr(changes[:filled], gram, valid, slot, inner)
            elif one:
                alpha = self._by_gram([row[:filled] for row in gram[:filled]], valid, max)
            else:
                with np.errstate(all="ignore"):  # of structures that ended or broke
                    rows = [row[:filled] for row in gram[:filled]]
                    alpha = np.stack(self._by_gram(rows, valid, np.maximum))
            coefficients = torch.as_tensor(alpha, dtype=start.dtype, device=start.device)
            z = inner.combine(coefficients.view(filled, -1), steps[:filled])
            k += 1

    def _in_order(self, progress: Progress) -> np.ndarray:
        """1 for the structures that may keep their history, 0 for those that start anew."""
        now, best = np.array(progress.residuals[-1]), np.array(progress.best)
        return 1.0 - (now > self.restart * best)

    def _by_gram(self, gram: list[list], valid: list | None, larger: Callable) -> list:
        """α = H⁻¹1 / 1ᵀH⁻¹1 with H = G + ε diag G, by elimination.

        Like Cholesky's, it is indifferent to the scale of each residual. A pivot that rounding made too small is raised to what
        the penalty guarantees.
        """
        count = len(gram)
        floor = [self.regularisation * gram[i][i] + 1e-300 for i in range(count)]
        # Only the upper triangle. A forgotten iterate is uncoupled and gets no weight.
        upper = [list(row) for row in gram]
        if valid is not None:
            for i, row in enumerate(upper):
                row[:] = [a * valid[i] * valid[j] for j, a in enumerate(row)]
        right = [1.0] * count if valid is None else valid[:count]
        for i in range(count):
            row = upper[i]
            row[i] = pivot = larger(row[i] + floor[i], floor[i])
            for j in range(i + 1, count):
                factor, below = row[j] / pivot, upper[j]
                for m in range(j, count):
                    below[m] = below[m] - factor * row[m]
                right[j] = right[j] - factor * right[i]
        alpha = [0.0] * count
        for i in reversed(range(count)):
            row, rest = upper[i], right[i]
            for j in range(i + 1, count):
                rest = rest - row[j] * alpha[j]
            alpha[i] = rest / row[i]
        total = sum(alpha)
        return [a / total for a in alpha]

    def _by_qr(
        self, changes: Tensor, gram: list[list], valid: list | None, newest: int, inner: Inner
    ) -> np.ndarray:
        """The same problem as min ‖g + Σ γ_i (g_i - g)‖ with g the newest change; α_i = γ_i, α_newest = 1 - Σ γ_i."""
        count = len(changes)
        others = [i for i in range(count) if i != newest]
        if not others:
            return np.ones((1, inner.structures))
        scale = np.sqrt([gram[i][i] for i in range(count)]).reshape(count, -1).T
        kept = (
            np.ones_like(scale) if valid is None else np.array(valid[:count]).reshape(count, -1).T
        )
        columns = _dense(changes[others] - changes[newest], inner)
        target = _dense(-changes[newest][None], inner)
        # The penalty ε Σ α_i² ‖g_i‖², the newest included, as further rows of the problem.
        weight = np.sqrt(self.regularisation) * np.where(np.isfinite(scale), scale, 0)
        ridge = np.zeros((inner.structures, len(others) + 1, len(others)))
        ridge[:, range(len(others)), range(len(others))] = weight[:, others]
        ridge[:, -1, :] = -weight[:, newest, None]
        aim = np.zeros((inner.structures, len(others) + 1, 1))
        aim[:, -1, 0] = -weight[:, newest]
        excluded = kept[:, others] == 0
        size = np.maximum(scale[:, newest], np.finfo(np.float64).tiny)[:, None]
        ridge[:, range(len(others)), range(len(others))] += np.where(excluded, size, 0)
        mask = torch.from_numpy(~excluded).to(columns).unsqueeze(1)
        columns = torch.cat([columns * mask, torch.from_numpy(ridge).to(columns)], 1)
        target = torch.cat([target, torch.from_numpy(aim).to(columns)], 1)
        q, r = torch.linalg.qr(torch.nan_to_num(columns))
        right = q.mT @ torch.nan_to_num(target)
        gamma = torch.linalg.solve_triangular(r, right, upper=True).squeeze(2).cpu().numpy()
        alpha = np.zeros((inner.structures, len(changes)))
        alpha[:, others] = np.where(excluded, 0, gamma)
        alpha[:, newest] = 1 - alpha.sum(1)
        return alpha.T


def _dense(stack: Tensor, inner: Inner) -> Tensor:
    """[k, rows, ...] → [structures, most elements, k], padded with zeros."""
    if inner.segments is None:
        return stack.flatten(1).T.unsqueeze(0)
    counts = torch.bincount(inner.segments, minlength=inner.structures)
    first = counts.cumsum(0) - counts
    # Where a row stands among those of its structure, in whatever order the owners come.
    order = torch.argsort(inner.segments, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - first[inner.segments[order]]
    padded = stack.new_zeros(inner.structures, int(counts.max()), len(stack), stack[0, 0].numel())
    rows = stack.reshape(*stack.shape[:2], -1)
    padded[inner.segments, place] = rows.transpose(0, 1)
    return padded.transpose(2, 3).flatten(1, 2)
