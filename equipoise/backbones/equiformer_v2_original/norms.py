"""The three norms of the original. Each looks at one atom at a time."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.equivariant import degrees

EPSILON = 1e-5


class LayerNormSH(nn.Module):
    r"""l = 0: LayerNorm. l > 0: y_lmc = w_lc x_lmc / √(q + ε) with one q for all degrees.

    "component": q = mean_{l≥1} mean_m mean_c x²;  "norm": q = Σ_{l≥1,m} mean_c x².

    Source: Liao et al., EquiformerV2 (2024), section 4.4, and its published code ("layer_norm_sh").
    """

    def __init__(self, lmax: int, channels: int, *, scale: str, affine: bool = True):
        super().__init__()
        self.scalars = nn.LayerNorm(channels, eps=EPSILON, elementwise_affine=affine)
        self.weight = nn.Parameter(torch.ones(lmax, channels)) if affine else None
        index = torch.tensor(degrees(lmax)[1:]) - 1
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("balance", balance(index, lmax, scale), persistent=False)

    def forward(self, x: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K C"]:
        first, rest = x.split([1, x.shape[1] - 1], dim=1)
        power = rest.square().mean(2) @ self.balance.to(x.dtype)
        rest = rest * torch.rsqrt(power + EPSILON)[:, None, None]
        if self.weight is not None:
            rest = rest * self.weight[self.index]
        return torch.cat([self.scalars(first), rest], dim=1)


class LayerNorm(nn.Module):
    r"""Each degree by itself: y_lmc = w_lc x_lmc / √(q_l + ε), q_l = mean_c {mean, Σ}_m x²; l = 0 is centred and gets a bias.

    A degree that vanishes by symmetry is amplified by 1/√ε: think twice before using it in a fixed-point map.

    Source: Liao et al., Equiformer (2023) and the published code of EquiformerV2 ("layer_norm").
    """

    def __init__(self, lmax: int, channels: int, *, scale: str, affine: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(lmax + 1, channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        index = torch.tensor(degrees(lmax))
        onehot = nn.functional.one_hot(index, lmax + 1).double()
        self.register_buffer("index", index, persistent=False)
        average = onehot / onehot.sum(0) if scale == "component" else onehot
        self.register_buffer("average", average, persistent=False)

    def forward(self, x: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K C"]:
        x = centre(x)
        power = x.square().mean(2) @ self.average.to(x.dtype)  # [rows, lmax+1]
        y = x * torch.rsqrt(power + EPSILON).index_select(1, self.index).unsqueeze(2)
        return affine_map(y, self.weight, self.bias, self.index)


class RMSNormSH(nn.Module):
    r"""One size for all degrees: y_lmc = w_lc x_lmc / √(q + ε), l = 0 centred first, with a bias.

    "component": q = mean_l mean_m mean_c x²;  "norm": q = Σ_{l,m} mean_c x².

    Source: Liao et al., EquiformerV2 (2024), published code ("rms_norm_sh", second version).
    """

    def __init__(self, lmax: int, channels: int, *, scale: str, affine: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(lmax + 1, channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        index = torch.tensor(degrees(lmax))
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("balance", balance(index, lmax + 1, scale), persistent=False)

    def forward(self, x: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K C"]:
        x = centre(x)
        power = x.square().mean(2) @ self.balance.to(x.dtype)
        y = x * torch.rsqrt(power + EPSILON)[:, None, None]
        return affine_map(y, self.weight, self.bias, self.index)


NORMS = {"layer_norm_sh": LayerNormSH, "layer_norm": LayerNorm, "rms_norm_sh": RMSNormSH}


def make_norm(kind: str, lmax: int, channels: int, *, scale: str, affine: bool = True) -> nn.Module:
    """A norm by the name that the original gives it."""
    return NORMS[kind](lmax, channels, scale=scale, affine=affine)


def balance(index: Tensor, count: int, scale: str) -> Tensor:
    """Weights of the squares of each component: 1/((2l+1) · count) for "component", 1 for "norm"; float64."""
    if scale == "norm":
        return torch.ones(len(index), dtype=torch.float64)
    sizes = nn.functional.one_hot(index, count).sum(0)
    return 1 / (sizes[index].double() * count)


def centre(x: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K C"]:
    """Subtract from the scalars their mean over channels."""
    first, rest = x.split([1, x.shape[1] - 1], dim=1)
    return torch.cat([first - first.mean(2, keepdim=True), rest], dim=1)


def affine_map(
    y: Float[Tensor, "rows K C"], weight: Tensor | None, bias: Tensor | None, index: Tensor
) -> Float[Tensor, "rows K C"]:
    """Weights per degree, bias on the scalars."""
    if weight is None or bias is None:
        return y
    first, rest = (y * weight[index]).split([1, y.shape[1] - 1], dim=1)
    return torch.cat([first + bias, rest], dim=1)
