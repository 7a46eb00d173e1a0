"""One mask per solve: in all passes, all derivatives, and when solves overlap."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from equipoise.deq import Anderson, Implicit, Picard, fixed_point
from equipoise.deq.dropout import Dropout, draw

ROOT = Path(__file__).parents[2]
TIGHT = Anderson(tolerance=1e-13, max_passes=300)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def seed(number=0):
    return torch.Generator().manual_seed(number)


class Cell(nn.Module):
    """z ↦ tanh(dropout(W z) + x)"""

    def __init__(self, rate=0.3):
        super().__init__()
        weight = torch.randn(4, 4, dtype=torch.float64, generator=seed(1)) / 5
        self.weight, self.dropout = nn.Parameter(weight), Dropout(rate)

    def forward(self, z, x):
        return torch.tanh(self.dropout(z @ self.weight) + x)


X = torch.randn(5, 4, dtype=torch.float64, generator=seed(2))
START = torch.zeros(5, 4, dtype=torch.float64)


def solve(module, x, *, parameters=None, solver=TIGHT):
    """The fixed point of ``module`` with parameters and buffers as arguments, as they are at this moment."""
    named = dict(module.named_parameters()) if parameters is None else parameters
    named = named | dict(module.named_buffers())

    def f(z, x, *values):
        return functional_call(module, dict(zip(named, values, strict=True)), (z, x))

    gradient = Implicit(solver=TIGHT)
    return fixed_point(f, START, x, *named.values(), solver=solver, gradient=gradient)


def masked(mask, weight, x):
    """The same fixed point with the mask written out: an answer to compare with."""

    def f(z, weight, x, mask):
        return torch.tanh((z @ weight) * mask + x)

    return fixed_point(f, START, weight, x, mask, solver=TIGHT, gradient=Implicit(solver=TIGHT))


def first_and_second(value, weight):
    """A gradient with a graph, and the gradient of its size."""
    (first,) = torch.autograd.grad(value.square().sum(), weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight)
    return first.detach(), second


def test_the_sequence_is_splitmix64():
    """The first outputs of SplitMix64 from state 0, as published with it; at rate r the first with r · 2⁶⁴ above them drops."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    layer = Dropout(0.5)
    layer.seed = torch.tensor(1)  # element 0 has state 0 before its increment
    for place, number in enumerate(published):
        for offset, expected in ((1e-9, True), (-1e-9, False)):
            layer.rate = number / 2**64 + offset
            assert bool(layer.dropped(torch.zeros(4))[place]) is expected


def test_the_mask_changes_with_draw_and_only_then():
    layer, x = Dropout(0.5), torch.ones(200)
    draw(layer, seed())
    first = layer(x)
    assert torch.equal(layer(x), first)
    draw(layer, seed(1))
    assert not torch.equal(layer(x), first)
    draw(layer, seed())
    assert torch.equal(layer(x), first)
    torch.manual_seed(5)
    draw(layer)
    second = layer(x)
    torch.manual_seed(5)
    draw(layer)
    assert torch.equal(layer(x), second) and not torch.equal(second, first)


def test_layers_of_a_network_get_seeds_of_their_own():
    network = nn.Sequential(Dropout(0.5), nn.Linear(3, 3), nn.Sequential(Dropout(0.5)))
    draw(network, seed())
    x = torch.ones(100)
    assert not torch.equal(network[0](x), network[2][0](x))
    before = network[0].seed
    draw(network, seed(1))
    assert network[0].seed is not before and network[0].seed != before


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_rate_and_mean(rate):
    layer, x = Dropout(rate), torch.full((200, 300), 2.0, dtype=torch.float64)
    kept = []
    for number in range(20):
        draw(layer, seed(number))
        y = layer(x)
        assert set(y.unique().tolist()) == {0.0, 2.0 / (1 - rate)}
        kept.append(y != 0)
    kept = torch.stack(kept).double()
    spread = (rate * (1 - rate)) ** 0.5
    assert abs(kept.mean() - (1 - rate)) < 4 * spread / kept.numel() ** 0.5
    assert abs(y.mean() - 2) < 4 * 2 * spread / (1 - rate) / y.numel() ** 0.5
    # Neighbours in a row, in a column, and from one draw to the next know nothing of each other.
    centred = (kept - (1 - rate)) / spread
    for dim in range(3):
        correlation = (centred * centred.roll(1, dim)).mean()
        assert abs(correlation) < 4 / kept.numel() ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rates_zero_and_one_and_evaluation(dtype):
    x = torch.tensor([1.0, torch.inf, -2.0], dtype=dtype, requires_grad=True)
    assert Dropout(0.0)(x) is x
    assert Dropout(0.5).eval()(x) is x
    gone = Dropout(1.0)(x)
    assert torch.equal(gone, torch.zeros(3, dtype=dtype))
    (gradient,) = torch.autograd.grad(gone.sum(), x)
    assert torch.equal(gradient, torch.zeros(3, dtype=dtype))
    assert Dropout(0.5)(x).dtype == dtype
    assert Dropout(0.5)(torch.zeros(0, 3, dtype=dtype)).shape == (0, 3)
    assert Dropout(0.5)(torch.ones((), dtype=dtype)).shape == ()


@pytest.mark.parametrize("shared", [(1,), (-2,), (0, 2), (0, 1, 2)])
def test_shared_dimensions_share_a_draw(shared):
    layer = Dropout(0.5, shared=shared)
    draw(layer, seed())
    y = layer(torch.ones(6, 5, 40))
    index = [0 if dim in {d % 3 for d in shared} else slice(None) for dim in range(3)]
    index = [slice(0, 1) if i == 0 else i for i in index]
    assert torch.equal(y, y[tuple(index)].expand_as(y))
    if len(shared) == 1:
        assert 0.3 < (y[:, 0] == 0).double().mean() < 0.7
        assert not torch.equal(y[0], y[1])


def test_shared_components_keep_the_symmetry():
    layer = Dropout(0.5, shared=(1,))
    draw(layer, seed())
    x = torch.randn(4, 3, 8, dtype=torch.float64, generator=seed(1))
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=seed(2)))
    torch.testing.assert_close(layer(rotation @ x), rotation @ layer(x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("solver", [Picard(tolerance=1e-10, max_passes=200), TIGHT])
def test_a_fixed_point_exists_with_dropout(solver):
    cell = Cell().train()
    draw(cell, seed())
    solution = solve(cell, X, solver=solver)
    assert solution.converged
    mask = cell.dropout(torch.ones_like(X))
    assert (mask == 0).any() and (mask != 0).any()
    torch.testing.assert_close(solution.value, masked(mask, cell.weight, X).value)


def test_one_mask_in_all_passes_and_derivatives():
    """Every evaluation of the cell, of whatever purpose, is recorded; all masks must be the same."""
    cell, masks = Cell().train(), []
    drop = cell.dropout.forward

    def recording(x):
        masks.append(cell.dropout.dropped(x))
        return drop(x)

    cell.dropout.forward = recording
    draw(cell, seed())
    value = solve(cell, X).value
    forward = len(masks)
    first_and_second(value, cell.weight)
    assert forward > 3 and len(masks) > forward + 1
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_exact_derivatives_of_every_order():
    cell = Cell().train()
    draw(cell, seed())
    x = X[:1].clone().requires_grad_()
    weight = cell.weight.detach().clone().requires_grad_()
    buffers = dict(cell.named_buffers())

    def f(z, x, weight, *buffers_):
        named = {"weight": weight} | dict(zip(buffers, buffers_, strict=True))
        return functional_call(cell, named, (z, x))

    def value(x, weight):
        gradient = Implicit(solver=TIGHT)
        args = (x, weight, *buffers.values())
        return fixed_point(f, START[:1], *args, solver=TIGHT, gradient=gradient).value

    assert torch.autograd.gradcheck(value, (x, weight))
    assert torch.autograd.gradgradcheck(value, (x, weight))


def test_interleaved_solves_keep_their_own_masks():
    """Gradient accumulation: three solves, each with its draw, and only then the derivatives, in another order."""
    cell = Cell().train()
    solved = []
    for number in range(3):
        draw(cell, seed(number))
        mask = cell.dropout(torch.ones_like(X)).detach()
        x = X.roll(number, 0)
        solved.append((solve(cell, x).value, mask, x))
    assert not torch.equal(solved[0][1], solved[1][1])
    draw(cell, seed(3))
    for value, mask, x in (solved[1], solved[2], solved[0]):
        found = first_and_second(value, cell.weight)
        expected = first_and_second(masked(mask, cell.weight, x).value, cell.weight)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_evaluation_solves_the_plain_map():
    cell = Cell().eval()
    expected = masked(torch.ones_like(X), cell.weight, X).value
    torch.testing.assert_close(solve(cell, X).value, expected)


def test_seeds_survive_moves_and_stay_out_of_checkpoints():
    cell = Cell()
    draw(cell, seed())
    before = cell.dropout.seed.clone()
    for moved in (copy.deepcopy(cell), cell.to(torch.bfloat16), cell.double()):
        assert torch.equal(moved.dropout.seed, before) and moved.dropout.seed.dtype == torch.int64
    assert list(cell.state_dict()) == ["weight"]


@pytest.mark.parametrize("device", DEVICES)
def test_the_mask_is_the_same_on_every_device(device):
    layer, x = Dropout(0.4, shared=(1,)), torch.ones(7, 3, 50)
    draw(layer, seed())
    expected = layer(x)
    moved = copy.deepcopy(layer).to(device)
    assert moved.seed.device.type == device
    assert torch.equal(moved(x.to(device)).cpu(), expected)
    draw(moved, seed(1))
    assert moved.seed.device.type == device


def test_transforms_and_tracers_see_through_it():
    layer, x = Dropout(0.4), torch.linspace(-1, 1, 30, dtype=torch.float64).view(3, 10)
    draw(layer, seed())
    traced = make_fx(lambda s: functional_call(layer, {"seed": s}, (x,)))(torch.tensor(3))
    layer.seed = torch.tensor(4)
    assert torch.equal(traced(torch.tensor(4)), layer(x))
    _, tangent = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    assert torch.equal(tangent, layer(torch.ones_like(x)))
    seeds = torch.tensor([3, 4])
    both = torch.func.vmap(lambda s: functional_call(layer, {"seed": s}, (x,)))(seeds)
    for s, y in zip(seeds, both, strict=True):
        layer.seed = s
        assert torch.equal(y, layer(x))


@pytest.mark.slow
def test_compiled_code_draws_the_same_mask(tmp_path):
    """In a process of its own: compilers cannot look through the type checks that are switched on while testing."""
    code = """
import torch
from equipoise.deq.dropout import Dropout, draw
layer, x = Dropout(0.4, shared=(1,)), torch.ones(7, 3, 500)
compiled = torch.compile(layer, fullgraph=True)
for _ in range(3):
    draw(layer)
    assert torch.equal(compiled(x), layer(x))
"""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_bad_input():
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\]"):
            Dropout(rate)
    for shared in ((2,), (-3,)):
        with pytest.raises(
            ValueError, match=r"shared must name dimensions of x, received \(-?\d,\)"
        ):
            Dropout(0.5, shared=shared)(torch.ones(2, 3))
