"""What a backbone is: one equivariant map z → z, and how to enter and leave it."""

import abc

from jaxtyping import Float
from torch import Tensor, nn

from equipoise.equivariant import SphericalSpace
from equipoise.graph import Graph


class Backbone(nn.Module, abc.ABC):
    """Methods that serve the explicit stack and the equilibrium model alike.

    Class attributes:
      space: how rotations act on a row of the state.
      site: "node" or "edge": what a row of the state belongs to.
    """

    space: SphericalSpace
    site: str

    @abc.abstractmethod
    def encode(self, graph: Graph, vectors: Float[Tensor, "edges 3"]) -> tuple[Tensor, ...]:
        """Everything that does not depend on z, as a flat (named) tuple of tensors; computed once per structure.

        ``vectors`` are the edge vectors in Å; derivatives with respect to geometry flow through them and nothing else.
        """

    def recomputes(self, graph: Graph) -> bool:
        """Whether the geometry of ``graph`` is not kept in the context but computed again at every pass, to save memory."""
        return False

    @abc.abstractmethod
    def start(self, context: tuple[Tensor, ...]) -> Float[Tensor, "rows ..."]:
        """The embedding of the structure in the state space."""

    @abc.abstractmethod
    def update(
        self, z: Float[Tensor, "rows ..."], context: tuple[Tensor, ...]
    ) -> Float[Tensor, "rows ..."]:
        """All layers, once."""

    @abc.abstractmethod
    def readout(
        self, z: Float[Tensor, "rows ..."], context: tuple[Tensor, ...]
    ) -> Float[Tensor, "atoms features"]:
        """Invariant features of each atom."""
