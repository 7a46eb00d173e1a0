"""How a structure enters the fixed-point map."""

from jaxtyping import Float
from torch import Tensor, nn

from equipoise.equivariant import EquivariantNorm, SphericalSpace


class AddInjection(nn.Module):
    """z ↦ norm(z + norm(u)), one atom at a time.

    The state is bounded however often the map is applied, so a fixed point exists; and no atom feels another here, so a far
    molecule stays far and a batch stays a list. (Dividing by the norm of the whole batch, as the DEQuify code does, makes the
    energy of a molecule depend on what it was batched with.)
    """

    def __init__(self, space: SphericalSpace):
        super().__init__()
        self.norm_source = EquivariantNorm(space.lmax, space.channels)
        # Start with the structure louder than the state: ‖∂(z + u)/|z + u|‖ ~ 1/(1 + 2), a contraction to begin with.
        nn.init.constant_(self.norm_source.weight, 2.0)
        self.norm_sum = EquivariantNorm(space.lmax, space.channels)

    def source(self, u: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K C"]:
        """The part that does not depend on z: once per structure."""
        return self.norm_source(u)

    def forward(
        self, z: Float[Tensor, "rows K C"], source: Float[Tensor, "rows K C"]
    ) -> Float[Tensor, "rows K C"]:
        """Inject."""
        return self.norm_sum(z + source)
