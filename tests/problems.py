"""Fixed points with known answers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.deq import Inner

OWNER = torch.tensor([0, 0, 1, 1, 1])


@dataclass(frozen=True)
class Problem:
    """z = f(z, *args) with 5 rows in two structures; ``answer`` solves it.

    Attributes:
      contracts: whether plain iteration converges, in some hundred passes.
      loosest: relative accuracy that a solve to a tolerance t must reach, as a multiple of t: about 1 / (1 - ρ).
    """

    name: str
    f: Callable[..., Tensor]
    args: tuple[Tensor, ...]
    answer: Tensor
    contracts: bool = True
    loosest: float = 200.0

    def __str__(self) -> str:
        return self.name

    def to(self, dtype: torch.dtype, device: str = "cpu") -> "Problem":
        """The same in another precision."""
        args = tuple(arg.to(device, dtype) for arg in self.args)
        return Problem(
            self.name, self.f, args, self.answer.to(device, dtype), self.contracts, self.loosest
        )

    @property
    def inner(self) -> Inner:
        """Which rows belong together."""
        return Inner(OWNER.to(self.answer.device), 2)

    @property
    def start(self) -> Tensor:
        """Nothing."""
        return torch.zeros_like(self.answer)


def _random(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _affine(z, w, b):
    return z @ w + b


def _linear(name: str, matrix: Tensor, **settings) -> Problem:
    bias = _random(4, 5, len(matrix))
    identity = torch.eye(len(matrix), dtype=torch.float64)
    answer = torch.linalg.solve(identity - matrix, bias, left=False)
    return Problem(name, _affine, (matrix, bias), answer, **settings)


def linear(*, complex_spectrum: bool) -> Problem:
    """z W + b with spectral radius 0.8."""
    matrix = _random(3, 4, 4)
    matrix = matrix if complex_spectrum else matrix + matrix.T
    matrix = 0.8 * matrix / torch.linalg.eigvals(matrix).abs().max()
    return _linear(f"linear, {'complex' if complex_spectrum else 'real'} spectrum", matrix)


def ill_conditioned() -> Problem:
    """Symmetric, eigenvalues 0.999 to -0.999: (I - J) has condition number 2000 and plain iteration needs 7000 passes."""
    basis = torch.linalg.qr(_random(5, 4, 4))[0]
    spectrum = torch.tensor([0.999, 0.9, -0.5, -0.999], dtype=torch.float64)
    matrix = (basis * spectrum) @ basis.T
    return _linear("ill-conditioned", matrix, contracts=False, loosest=5000.0)


def expanding() -> Problem:
    """Plain iteration diverges (ρ = 2); the fixed point exists all the same."""
    basis = torch.linalg.qr(_random(6, 4, 4))[0]
    spectrum = torch.tensor([-2.0, -1.0, 0.3, 0.5], dtype=torch.float64)
    return _linear("expanding", (basis * spectrum) @ basis.T, contracts=False)


def _network(z, w, u, x):
    return torch.tanh(z @ w + x @ u)


def network() -> Problem:
    """tanh(z W + x U), solved by 2000 plain iterations."""
    w, u, x = 0.3 * _random(1, 4, 4), _random(2, 4, 4), _random(7, 5, 4)
    answer = torch.zeros(5, 4, dtype=torch.float64)
    for _ in range(2000):
        answer = _network(answer, w, u, x)
    return Problem("tanh network", _network, (w, u, x), answer)


def _graph_network(z, w, v, u, x):
    """Messages along the edges of a triangle and of a pair; structures do not touch."""
    senders, receivers = torch.tensor(
        [[0, 1, 2, 3, 3, 4, 4, 2], [1, 0, 3, 2, 4, 3, 2, 4]], device=z.device
    )
    messages = torch.nn.functional.silu(z[senders] @ v + z[receivers] @ w)
    return torch.tanh(torch.zeros_like(z).index_add(0, receivers, messages) + x @ u)


def graph_network() -> Problem:
    """A message-passing network with states on 5 nodes of two graphs."""
    args = 0.3 * _random(8, 4, 4), 0.3 * _random(9, 4, 4), _random(10, 4, 4), _random(11, 5, 4)
    answer = torch.zeros(5, 4, dtype=torch.float64)
    for _ in range(2000):
        answer = _graph_network(answer, *args)
    return Problem("graph network", _graph_network, args, answer)


PROBLEMS = [
    linear(complex_spectrum=False),
    linear(complex_spectrum=True),
    ill_conditioned(),
    expanding(),
    network(),
    graph_network(),
]
