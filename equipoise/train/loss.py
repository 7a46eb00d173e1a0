"""The loss: how wrong a prediction is, as one number to push down."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import Prediction

LossKind = Literal["l1", "l2", "l2mae", "huber"]


@dataclass(frozen=True)
class Loss:
    r"""Weighted energy and force errors of a batch.

    $$ L = w_E \,\mathrm{mean}_s\, \ell(\Delta E_s / n_s)
         + w_F \,\mathrm{mean}\, \ell(\Delta F) $$

    with $\Delta E_s$ the energy error of structure $s$ (eV), $n_s$ its number of atoms and
    $\Delta F$ the force errors (eV/Angstrom). Dividing by $n_s$, not by $n_s^2$ or not at
    all, keeps small and large structures comparable under an absolute loss. $\ell$ is

    - `l1`: $|x|$, over force components;
    - `l2`: $x^2$, over force components;
    - `l2mae`: $|x|$ for energies and the Euclidean length of the error of each atom's force
      (Chanussot et al., Open Catalyst 2020, arXiv:2010.09990, "L2MAE"): unlike `l1` it does
      not depend on how the structure is oriented;
    - `huber`: $x^2/2$ below $\delta$ = `huber_delta`, $\delta(|x| - \delta/2)$ above.

    A label that is NaN or absent takes no part; a batch without any label of a kind
    contributes 0 for that kind, with a zero gradient.
    """

    kind: LossKind
    energy_weight: float  # per eV/atom (squared for l2)
    force_weight: float  # per eV/Angstrom (squared for l2)
    huber_delta: float = 0.01  # eV/atom and eV/Angstrom

    def __call__(self, prediction: Prediction, graph: Graph) -> Float64[Tensor, ""]:
        loss = prediction.energy.new_zeros(())
        if graph.energy is not None and self.energy_weight > 0:
            error = (prediction.energy - graph.energy) / graph.counts
            loss = loss + self.energy_weight * self._mean(error, ~graph.energy.isnan())
        if graph.forces is not None and self.force_weight > 0:
            error = prediction.forces - graph.forces
            known = ~graph.forces.isnan()
            if self.kind == "l2mae":
                known = known.all(dim=1)
                # Indexed before the norm: a NaN inside it would reach the weights even if
                # the row were dropped afterwards.
                error = torch.linalg.vector_norm(error[known], dim=1)
                known = torch.ones_like(error, dtype=torch.bool)
            loss = loss + self.force_weight * self._mean(error, known)
        return loss

    def _mean(self, error: Tensor, known: Bool[Tensor, "..."]) -> Float64[Tensor, ""]:
        error = error[known]
        if self.kind == "l2":
            terms = error.square()
        elif self.kind == "huber":
            terms = torch.nn.functional.huber_loss(
                error, torch.zeros_like(error), delta=self.huber_delta, reduction="none"
            )
        else:
            terms = error.abs()
        return terms.sum() / max(terms.numel(), 1)
