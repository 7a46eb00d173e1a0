"""The equation of a monotone cell, as plain tensors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Equation:
    """z = σ(W z + U x + b), y = G z + c, and the metric Λ in which I - W is monotone.

    Attributes:
      weight: W.
      inject: U.
      bias: b.
      metric: the diagonal of Λ, positive.
      read: G.
      shift: c.
    """

    weight: Float[Tensor, "hidden hidden"]
    inject: Float[Tensor, "hidden inputs"]
    bias: Float[Tensor, " hidden"]
    metric: Float[Tensor, " hidden"]
    read: Float[Tensor, "outputs hidden"]
    shift: Float[Tensor, " outputs"]

    def injection(self, x: Float[Tensor, "samples inputs"]) -> Float[Tensor, "samples hidden"]:
        """q = U x + b."""
        return x @ self.inject.T + self.bias

    def readout(self, z: Float[Tensor, "samples hidden"]) -> Float[Tensor, "samples outputs"]:
        """y = G z + c."""
        return z @ self.read.T + self.shift

    def form(self) -> Float[Tensor, "hidden hidden"]:
        """H = sym(Λ(I - W)), whose positive definiteness makes the equilibrium exist and be unique."""
        return symmetric(self.metric[:, None] * (identity(self.weight) - self.weight))


def identity(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """I, of the size, dtype and device of ``matrix``."""
    return torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def symmetric(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """(A + Aᵀ) / 2."""
    return (matrix + matrix.T) / 2


def whitened(
    weight: Float[Tensor, "hidden hidden"], metric: Float[Tensor, " hidden"]
) -> Float[Tensor, "hidden hidden"]:
    """M = Λ^½ (I - W) Λ^-½ in float64: I - W as seen in the metric Λ. Not differentiable; for constants of convergence."""
    root = metric.detach().double().sqrt()
    weight = weight.detach().double()
    return root[:, None] * (identity(weight) - weight) / root
