"""Your graph network as an equilibrium network: messages travel until nothing changes any more, however far that is.

    python examples/deqify_graph_network.py

A plain graph network of three layers sees what is three edges away. One such layer at equilibrium, z = tanh(U x + mean of
W z over the neighbours + b), sees the whole graph, at the memory of one layer. The task needs that: heat enters rings of 24
nodes at two of them, and the temperature of every node is asked for. All there is to it stands between the two lines. Needs
equipoise and torch; some ten seconds on one core.
"""

import sys

import torch
from torch import Tensor, nn

from equipoise.deq import DEQ, Anderson, Implicit, Inner, Solution, spectral_norm, spectral_radius

# ---------------------------------------------------------------------------------------------------------------------


class Messages(nn.Module):
    """Any layer will do that maps the states of the nodes, and whatever else it needs, to states like them."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.enter, self.mix = nn.Linear(features, width), nn.Linear(width, width)
        # Means and tanh do not stretch: with ‖W‖ <= 0.95 there is one fixed point, at every step of the training.
        spectral_norm(self, layers=lambda name, _: name == "mix", scale=0.95, at_most=True)

    def forward(self, z: Tensor, x: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        total = torch.zeros_like(z).index_add(0, receivers, self.mix(z)[senders])
        count = torch.bincount(receivers, minlength=len(z)).clamp(min=1)
        return torch.tanh(self.enter(x) + total / count[:, None])


class Network(nn.Module):
    def __init__(self, features: int, width: int):
        super().__init__()
        solver = Anderson(tolerance=1e-3, max_passes=100)
        layer = Messages(features, width)
        self.messages = DEQ(layer, solver=solver, gradient=Implicit(solver=solver))
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor, *edges: Tensor, graph: Inner) -> tuple[Tensor, Solution]:
        start = x.new_zeros(len(x), self.head.in_features)
        solution = self.messages(start, x, *edges, inner=graph)
        return self.head(solution.value).squeeze(1), solution


# ---------------------------------------------------------------------------------------------------------------------


class Explicit(nn.Module):
    """What it was before: three layers with weights of their own."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.layers = nn.ModuleList(Messages(features, width) for _ in range(3))
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor, *edges: Tensor, graph: Inner) -> tuple[Tensor, None]:
        z = x.new_zeros(len(x), self.head.in_features)
        for layer in self.layers:
            z = layer(z, x, *edges)
        return self.head(z).squeeze(1), None


def rings(count: int, size: int = 24) -> tuple[tuple[Tensor, ...], Inner, Tensor]:
    """(heat, senders, receivers), which nodes form a graph, and the temperatures (I - 0.95 A)⁻¹ heat, in units of their spread."""
    graph = torch.arange(count).repeat_interleave(size)
    first, place = graph * size, torch.arange(count * size) % size
    right, left = first + (place + 1) % size, first + (place - 1) % size
    receivers, senders = torch.arange(count * size).repeat(2), torch.cat([right, left])
    heat = torch.zeros(count, size)
    heat.scatter_(1, torch.rand(count, size).argsort(1)[:, :2], 1.0)
    mean = torch.zeros(count * size, count * size)
    mean[receivers, senders] = 0.5
    temperature = torch.linalg.solve(torch.eye(count * size) - 0.95 * mean, heat.flatten())
    return (
        (heat.view(-1, 1), senders, receivers),
        Inner(graph, count),
        (temperature - temperature.mean()) / temperature.std(),
    )


def train(network: nn.Module, inputs: tuple[Tensor, ...], graph: Inner, target: Tensor) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        optimiser.zero_grad()
        (network(*inputs, graph=graph)[0] - target).square().mean().backward()
        optimiser.step()


def tell(when: str, network: nn.Module, inputs, graph: Inner, target: Tensor) -> float:
    """Print and return the loss; with passes and contraction if there is an equilibrium."""
    with torch.no_grad():
        answer, solution = network(*inputs, graph=graph)
    loss = (answer - target).square().mean().item()
    text = f"{when:32s} loss {loss:.4f}"
    if solution is not None:
        rho = spectral_radius(network.messages.module, solution.value, *inputs, inner=graph)
        text += f"  passes {solution.passes.double().mean():4.1f}  contraction {rho.max():.2f}  converged {solution.converged}"
    print(text)
    return loss


def main() -> int:
    torch.manual_seed(1)
    learned, test = rings(8), rings(8)
    network, explicit = Network(1, 24), Explicit(1, 24)
    before = tell("equilibrium, before", network, *test)
    train(network, *learned)
    train(explicit, *learned)
    after = tell("equilibrium, after", network, *test)
    three = tell("three explicit layers, after", explicit, *test)
    return 0 if after < before / 5 and after < 0.7 * three else 1


if __name__ == "__main__":
    sys.exit(main())
