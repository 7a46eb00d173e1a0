"""Fixed points with known answers."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """z = f(z, *args) with 5 rows in two structures; ``answer`` solves it."""

    name: str
    f: object
    args: tuple[Tensor, ...]
    answer: Tensor
    owner = torch.tensor([0, 0, 1, 1, 1])
    structures = 2


def linear(dtype, *, complex_spectrum: bool) -> Problem:
    """z W + b with spectral radius 0.8."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    matrix = matrix if complex_spectrum else matrix + matrix.T
    matrix = 0.8 * matrix / torch.linalg.eigvals(matrix).abs().max()
    bias = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    answer = bias @ torch.linalg.inv(torch.eye(4, dtype=torch.float64) - matrix)
    name = "linear, complex spectrum" if complex_spectrum else "linear, real spectrum"
    return Problem(
        name, lambda z, w, b: z @ w + b, (matrix.to(dtype), bias.to(dtype)), answer.to(dtype)
    )


def network(dtype) -> Problem:
    """tanh(z W + x U), solved by 2000 plain iterations."""
    generator = torch.Generator().manual_seed(1)
    w = 0.3 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    u = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64)

    def f(z, w, u, x):
        return torch.tanh(z @ w + x @ u)

    answer = torch.zeros(5, 4, dtype=torch.float64)
    for _ in range(2000):
        answer = f(answer, w, u, x)
    return Problem("tanh network", f, (w.to(dtype), u.to(dtype), x.to(dtype)), answer.to(dtype))


def problems(dtype) -> list[Problem]:
    """All of them."""
    return [
        linear(dtype, complex_spectrum=False),
        linear(dtype, complex_spectrum=True),
        network(dtype),
    ]
