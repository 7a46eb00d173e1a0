"""Repulsion of nuclei at distances that no training set holds: a wall where a network knows nothing."""

from dataclasses import dataclass

import torch
from ase.data import covalent_radii
from ase.units import Bohr, Hartree
from jaxtyping import Float64
from torch import Tensor

from equipoise.graph import Graph

COULOMB = Hartree * Bohr  # e²/4πε₀, eV Å
LENGTH, POWER = 0.8854 * Bohr, 0.23
STRENGTHS = (0.18175, 0.50986, 0.28022, 0.02817)
RATES = (3.19980, 0.94229, 0.40290, 0.20162)


@dataclass(frozen=True)
class Repulsion:
    r"""Screened repulsion of nuclei, switched off smoothly well before bonds begin.

    V(r) = Z₁ Z₂ e²/(4πε₀ r) φ(r/a) s(r/r_c), with a = 0.8854 a₀ / (Z₁^0.23 + Z₂^0.23), φ(x) = Σ_k c_k exp(-d_k x),
    r_c = ``reach`` (R₁ + R₂) of the covalent radii, and s(u) = 1 - 10 u³ + 15 u⁴ - 6 u⁵ below u = 1, 0 above.

    At 0.7, molecules at some hundred kelvin never feel it, so it can be given to a potential that was trained without: it changes
    nothing there, and keeps atoms apart where the network would extrapolate. The wrong tool for making a bad potential good: watch
    how often a simulation gets there.

    Attributes:
      reach: in sums of covalent radii.

    Raises:
      ValueError: if ``reach`` is not between 0 and 1.

    Source: Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Solids (1985); radii: Cordero et al. (2008).
    """

    reach: float = 0.7

    def __post_init__(self):
        if not 0 < self.reach <= 1:
            raise ValueError(
                f"the reach of the repulsion must be above 0 and at most 1 sum of covalent radii, received {self.reach}; "
                "0.7 is short of every bond"
            )

    def __call__(
        self, graph: Graph, vectors: Float64[Tensor, "edges 3"]
    ) -> tuple[Float64[Tensor, " atoms"], Float64[Tensor, "edges 3"]]:
        """Energies of the atoms, eV (each has half of a pair's), and the derivative of their sum by the edge vectors, eV/Å."""
        energies = torch.zeros(len(graph.species), dtype=torch.float64, device=vectors.device)
        slope = torch.zeros_like(vectors)
        radii = torch.as_tensor(covalent_radii, dtype=torch.float64, device=vectors.device)
        reach = self.reach * (
            radii[graph.species[graph.senders]] + radii[graph.species[graph.receivers]]
        )
        close = torch.nonzero(vectors.square().sum(1) < reach.square()).flatten()
        if len(close) == 0:  # as nearly always
            return energies, slope
        receivers = graph.receivers[close]
        charges = graph.species[graph.senders[close]].double(), graph.species[receivers].double()
        with torch.enable_grad():
            near = vectors.detach()[close].requires_grad_()
            pairs = 0.5 * _pair(torch.linalg.vector_norm(near, dim=1), *charges, reach[close])
            (slope[close],) = torch.autograd.grad(pairs.sum(), near)
        return energies.index_add(0, receivers, pairs.detach()), slope


def _pair(r: Tensor, first: Tensor, second: Tensor, reach: Tensor) -> Tensor:
    x = r * (first**POWER + second**POWER) / LENGTH
    screening = sum(c * torch.exp(-d * x) for c, d in zip(STRENGTHS, RATES, strict=True))
    u = r / reach
    return COULOMB * first * second / r * screening * (1 - u**3 * (10 - 15 * u + 6 * u * u))
