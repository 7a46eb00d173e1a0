"""A module becomes a layer: same weights, exact derivatives, compiled or not, with dropout and norms inside."""

import pytest
import torch
from torch import nn

from equipoise.deq import DEQ, Anderson, Dropout, Implicit, Inner, Unrolled
from equipoise.deq.contraction import spectral_norm

TIGHT = Anderson(tolerance=1e-12, max_passes=200)


class Cell(nn.Module):
    """tanh(LN(W z + U x)), with whatever is asked for in between."""

    def __init__(self, width=6, between=None):
        super().__init__()
        self.state = nn.Linear(width, width)
        self.input = nn.Linear(3, width)
        self.between = nn.Identity() if between is None else between
        self.register_buffer("shift", torch.linspace(-1, 1, width))
        with torch.no_grad():
            self.state.weight.mul_(0.6)

    def forward(self, z, x):
        return torch.tanh(self.between(self.state(z)) + self.input(x) + self.shift)


def make(between=None, **settings):
    torch.manual_seed(0)
    cell = Cell(between=between).double()
    layer = DEQ(cell, solver=TIGHT, gradient=Implicit(solver=TIGHT), **settings)
    x = torch.randn(4, 3, dtype=torch.float64)
    return layer, torch.zeros(4, 6, dtype=torch.float64), x


def second_order(layer, start, x):
    """Gradients of a force-like loss with respect to every parameter."""
    x = x.clone().requires_grad_()
    value = layer(start, x).value
    (force,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
    # Unused: a bias behind a derivative.
    return force, torch.autograd.grad(
        force.square().sum(), list(layer.parameters()), allow_unused=True
    )


def test_second_derivatives_equal_a_long_unrolled_network():
    layer, start, x = make()
    force, gradients = second_order(layer, start, x)
    layer.gradient = Unrolled(passes=300)
    force_unrolled, gradients_unrolled = second_order(layer, start, x)
    torch.testing.assert_close(force, force_unrolled, rtol=1e-9, atol=1e-10)
    for ours, theirs in zip(gradients, gradients_unrolled, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_parameters_are_listed_once_and_trained():
    layer, start, x = make()
    assert len(list(layer.parameters())) == 4
    target = torch.zeros_like(start)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = (layer(start, x).value - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_structures_of_a_batch():
    layer, start, x = make()
    inner = Inner(torch.tensor([0, 0, 1, 1]), 2)
    solution = layer(start, x, inner=inner)
    assert solution.passes.shape == (2,)
    torch.testing.assert_close(solution.value[2:], layer(start[2:], x[2:]).value)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_map_gives_the_same_numbers_and_derivatives(backend):
    """The loop stays outside; passes with derivatives run the module itself."""
    layer, start, x = make()
    compiled, _, _ = make(loop=torch.compile(layer.module, backend=backend))
    torch.testing.assert_close(layer(start, x).value, compiled(start, x).value, rtol=0, atol=1e-11)
    assert compiled(start, x).passes == layer(start, x).passes
    assert len(list(compiled.parameters())) == 4
    for ours, theirs in zip(
        second_order(compiled, start, x)[1], second_order(layer, start, x)[1], strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_dropout_inside_has_a_fixed_point_and_one_mask_per_call():
    layer, start, x = make(between=Dropout(0.4))
    torch.manual_seed(5)
    first, second = layer(start, x), layer(start, x)
    assert first.converged and second.converged
    assert (first.value - second.value).abs().max() > 1e-3
    # Derivatives of the first call, taken after the second one drew another mask, are those of the first mask.
    torch.manual_seed(5)
    alone = layer(start, x)
    names = dict(layer.named_parameters())
    ours = torch.autograd.grad(first.value.square().sum(), list(names.values()))
    theirs = torch.autograd.grad(alone.value.square().sum(), list(names.values()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    layer.eval()
    torch.testing.assert_close(layer(start, x).value, layer(start, x).value, rtol=0, atol=0)


def test_spectral_norm_inside_is_refreshed_between_solves_and_constant_during_them():
    layer, start, x = make()
    with torch.no_grad():
        layer.module.state.weight.mul_(8)
    spectral_norm(layer.module, layers=lambda name, module: name == "state", scale=0.5)
    for _ in range(30):
        assert layer(start, x).converged
    assert torch.linalg.matrix_norm(layer.module.state.weight, 2) <= 0.5 + 1e-6
    earlier = layer(start, x).value.square().sum()
    layer(start, x)
    earlier.backward()  # the refresh in between must not have touched this graph
    gradient = next(p.grad for p in layer.module.parameters() if p.grad is not None)
    assert gradient.isfinite().all()


def test_what_the_module_merely_holds_is_noticed():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(6, 6)
            self.held = None

        def forward(self, z):
            return torch.tanh(0.3 * self.mix(z) + self.held)

    cell, encoder = Cell(), nn.Linear(3, 6)
    cell.held = encoder(torch.randn(4, 3))
    with pytest.raises(ValueError, match="not among its arguments"):
        DEQ(cell)(torch.zeros(4, 6))
    with torch.no_grad():
        assert DEQ(cell)(torch.zeros(4, 6)).converged
