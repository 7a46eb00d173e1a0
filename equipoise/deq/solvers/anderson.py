"""Anderson acceleration, one set of coefficients per structure."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution
from equipoise.deq.solvers.solver import Progress, Solver, check_settings, evaluate


@dataclass(frozen=True)
class Anderson(Solver):
    r"""z ← Σ_i α_i (z_i + β g_i) over the last ``window`` iterates, g_i = f(z_i) - z_i,

    where α minimises ‖Σ α_i g_i‖² + ε Σ α_i² ‖g_i‖² under Σ α_i = 1, separately for each structure.

    The penalty is *relative* to each residual. An absolute one (as in TorchDEQ) outweighs the residuals as soon as these are
    small, and acceleration dies just where a warm start begins.

    Source: Anderson (1965); Walker and Ni, SIAM J. Numer. Anal. 49, 1715 (2011), eq. 1.2.

    Attributes:
      tolerance: residual (see :class:`equipoise.deq.Solution`) at which a structure has converged; a start that meets it costs
        one pass.
      max_passes: evaluations of f after which the best iterate is returned as not converged.
      window: iterates kept; memory is 2 x window states.
      mixing: β.
      regularisation: ε. Below the square of the precision of f it has no effect.
    """

    tolerance: float = 1e-4
    max_passes: int = 50
    window: int = 6
    mixing: float = 1.0
    regularisation: float = 1e-8

    def __post_init__(self):
        check_settings(tolerance=self.tolerance, max_passes=self.max_passes)
        if self.window < 1:
            raise ValueError(f"window must be >= 1, received {self.window}")
        if not 0 < self.mixing <= 1:
            raise ValueError(f"mixing must lie in (0, 1], received {self.mixing}")
        if not self.regularisation > 0:
            raise ValueError(f"regularisation must be > 0, received {self.regularisation}")

    def solve(self, f: Callable[[Tensor], Tensor], start: Tensor, inner: Inner) -> Solution:
        progress, z = Progress(start, inner, self.tolerance), start
        rows = 1 if inner.segments is None else start.shape[0]
        size = start.numel() // rows
        steps = start.new_zeros(rows, self.window, size)
        changes = start.new_zeros(rows, self.window, size)
        gram = torch.zeros(
            inner.structures, self.window, self.window, dtype=torch.float64, device=start.device
        )
        for k in range(self.max_passes):
            mapped = evaluate(f, z)
            change = mapped - z
            if progress.record(mapped, change):
                break
            slot, filled = k % self.window, min(k + 1, self.window)
            changes[:, slot] = change.reshape(rows, size)
            steps[:, slot] = (z + self.mixing * change).reshape(rows, size)
            overlap = changes[:, :filled] @ changes[:, slot].unsqueeze(-1)
            overlap = inner.sum(overlap.squeeze(-1))
            gram[:, slot, :filled] = overlap
            gram[:, :filled, slot] = overlap
            alpha = self._coefficients(gram[:, :filled, :filled])
            alpha = inner.spread(alpha).to(start.dtype).unsqueeze(1)
            z = (alpha @ steps[:, :filled]).view_as(start)
        return progress.solution()

    def _coefficients(self, gram: Tensor) -> Tensor:
        """α = H⁻¹1 / 1ᵀH⁻¹1 with H = G + ε diag G, solved after scaling G to unit diagonal."""
        scale = gram.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(gram.dtype).tiny).rsqrt()
        scaled = gram * scale.unsqueeze(1) * scale.unsqueeze(2)
        # A structure that ended or broke leaves NaN or zero rows; it is not moved by what it gets here.
        scaled = torch.nan_to_num(scaled)
        ridge = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device) * self.regularisation
        relative = scale / scale.amax(1, keepdim=True)
        alpha = torch.linalg.solve_ex(scaled + ridge, relative)[0] * relative
        return torch.nan_to_num(alpha / alpha.sum(1, keepdim=True))
