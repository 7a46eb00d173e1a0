"""Extrapolation with coefficients fitted, structure by structure, to something already known about the next problem."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equipoise.deq.inner import Inner
from equipoise.deq.predictors.predictor import Predictor, check_history


@dataclass(frozen=True)
class LeastSquares(Predictor):
    r"""$z^{\mathrm{guess}} = \sum_i \alpha_i z_{-i}$, where α rebuilds the new descriptor d from the old ones:

    $$ \min_{\alpha} \Big\| d - \sum_i \alpha_i d_{-i} \Big\|^2
       + \epsilon \, \overline{\|d_{-i} - d_{-1}\|^2} \sum_{i \ge 2} \alpha_i^2, \qquad \sum_i \alpha_i = 1, $$

    separately for each structure. The descriptor is any tensor that is known before the solve and that the solution follows
    smoothly; the input injected into the fixed point is one. The steps need not be equal, and a path that doubles back is no
    obstacle. If the solution is an affine function of the descriptor and the new one an affine combination of the old ones,
    the guess is exact (for ε → 0).

    The unknowns are the weights of the *differences* from the newest solution, so the ridge pulls towards
    :class:`equipoise.deq.predictors.Last`; a structure that has not moved at all gets exactly that. With orthogonal
    symmetries of the descriptor (a rotation acting on it) the coefficients do not change.

    The wrong tool where the solution depends on more than the descriptor shows, and for a scheme with a fixed number of
    passes: Σ|α| has no bound that is known beforehand, unlike that of :class:`equipoise.deq.predictors.ASPC`.

    Source: the least-squares predictor of Wang and Skeel, J. Chem. Phys. 123, 164107 (2005), with the fit made on a descriptor
    instead of on the last solutions, as Polack, Dusson, Stamm and Lipparini (arXiv:2107.13218, 2021) do for density matrices.

    Attributes:
      depth: past solutions used, at least 2.
      ridge: ε, larger than 0. Errors δ of the solves enter the guess times |α|, so more of the fit is worth having the tighter
        the solves are: about (δ / Δ)², Δ being how far the solution moved over the history, is best. The default is made for
        errors of a thousandth of the motion; 1e-10 suits tight solves in float64.
    """

    depth: int = 6
    ridge: float = 1e-6

    def __post_init__(self):
        if self.depth < 2:
            raise ValueError(f"depth must be >= 2, received {self.depth}; for 1 use Last()")
        if not self.ridge > 0:
            raise ValueError(f"ridge must be > 0, received {self.ridge}")

    def coefficients(
        self,
        descriptors: Sequence[Float[Tensor, "rows ..."]],
        descriptor: Float[Tensor, "rows ..."],
        inner: Inner | None = None,
    ) -> Float[Tensor, "structures points"]:
        """α, newest first, in float64, for the last min(len(descriptors), depth) solutions."""
        inner = Inner() if inner is None else inner
        newest, *older = descriptors[: self.depth]
        for past in descriptors[: self.depth]:
            if past.shape != descriptor.shape:
                raise ValueError(
                    f"descriptors must all have the shape of the new one, {tuple(descriptor.shape)}, "
                    f"received {tuple(past.shape)}"
                )
        ones = torch.ones(inner.structures, 1, dtype=torch.float64, device=descriptor.device)
        if not older:
            return ones
        # Differences before products: how the descriptor moved is a small part of it.
        moves = torch.stack([(past - newest).reshape(len(newest), -1) for past in older], dim=1)
        target = (descriptor - newest).reshape(len(newest), -1, 1)
        gram = inner.sum(moves @ moves.mT)
        overlap = inner.sum(moves @ target)
        scale = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        scale = scale.clamp_min(torch.finfo(gram.dtype).tiny)
        ridge = self.ridge * torch.eye(len(older), dtype=gram.dtype, device=gram.device)
        weights = torch.linalg.solve_ex(gram / scale + ridge, overlap / scale)[0].squeeze(-1)
        return torch.cat([ones - weights.sum(1, keepdim=True), weights], dim=1)

    def __call__(
        self,
        history: Sequence[Tensor],
        *,
        descriptors: Sequence[Tensor] | None = None,
        descriptor: Tensor | None = None,
        inner: Inner | None = None,
    ) -> Tensor:
        check_history(history)
        if descriptors is None or descriptor is None:
            missing = "descriptors" if descriptors is None else "descriptor"
            raise ValueError(
                "LeastSquares needs the descriptors of the past problems and the descriptor of the new one, received no "
                f"{missing}; without them use ASPC() or Quadratic()"
            )
        inner = Inner() if inner is None else inner
        points = min(len(history), self.depth)
        if len(descriptors) < points:
            raise ValueError(
                f"every past solution needs its descriptor: received {len(descriptors)} for {len(history)} solutions"
            )
        if inner.segments is not None and not len(history[0]) == len(descriptor) == len(
            inner.segments
        ):
            raise ValueError(
                f"states and descriptors must have the {len(inner.segments)} rows that inner.owner names, received "
                f"{len(history[0])} and {len(descriptor)}"
            )
        alpha = self.coefficients(descriptors[:points], descriptor, inner)
        alpha = inner.spread(alpha).to(history[0].dtype)
        guess = torch.zeros_like(history[0])
        for weight, past in zip(alpha.unbind(1), history, strict=False):
            guess = guess + weight.view(-1, *[1] * (past.dim() - 1)) * past
        return guess
