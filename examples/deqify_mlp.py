"""Your multilayer perceptron as an equilibrium network: what has to change, and what it says of itself.

    python examples/deqify_mlp.py

A plain network applies several hidden layers, one after the other. Here one layer is applied until its output stays what it
is, z = tanh(W z + U x + b); the input enters at every pass, or it would be forgotten. It learns to tell two spirals apart. All
there is to it stands between the two lines. Needs equipoise and torch; some ten seconds on one core.
"""

import sys

import torch
from torch import Tensor, nn

from equipoise.deq import DEQ, Anderson, Implicit, Inner, Solution, spectral_norm, spectral_radius

# ---------------------------------------------------------------------------------------------------------------------


class Hidden(nn.Module):
    """Any module will do that maps a state z and the inputs to a state like z."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.mix, self.enter = nn.Linear(width, width), nn.Linear(features, width)
        # tanh is nowhere steeper than 1: with ‖W‖ <= 0.95 there is one fixed point, at every step of the training.
        spectral_norm(self, layers=lambda name, _: name == "mix", scale=0.95, at_most=True)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.mix(z) + self.enter(x))


class Network(nn.Module):
    def __init__(self, features: int, width: int, outputs: int):
        super().__init__()
        solver = Anderson(tolerance=1e-3)
        self.hidden = DEQ(Hidden(features, width), solver=solver, gradient=Implicit(solver=solver))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Solution]:
        start = x.new_zeros(len(x), self.head.in_features)
        every_row_by_itself = Inner(torch.arange(len(x), device=x.device), len(x))
        solution = self.hidden(start, x, inner=every_row_by_itself)
        return self.head(solution.value), solution


# ---------------------------------------------------------------------------------------------------------------------


def spirals(count: int) -> tuple[Tensor, Tensor]:
    """Points of two spirals, and to which one each belongs."""
    label = torch.arange(count) % 2
    angle = 2.5 * torch.pi * torch.rand(count).sqrt() + 0.5
    turned = angle + torch.pi * label
    points = torch.stack([turned.cos(), turned.sin()], 1) * (angle / 8)[:, None]
    return points + 0.01 * torch.randn(count, 2), label


def tell(when: str, network: Network, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Print how well and how quickly the network does; return its loss and its contraction."""
    with torch.no_grad():
        answer, solution = network(x)
        loss = nn.functional.cross_entropy(answer, y).item()
    right = (answer.argmax(1) == y).double().mean()
    rho = spectral_radius(network.hidden.module, solution.value, x).item()
    print(
        f"{when:6s} loss {loss:.4f}  right {right:6.1%}  passes {solution.passes.double().mean():4.1f}"
        f"  contraction {rho:.2f}  converged {solution.converged}"
    )
    return loss, rho


def main() -> int:
    torch.manual_seed(0)
    (x, y), test = spirals(192), spirals(500)
    network = Network(2, 32, 2)
    before, _ = tell("before", network, *test)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x)[0], y).backward()
        optimiser.step()
    after, rho = tell("after", network, *test)
    return 0 if after < before / 3 and rho < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
