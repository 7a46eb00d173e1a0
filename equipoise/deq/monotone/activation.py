r"""Activations that a monotone cell may use: σ with slope between 0 and 1 everywhere.

Such a σ is the proximal operator of a convex function, σ(v) = argmin_z ½(z - v)² + φ(z), equivalently σ = (1 + ∂φ)⁻¹. That is what
turns z = σ(Wz + q) into the monotone inclusion 0 ∈ (I - W)z - q + ∂φ(z), and what the splittings use. Three examples:

- ReLU: φ is 0 for z >= 0 and infinite below. Multiplying φ by α changes nothing, so prox_{αφ} = ReLU for every α.
- tanh: φ'(z) = artanh z - z. prox_{αφ} has no closed form unless α = 1.
- SELU is none: its slope reaches 1.758 left of zero, and every guarantee of this folder is lost with it.

Source: Winston and Kolter, Monotone operator equilibrium networks (2020); Combettes and Pesquet, Deep neural network structures
solving variational inequalities (2020).
"""

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor


class Activation(abc.ABC):
    """σ, elementwise, with 0 <= σ' <= 1. Write your own by giving the two methods; the bound on the slope is yours to prove.

    Attributes:
      scale_free: whether prox_{αφ} = σ for every α > 0. So it is when σ projects onto an interval.
    """

    scale_free: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """σ(v)."""

    @abc.abstractmethod
    def slope(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """σ'(v); at a kink any value between those of the two sides."""


@dataclass(frozen=True)
class ReLU(Activation):
    """max(v, 0): the projection onto z >= 0."""

    scale_free: ClassVar[bool] = True

    def __call__(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.relu(v)

    def slope(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return (v > 0).to(v.dtype)


@dataclass(frozen=True)
class HardTanh(Activation):
    """v cut off at -1 and 1: the projection onto that interval."""

    scale_free: ClassVar[bool] = True

    def __call__(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.nn.functional.hardtanh(v)

    def slope(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return (v.abs() < 1).to(v.dtype)


@dataclass(frozen=True)
class Tanh(Activation):
    """tanh v. Smooth: the one to take when derivatives of the output are wanted too."""

    def __call__(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.tanh(v)

    def slope(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return 1 - torch.tanh(v).square()


@dataclass(frozen=True)
class Softplus(Activation):
    """log(1 + e^v), a smooth ReLU; its slope is the logistic function."""

    def __call__(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.nn.functional.softplus(v)

    def slope(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.sigmoid(v)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + e^-v). Its slope is at most 1/4, so gains stay well below the bound."""

    def __call__(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.sigmoid(v)

    def slope(self, v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.sigmoid(v) * torch.sigmoid(-v)
