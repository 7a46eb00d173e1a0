"""First values: spectra and variances as promised, measured on the matrices themselves."""

import pytest
import torch
from torch import nn

from equipoise.deq.contraction import spectral_norm
from equipoise.deq.initialise import orthogonal_, symmetric_, variance_preserving_

FILLS = [orthogonal_, symmetric_, variance_preserving_]
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}


def seed(number=0):
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 5, 7), (2, 3, 6, 6)])
def test_orthogonal_matrices_have_one_singular_value(shape, dtype):
    weight = orthogonal_(torch.empty(shape, dtype=dtype), 0.7, generator=seed())
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(values, torch.full_like(values, 0.7), rtol=CLOSE[dtype], atol=0)
    if len(shape) > 2:
        assert not torch.allclose(weight[0], weight[1])


def test_orthogonal_matrices_are_uniformly_distributed():
    """E Q_ij = 0 and E Q_ij Q_kl = δ_ik δ_jl / n; the signs that an algorithm prefers would show in the first."""
    n, samples = 3, 20000
    q = orthogonal_(torch.empty(samples, n, n, dtype=torch.float64), generator=seed(1)).flatten(1)
    assert q.mean(0).abs().max() < 5 / (samples * n) ** 0.5
    second = q.T @ q / samples
    assert (second - torch.eye(n * n).double() / n).abs().max() < 5 / samples**0.5 / n
    # Haar measure on O(n): the trace has mean 0 and variance 1; half of the matrices are reflections.
    trace = q.view(-1, n, n).diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.var() - 1) < 0.05
    assert abs(torch.linalg.det(q.view(-1, n, n)).mean()) < 5 / samples**0.5


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_symmetric_matrices_have_the_spectrum_of_a_half_circle(gain):
    n = 400
    weight = symmetric_(torch.empty(2, n, n, dtype=torch.float64), gain, generator=seed())
    assert torch.equal(weight, weight.mT)
    values = torch.linalg.eigvalsh(weight)
    radius = values.abs().amax(1) / gain
    assert ((radius - 1).abs() < 2 * n ** (-2 / 3)).all()
    # Moments of the semicircle law of radius g: g²/4 and g⁴/8.
    torch.testing.assert_close(
        values.square().mean(1), torch.full((2,), gain**2 / 4).double(), rtol=0.03, atol=0
    )
    torch.testing.assert_close(
        values.pow(4).mean(1), torch.full((2,), gain**4 / 8).double(), rtol=0.06, atol=0
    )
    diagonal = weight.diagonal(dim1=1, dim2=2)
    assert diagonal.var().item() == pytest.approx(2 * gain**2 / (4 * n), rel=0.2)


@pytest.mark.parametrize("inputs", [-1, -2])
def test_variance_is_preserved(inputs):
    shape = (2, 300, 700) if inputs == -1 else (2, 700, 300)
    weight = variance_preserving_(
        torch.empty(shape, dtype=torch.float64), 1.3, inputs=inputs, generator=seed()
    )
    x = torch.randn(2, 700, 50, dtype=torch.float64, generator=seed(1))
    y = (weight if inputs == -1 else weight.mT) @ x
    assert y.shape == (2, 300, 50)
    ratio = y.square().mean() / x.square().mean()
    assert ratio.item() == pytest.approx(1.3**2, rel=0.03)
    assert abs(y.mean()) < 0.05


def test_independent_elements_have_twice_the_norm_of_their_radius():
    weight = variance_preserving_(torch.empty(400, 400, dtype=torch.float64), 0.8, generator=seed())
    assert torch.linalg.eigvals(weight).abs().max().item() == pytest.approx(0.8, rel=0.08)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1.6, rel=0.03)


@pytest.mark.parametrize("fill", FILLS)
def test_reproducible_and_the_same_in_both_precisions(fill):
    double = fill(torch.empty(2, 5, 5, dtype=torch.float64), generator=seed(4))
    single = fill(torch.empty(2, 5, 5), generator=seed(4))
    assert torch.equal(double.float(), single)
    assert not torch.equal(double, fill(torch.empty_like(double), generator=seed(5)))
    half = fill(torch.empty(2, 5, 5, dtype=torch.bfloat16), generator=seed(4))
    assert torch.equal(half, double.bfloat16())
    transposed = torch.empty(5, 5, 2, dtype=torch.float64).permute(2, 0, 1)
    assert torch.equal(fill(transposed, generator=seed(4)), double)


@pytest.mark.parametrize("fill", FILLS)
def test_fills_parameters_in_place(fill):
    layer = nn.Linear(4, 4)
    before = layer.weight
    assert fill(layer.weight, 0.5) is before is layer.weight
    assert layer.weight.requires_grad and layer.weight.grad_fn is None
    assert torch.equal(fill(layer.weight, 0.0), torch.zeros(4, 4))


@pytest.mark.parametrize("fill", FILLS)
def test_bad_input(fill):
    with pytest.raises(
        ValueError, match=r"matrices \[..., out, in\], received torch.float32 \(4,\)"
    ):
        fill(torch.empty(4))
    with pytest.raises(ValueError, match="gain must be >= 0, received -1"):
        fill(torch.empty(4, 4), -1.0)
    layer = nn.Linear(4, 4)
    spectral_norm(layer)
    with pytest.raises(ValueError, match="a weight that already has a norm"):
        fill(layer.weight)


def test_what_makes_no_sense():
    with pytest.raises(ValueError, match=r"symmetric matrices are square, received shape \(3, 4\)"):
        symmetric_(torch.empty(3, 4))
    with pytest.raises(ValueError, match="inputs must be -1 or -2"):
        variance_preserving_(torch.empty(3, 4), inputs=0)
