import pytest
import torch

from equipoise.deq.monotone import HardTanh, ReLU, Sigmoid, Softplus, Tanh

ACTIVATIONS = [ReLU(), HardTanh(), Tanh(), Softplus(), Sigmoid()]
SCALE_FREE = [ReLU(), HardTanh()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_the_slope_is_the_derivative_and_lies_between_0_and_1(activation, dtype):
    v = torch.linspace(-6, 6, 241, dtype=dtype)[1::2].requires_grad_()
    (derivative,) = torch.autograd.grad(activation(v).sum(), v)
    slope = activation.slope(v)
    assert slope.dtype == dtype
    torch.testing.assert_close(slope, derivative)
    assert (slope >= 0).all() and (slope <= 1).all()


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_scale_free_means_that_the_subgradient_may_be_stretched(activation):
    """v - σ(v) is a subgradient of φ at z = σ(v); prox_{αφ}(z + α(v - z)) = z, which must be σ for every α if scale free."""
    v = torch.linspace(-3, 3, 61, dtype=torch.float64)
    z = activation(v)
    stretched = activation(z + 2.5 * (v - z))
    assert torch.allclose(stretched, z, atol=1e-12) == activation.scale_free
    assert activation.scale_free == (activation in SCALE_FREE)


def test_selu_would_break_the_guarantee():
    """Why it is not offered: its slope exceeds one."""
    v = torch.tensor([-1e-6], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.nn.functional.selu(v).sum(), v)
    assert slope > 1.7
