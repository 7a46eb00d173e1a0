"""The loss: how wrong a prediction is, as one number to push down."""

from dataclasses import astuple, dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import Prediction

LossKind = Literal["l1", "l2", "l2mae", "huber"]
# xx yy zz yz xz xy: the off-diagonal ones stand twice in the tensor.
VOIGT_COUNTS = (1.0, 1.0, 1.0, 2.0, 2.0, 2.0)


@dataclass(frozen=True)
class Terms:
    """Over how many terms each mean of the loss goes: labels that are there, in the sense of the kind of loss."""

    energy: float = 0
    forces: float = 0
    stress: float = 0


@dataclass(frozen=True)
class Loss:
    r"""Weighted energy, force and stress errors of a batch.

    $$ L = w_E \,\mathrm{mean}_s\, \ell(\Delta E_s / n_s)
         + w_F \,\mathrm{mean}\, \ell(\Delta F)
         + w_\sigma \,\mathrm{mean}_s\, \ell(\Delta \sigma_s) $$

    with $\Delta E_s$ the energy error of structure $s$ (eV), $n_s$ its number of atoms,
    $\Delta F$ the force errors (eV/Å) and $\Delta\sigma$ the stress errors (eV/Å³). The energy
    term is *per atom*: dividing by $n_s$, not by $n_s^2$ or not at all, keeps small and large
    structures comparable under an absolute loss. Recipes of other codes whose energy term is
    *per structure* are had by multiplying `energy_weight` with the number of atoms (for `l2`
    its square), exactly so if all structures have as many. $\ell$ is

    - `l1`: $|x|$, over force and stress components;
    - `l2`: $x^2$, over force and stress components;
    - `l2mae`: $|x|$ for energies, the Euclidean length of the error of each atom's force
      (Chanussot et al., Open Catalyst 2020, arXiv:2010.09990, "L2MAE") and the Frobenius norm
      of the stress error: unlike `l1` it does not depend on how the structure is oriented;
    - `huber`: $x^2/2$ below $\delta$ = `huber_delta`, $\delta(|x| - \delta/2)$ above.

    A label that is NaN or absent takes no part, and each mean goes over those that are there; a
    batch without any label of a kind contributes 0 for that kind, with a zero gradient.
    """

    kind: LossKind
    energy_weight: float  # per eV/atom (squared for l2)
    force_weight: float  # per eV/Å (squared for l2)
    huber_delta: float = 0.01  # eV/atom, eV/Å and eV/Å³
    stress_weight: float = 0.0  # per eV/Å³ (squared for l2)

    def terms(self, graph: Graph) -> Terms:
        """How many terms the labels of a batch make."""
        whole = (
            self.kind == "l2mae"
        )  # a force or a stress counts as one, and only if it is complete
        return Terms(
            energy=0 if graph.energy is None else int((~graph.energy.isnan()).sum()),
            forces=0 if graph.forces is None else int(_known(graph.forces, whole).sum()),
            stress=0 if graph.stress is None else int(_known(graph.stress, whole).sum()),
        )

    def __call__(
        self, prediction: Prediction, graph: Graph, terms: Terms | None = None
    ) -> Float64[Tensor, ""]:
        """The loss of a batch.

        Args:
          prediction, graph: of the batch. A kind of label with weight 0 need not be predicted.
          terms: by what each sum is divided, if the batch is a part of a larger one; default its own.
        """
        loss = prediction.energy.new_zeros(())
        energy, forces, stress = astuple(self.terms(graph) if terms is None else terms)
        if graph.energy is not None and self.energy_weight > 0:
            error = (prediction.energy - graph.energy) / graph.counts
            total = self._sum(error[~graph.energy.isnan()])
            loss = loss + self.energy_weight * total / max(energy, 1)
        if graph.forces is not None and self.force_weight > 0:
            total = self._sum(self._vectors(prediction.forces - graph.forces, graph.forces))
            loss = loss + self.force_weight * total / max(forces, 1)
        if graph.stress is not None and self.stress_weight > 0:
            twice = torch.tensor(VOIGT_COUNTS, dtype=torch.float64, device=graph.device).sqrt()
            error = prediction.stress - graph.stress
            error = error * twice if self.kind == "l2mae" else error
            total = self._sum(self._vectors(error, graph.stress))
            loss = loss + self.stress_weight * total / max(stress, 1)
        return loss

    def _vectors(self, error: Tensor, label: Tensor) -> Tensor:
        """Components, or for l2mae lengths, of the errors whose labels are known."""
        known = _known(label, self.kind == "l2mae")
        # Indexed before the norm: a NaN inside it would reach the weights even if the row were
        # dropped afterwards.
        error = error[known]
        return torch.linalg.vector_norm(error, dim=1) if self.kind == "l2mae" else error

    def _sum(self, error: Tensor) -> Float64[Tensor, ""]:
        if self.kind == "l2":
            return error.square().sum()
        if self.kind == "huber":
            return torch.nn.functional.huber_loss(
                error, torch.zeros_like(error), delta=self.huber_delta, reduction="sum"
            )
        return error.abs().sum()


def _known(label: Tensor, whole: bool) -> Bool[Tensor, "..."]:
    known = ~label.isnan()
    return known.all(dim=1) if whole else known


def with_volumes(graph: Graph) -> Graph:
    """The same structures, so that a stress can be asked for where only some of them have one.

    The stress of a molecule is not defined, and asking for it is an error. In a batch that has stress labels for others, it is
    given the cell vectors it lacks, of 1 Å: no edge crosses them, so nothing else changes, and its stress meets no label.
    """
    if bool(((graph.volume > 0) & graph.pbc.any(1)).all()):
        return graph
    lacking = (graph.cell == 0).all(2, keepdim=True)
    unit = torch.eye(3, dtype=graph.cell.dtype, device=graph.device)
    cell = torch.where(lacking, unit, graph.cell)
    return graph.replace(cell=cell, pbc=torch.ones_like(graph.pbc))
