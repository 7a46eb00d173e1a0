"""Norms applied from outside: what they bound, that they hold still during a solve, and their derivatives."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

from equipoise.deq import Anderson, Implicit, fixed_point
from equipoise.deq.contraction import refresh, remove, spectral_norm, weight_norm
from equipoise.equivariant import SO3Linear

TIGHT = Anderson(tolerance=1e-13, max_passes=300)
NORMS = {
    "weight": lambda module, **options: weight_norm(module, **options),
    "weight, clipped": lambda module, **options: weight_norm(module, clip=1.5, **options),
    "weight, fixed": lambda module, **options: weight_norm(
        module, scale=0.4, learnable=False, **options
    ),
    "spectral": lambda module, **options: spectral_norm(module, scale=0.7, **options),
    "spectral, learnable": lambda module, **options: spectral_norm(
        module, scale=0.7, learnable=True, clip=0.9, **options
    ),
    "spectral, at most": lambda module, **options: spectral_norm(
        module, scale=0.3, at_most=True, **options
    ),
}


def seeded(make, dtype=torch.float64):
    """A module with deterministic weights in ``dtype``."""
    module = make().to(dtype)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, dtype=dtype, generator=generator) / 2)
    return module


def network(dtype=torch.float64):
    return seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), dtype)


def state(module):
    """Names and values of everything that the module's map depends on."""
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return list(named), [value.detach().clone() for value in named.values()]


def as_map(module, names):
    """z ↦ tanh(module(z) + x) with parameters and buffers among the arguments."""

    def f(z, x, *values):
        return torch.tanh(functional_call(module, dict(zip(names, values, strict=True)), (z,)) + x)

    return f


def sigma(weight):
    return torch.linalg.matrix_norm(weight.detach().double(), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weight_norm_keeps_the_map_and_agrees_with_pytorch(dtype):
    module, other, plain = network(dtype), network(dtype), network(dtype)
    assert weight_norm(module) == ["0.weight", "2.weight"]
    x = torch.linspace(-1, 1, 6, dtype=dtype).view(2, 3)
    torch.testing.assert_close(module(x), plain(x))
    for layer in (other[0], other[2]):
        parametrizations.weight_norm(layer, dim=0)
    for layer, oracle in ((module[0], other[0]), (module[2], other[2])):
        with torch.no_grad():
            layer.parametrizations.weight[0].scale.value.mul_(3)
            oracle.parametrizations.weight.original0.mul_(3)
            layer.parametrizations.weight.original.add_(1)
            oracle.parametrizations.weight.original1.add_(1)
    torch.testing.assert_close(module(x), other(x))


@pytest.mark.parametrize("learnable", [True, False])
def test_clipped_rows_stay_short_and_still_feel_a_gradient(learnable):
    module = network()
    weight_norm(module, scale=3.0, clip=0.5, learnable=learnable)
    lengths = module[0].weight.norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.475 if learnable else 0.5))
    if learnable:
        raw = module[0].parametrizations.weight[0].scale.value
        with torch.no_grad():
            raw.mul_(3)
        assert (module[0].weight.norm(dim=1) < 0.5).all()
        module[0].weight.square().sum().backward()
        assert (raw.grad > 0).all()  # it can be shortened again
    else:
        names = [name for name, _ in module.named_parameters()]
        assert not any("scale" in name for name in names)


def test_scale_below_the_clip_is_kept():
    module = network()
    spectral_norm(module, scale=0.6, clip=0.9, learnable=True)
    assert sigma(module[0].weight).item() == pytest.approx(0.6, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spectral_norm_sets_the_largest_singular_value(dtype):
    close = {"rtol": 10 * torch.finfo(dtype).eps, "atol": 0}
    module, plain = network(dtype), network(dtype)
    assert spectral_norm(module, scale=0.9) == ["0.weight", "2.weight"]
    for layer, old in ((module[0], plain[0]), (module[2], plain[2])):
        expected = old.weight * (0.9 / sigma(old.weight)).to(dtype)
        torch.testing.assert_close(layer.weight, expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(
            sigma(layer.weight), torch.tensor(0.9, dtype=torch.float64), **close
        )
    kept = network(dtype)
    spectral_norm(kept, scale=None)
    torch.testing.assert_close(kept[0].weight, plain[0].weight)


def test_at_most_leaves_small_matrices_alone():
    module, plain = network(), network()
    with torch.no_grad():
        for net in (module, plain):
            net[0].weight.mul_(0.1)
    spectral_norm(module, scale=0.8, at_most=True)
    assert sigma(plain[0].weight) < 0.8 < sigma(plain[2].weight)
    assert torch.equal(module[0].weight, plain[0].weight)
    assert sigma(module[2].weight).item() == pytest.approx(0.8, rel=1e-12)


def test_stacks_of_matrices_have_a_norm_each():
    layer = seeded(lambda: SO3Linear(2, 5, 4))
    plain = seeded(lambda: SO3Linear(2, 5, 4))
    assert spectral_norm(layer, layers=[SO3Linear], scale=0.8) == ["weight"]
    torch.testing.assert_close(sigma(layer.weight), torch.full((3,), 0.8).double())
    # The norm of the whole linear map is that of its worst degree.
    jacobian = torch.func.jacrev(lambda x: layer(x.view(1, 9, 5)).flatten())(
        torch.zeros(45, dtype=torch.float64)
    )
    assert sigma(jacobian).item() == pytest.approx(0.8)
    assert remove(layer) == ["weight"]
    layer = seeded(lambda: SO3Linear(2, 5, 4))
    weight_norm(layer, layers=SO3Linear, scale=2.0, inputs=-2)
    assert layer.weight.shape == (3, 5, 4)  # [degrees, in, out]
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.full((3, 4), 2.0).double())
    ratio = layer.weight / plain.weight
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


def test_which_tensors():
    assert weight_norm(network(), layers=lambda name, layer: name == "2") == ["2.weight"]
    block = nn.ModuleDict({"a": network(), "b": nn.Bilinear(2, 3, 4)})
    assert spectral_norm(block, layers=(nn.Bilinear,)) == ["b.weight"]
    attention = nn.MultiheadAttention(4, 2)
    names = spectral_norm(
        attention, layers=lambda *_: True, names=("weight", "in_proj_weight", "absent")
    )
    assert names == ["in_proj_weight", "out_proj.weight"]


def test_the_map_holds_still_where_that_of_pytorch_moves():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    ours, theirs = network().train(), network().train()
    spectral_norm(ours)
    parametrizations.spectral_norm(theirs[0])
    with torch.no_grad():  # as a step of an optimiser would
        for module in (ours, theirs):
            module[0].parametrizations.weight.original[0] += 0.5
    assert torch.equal(ours(x), ours(x))
    assert not torch.equal(theirs(x), theirs(x))


def test_refresh_follows_the_weights():
    module = network()
    spectral_norm(module, scale=0.9)
    generator = torch.Generator().manual_seed(3)
    layer, worst = module[2], 0.0
    for _ in range(50):
        with torch.no_grad():
            original = layer.parametrizations.weight.original
            noise = torch.randn(original.shape, dtype=original.dtype, generator=generator)
            original.add_(0.02 * noise)
        before, now = layer.parametrizations.weight[0].right, sigma(layer.weight).item()
        assert now >= 0.9 * (1 - 1e-12)  # σ is never overestimated
        worst = max(worst, now)
        assert refresh(module) == ["0.weight", "2.weight"]
        assert layer.parametrizations.weight[0].right is not before
    assert worst < 0.9 * 1.01
    with torch.no_grad():
        original.copy_(torch.randn(original.shape, dtype=original.dtype, generator=generator))
    assert sigma(layer.weight) > 0.9 * 1.01
    refresh(module, steps=200)
    assert sigma(layer.weight).item() == pytest.approx(0.9, rel=1e-9)
    with pytest.raises(ValueError, match="steps must be >= 1, received 0"):
        refresh(module, steps=0)


def test_refresh_of_a_weight_that_vanished_keeps_its_vectors():
    module = network()
    spectral_norm(module)
    norm = module[0].parametrizations.weight[0]
    before = norm.right
    with torch.no_grad():
        module[0].parametrizations.weight.original.zero_()
    refresh(module)
    assert torch.equal(norm.right, before)


@pytest.mark.parametrize("norm", NORMS)
def test_exact_derivatives_of_every_order(norm):
    """Through the fixed point, with parameters and buffers given as arguments."""
    module = seeded(lambda: nn.Linear(2, 2))
    with torch.no_grad():
        module.weight.mul_(0.6)
    NORMS[norm](module)
    names, values = state(module)
    f = as_map(module, names)
    trained = [name in dict(module.named_parameters()) for name in names]
    values = [v.requires_grad_(t) for v, t in zip(values, trained, strict=True)]
    x = torch.tensor([[-1.0, 0.4]], dtype=torch.float64, requires_grad=True)

    def solve(x, *values):
        start = torch.zeros(1, 2, dtype=torch.float64)
        solution = fixed_point(f, start, x, *values, solver=TIGHT, gradient=Implicit(solver=TIGHT))
        assert solution.converged
        return solution.value

    assert torch.autograd.gradcheck(solve, (x, *values))
    assert torch.autograd.gradgradcheck(solve, (x, *values))


@pytest.mark.parametrize("norm", NORMS)
def test_functional_call_uses_the_given_tensors(norm):
    """A module called with the tensors of another is the other, buffers included."""
    one, other = network(), network()
    with torch.no_grad():
        for tensor in other.parameters():
            tensor.copy_(tensor.flip(0) + 0.3)
    NORMS[norm](one)
    NORMS[norm](other)
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    names, values = state(other)
    before = one(x)
    called = functional_call(one, dict(zip(names, values, strict=True)), (x,))
    torch.testing.assert_close(called, other(x), rtol=1e-14, atol=1e-14)
    assert torch.equal(one(x), before) and not torch.allclose(before, called)


def test_a_refresh_does_not_break_an_earlier_solve():
    """Gradient accumulation: solve, refresh, and only then go backward."""

    def gradient(refreshed):
        module = network()
        spectral_norm(module, scale=0.9)
        with torch.no_grad():  # so that a refresh changes the map
            for layer in (module[0], module[2]):
                original = layer.parametrizations.weight.original
                original.copy_(original.roll(1, 1) * 0.7)
        parameters = dict(module.named_parameters())
        named = parameters | dict(module.named_buffers())
        start = torch.zeros(2, 3, dtype=torch.float64)
        x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
        solution = fixed_point(
            as_map(module, list(named)),
            start,
            x,
            *named.values(),
            solver=TIGHT,
            gradient=Implicit(solver=TIGHT),
        )
        loss = solution.value.square().sum()
        if refreshed:
            before = module(x)
            refresh(module, steps=5)
            assert not torch.allclose(module(x), before, rtol=1e-4)
        (first,) = torch.autograd.grad(
            loss, parameters["0.parametrizations.weight.original"], create_graph=True
        )
        return torch.autograd.grad(first.square().sum(), list(parameters.values()))

    torch.testing.assert_close(gradient(True), gradient(False), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("norm", NORMS)
def test_remove_bakes_the_weights_in(norm):
    module, plain = network(), network()
    names = NORMS[norm](module)
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    before = module(x)
    assert remove(module) == names
    assert torch.equal(module(x), before)
    assert module.state_dict().keys() == plain.state_dict().keys()
    assert type(module[0]) is nn.Linear and isinstance(module[0].weight, nn.Parameter)
    assert remove(module) == []
    assert NORMS[norm](module) == names  # and again


def test_checkpoints_keep_the_map():
    module, fresh = network(), network()
    spectral_norm(module, scale=0.9, learnable=True)
    with torch.no_grad():
        module[0].parametrizations.weight.original.add_(0.5)
    refresh(module)
    with torch.no_grad():
        fresh[0].weight.mul_(-2)
    spectral_norm(fresh, scale=0.1, learnable=True)
    fresh.load_state_dict(module.state_dict())
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    assert torch.equal(fresh(x), module(x))


def test_bad_input():
    with pytest.raises(ValueError, match=r"received none; there were itself \(Sequential\), 0 \(L"):
        spectral_norm(network(), layers=(nn.Conv1d,))
    with pytest.raises(ValueError, match="a tensor named kernel, received none"):
        weight_norm(network(), names=("kernel",))
    module = network()
    spectral_norm(module, layers=lambda name, _: name == "2")
    with pytest.raises(ValueError, match="2.weight is already parametrised; remove that first"):
        weight_norm(module)
    assert isinstance(module[0].weight, nn.Parameter)  # nothing was changed before the error
    with pytest.raises(ValueError, match=r"received bias of shape \(3,\) in a Linear"):
        weight_norm(nn.Linear(3, 3), names=("bias",))
    with pytest.raises(ValueError, match=r"weight of shape \(3, 3, 5\) in a Conv1d"):
        spectral_norm(nn.Conv1d(3, 3, 5), layers=(nn.Conv1d,))
    zero = network()
    nn.init.zeros_(zero[2].weight)
    with pytest.raises(ValueError, match="2.weight has a row of zeros"):
        weight_norm(zero)
    with pytest.raises(ValueError, match="2.weight has a matrix of zeros"):
        spectral_norm(zero)
    with pytest.raises(ValueError, match="scale must be > 0, received -1"):
        spectral_norm(network(), scale=-1.0)
    with pytest.raises(ValueError, match="clip must be > 0, received 0"):
        weight_norm(network(), clip=0.0)
    with pytest.raises(ValueError, match="inputs must be -1 or -2"):
        weight_norm(network(), inputs=0)
