"""Forces and stress from the derivative of the energy with respect to edge vectors.

An energy that sees positions and cell only through r_e = x_receiver - x_sender + S C has, with g_e = ∂E/∂r_e,

  F_i = Σ_{e from i} g_e - Σ_{e into i} g_e,      ∂E/∂ε = Σ_e (r_e ⊗ g_e + g_e ⊗ r_e) / 2,     σ = ∂E/∂ε / V,

the second being what straining positions and cell alike (r → (1 + ε) r) gives. One differentiation serves both.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from equipoise.graph import Graph


def edge_gradient(
    outputs: Tensor | tuple[Tensor, ...],
    vectors: Float[Tensor, "edges 3"],
    cotangents: tuple[Tensor, ...] | None = None,
    *,
    create_graph: bool = False,
) -> Float[Tensor, "edges 3"]:
    """Σ cotangent · ∂output/∂vectors, cotangents 1 by default; zeros for a graph without edges, which no output depends on."""
    if not vectors.numel():
        return torch.zeros_like(vectors)
    if (
        cotangents is None
    ):  # a sum of the outputs would have no graph where the caller has switched gradients off
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        cotangents = tuple(torch.ones_like(each) for each in outputs)
    return torch.autograd.grad(outputs, vectors, cotangents, create_graph=create_graph)[0]


def forces(gradient: Float[Tensor, "edges 3"], graph: Graph) -> Float[Tensor, "atoms 3"]:
    """Forces in eV/Å from g_e in eV/Å; they sum to zero in each structure by construction."""
    zero = torch.zeros(graph.n_atoms, 3, dtype=gradient.dtype, device=gradient.device)
    return zero.index_add(0, graph.senders, gradient).index_add(0, graph.receivers, -gradient)


def stress(
    gradient: Float[Tensor, "edges 3"], vectors: Float[Tensor, "edges 3"], graph: Graph
) -> Float[Tensor, "structures 6"]:
    """Stress in eV/Å³ (ASE's sign, Voigt xx yy zz yz xz xy).

    Raises:
      ValueError: for a structure without a volume.
    """
    if not bool(((graph.volume > 0) & graph.pbc.any(1)).all()):
        raise ValueError(
            "stress needs a periodic cell with a volume; received a structure without one (pass stress=False)"
        )
    virial = vectors.unsqueeze(2) * gradient.unsqueeze(1)
    virial = (virial + virial.transpose(1, 2)) / 2
    total = torch.zeros(graph.n_structures, 3, 3, dtype=virial.dtype, device=virial.device)
    total = total.index_add(0, graph.owner[graph.senders], virial) / graph.volume[:, None, None]
    rows, columns = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
    return total[:, rows, columns]
