"""From coefficients to values on the sphere and back, on the original's grid and in its normalisation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.equivariant import equiangular_grid, spherical_harmonics


class SphereGrid(nn.Module):
    r"""x(n_p) = Σ_lm c_l Y_lm(n_p) x_lm and x_lm = Σ_p w_p Y_lm(n_p) / b_l x(n_p).

    b_l = 1/√((2l+1)(lmax+1)), so that coefficients of variance 1 give values of variance 1. Where orders are cut off at mmax, both
    directions are enlarged for l > mmax by √((2l+1)/(2mmax+1)) to make up for the missing components: c_l = b_l s_l, and the
    way back has s_l / b_l. The two are then *not* inverse to each other; it is how the original does it.

    Source: Liao et al., EquiformerV2 (2024), arXiv:2306.12059, section 4.3 and its published code.

    Args:
      lmax, mmax: highest degree and order.
      rows: (l, m) of each coefficient, in the order they come in.
      resolution: polar angles and longitudes; None: 2 (lmax + 1) polar angles and as many longitudes as orders need.
    """

    def __init__(
        self, lmax: int, mmax: int, rows: tuple[tuple[int, int], ...], resolution: int | None
    ):
        super().__init__()
        if resolution is None:
            longitudes = 2 * mmax + (3 if lmax == mmax else 1)
            points, weights = grid(2 * (lmax + 1), longitudes)
            self.shape = (2 * (lmax + 1), longitudes)
        else:
            points, weights = grid(resolution, resolution)
            self.shape = (resolution, resolution)
        columns = torch.tensor([degree**2 + degree + m for degree, m in rows])
        degree = torch.tensor([float(degree) for degree, _ in rows], dtype=torch.float64)
        size = ((2 * degree + 1) * (lmax + 1)).sqrt()
        enlarged = truncation_scale(lmax, mmax, rows)
        values = spherical_harmonics(points, lmax)[:, columns] * enlarged
        self.register_buffer("to_grid", values / size, persistent=False)
        self.register_buffer(
            "from_grid", (values * size * weights[:, None]).T.contiguous(), persistent=False
        )

    def sample(self, x: Float[Tensor, "rows M C"]) -> Float[Tensor, "rows points C"]:
        """Values on the grid."""
        return self.to_grid.to(x.dtype) @ x

    def project(self, values: Float[Tensor, "rows points C"]) -> Float[Tensor, "rows M C"]:
        """Coefficients of values on the grid."""
        return self.from_grid.to(values.dtype) @ values


def grid(polar: int, longitudes: int) -> tuple[Tensor, Tensor]:
    """Points [polar · longitudes, 3] and weights (sum 1): equal steps in both angles, the polar ones from half a step."""
    points, weights = equiangular_grid(polar)
    y = points[::polar, 1]
    weights = weights[::polar] * (polar / longitudes)
    radius = (1 - y.square()).sqrt().repeat_interleave(longitudes)
    angle = torch.arange(longitudes, dtype=torch.float64) * (2 * math.pi / longitudes)
    angle = angle.repeat(polar)
    y = y.repeat_interleave(longitudes)
    return (
        torch.stack([radius * angle.sin(), y, radius * angle.cos()], -1),
        weights.repeat_interleave(longitudes),
    )


def truncation_scale(lmax: int, mmax: int, rows: tuple[tuple[int, int], ...]) -> Tensor:
    """√((2l+1)/(2mmax+1)) for l > mmax, else 1: [rows], float64."""
    return torch.tensor(
        [math.sqrt(max(1.0, (2 * degree + 1) / (2 * mmax + 1))) for degree, _ in rows],
        dtype=torch.float64,
    )
