"""How rotations act on the rows of an equivariant state."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equipoise.equivariant.layout import check_degrees, edge_rows
from equipoise.equivariant.wigner import Wigner


@dataclass(frozen=True)
class SphericalSpace:
    """Rows of shape [K, channels]: ``channels`` copies of each degree l = 0 … lmax, with parity (-1)^l.

    The action is orthogonal, so norms and inner products of states are invariant and every iterate of a solver that is built
    from them stays equivariant, whatever its tolerance.
    """

    lmax: int
    channels: int
    orthogonal = True

    def __post_init__(self):
        check_degrees(self.lmax, self.lmax)
        if self.channels < 1:
            raise ValueError(f"channels must be >= 1, received {self.channels}")

    @property
    def irreps(self) -> str:
        """The space as e3nn writes it, e.g. ``"64x0e+64x1o+64x2e"``."""
        return "+".join(
            f"{self.channels}x{degree}{'eo'[degree % 2]}" for degree in range(self.lmax + 1)
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one row: (K, channels)."""
        return (self.lmax + 1) ** 2, self.channels

    def scalars(self, z: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows C"]:
        """The invariant part."""
        return z[:, 0]

    def vectors(self, z: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows 3 C"]:
        """The degree-1 part as (x, y, z)."""
        if self.lmax < 1:
            raise ValueError("a space with lmax = 0 holds no vectors")
        return z[:, 1:4]

    def act(
        self, z: Float[Tensor, "rows K C"], quaternion: Float[Tensor, "4"]
    ) -> Float[Tensor, "rows K C"]:
        """Rotate every row by the rotation of a unit quaternion (w, x, y, z)."""
        # The rows of Wigner stand in edge-frame order; bring them back to degree order.
        wigner = Wigner(self.lmax).to(z.device)(quaternion[None].to(z))[0]
        return wigner[_degree_order(self.lmax).to(z.device)] @ z


def _degree_order(lmax: int) -> Tensor:
    from_edge = {row: i for i, row in enumerate(edge_rows(lmax, lmax))}
    return torch.tensor(
        [from_edge[degree, m] for degree in range(lmax + 1) for m in range(-degree, degree + 1)]
    )
