import pytest
import torch

from equipoise.deq import Anderson, Implicit, Phantom, Picard, Result, Unrolled
from equipoise.deq.monotone import ForwardBackward, Monotone, PeacemanRachford, ReLU, Softplus, Tanh
from tests.deq.monotone.cells import DEVICES, inputs_for, random_cell

TIGHT = {
    "solver": Anderson(tolerance=1e-13, max_passes=500),
    "gradient": Implicit(solver=Anderson(tolerance=1e-12, max_passes=500)),
}


@pytest.mark.parametrize("outputs", [None, 3])
@pytest.mark.parametrize("lipschitz", [None, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("size", [0.0, 1.0, 10.0, 1000.0])
def test_well_posed_by_construction(size, lipschitz, outputs):
    """Both matrix inequalities of the theorem, from W, U, G as they come out."""
    for seed in range(3):
        cell = random_cell(4, 16, outputs, lipschitz=lipschitz, size=size, margin=0.3, seed=seed)
        with torch.no_grad():
            equation = cell.equation()
        metric = torch.diag(equation.metric)
        form = 2 * metric - metric @ equation.weight - equation.weight.T @ metric
        slack = 1e-12 * max(1.0, float(torch.linalg.matrix_norm(form, 2)))
        margin = form - 2 * 0.3 * metric
        assert torch.linalg.eigvalsh(margin)[0] > -slack
        if lipschitz is not None:
            bound = metric @ equation.inject
            gain = (equation.read.T @ equation.read + bound @ bound.T) / lipschitz
            assert torch.linalg.eigvalsh(margin - gain)[0] > -slack


def test_without_bound_and_metric_it_is_the_mondeq():
    cell = random_cell(3, 6, margin=0.25)
    with torch.no_grad():
        cell.scale.zero_()
        weight = cell.equation().weight
    a, b = cell.damping, cell.rotation
    expected = 0.75 * torch.eye(6, dtype=torch.float64) - a.T @ a - b + b.T
    torch.testing.assert_close(weight, expected.detach())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [ReLU(), Tanh(), Softplus()], ids=repr)
def test_forward_solves_the_equation(activation, dtype, device):
    cell = random_cell(4, 20, 3, lipschitz=1.0, activation=activation, dtype=dtype).to(device)
    x = inputs_for(cell)
    solution = cell.solve(x)
    assert solution.converged and solution.value.dtype == dtype
    assert solution.passes.shape == (len(x),)
    equation = cell.equation()
    z = solution.value.detach()
    mapped = activation(z @ equation.weight.T + x @ cell.inject.T + cell.bias)
    torch.testing.assert_close(mapped, z, rtol=0, atol=3e-3 * float(z.norm(dim=1).mean()))
    y = cell(x)
    assert y.shape == (8, 3) and y.dtype == dtype and y.device == x.device
    torch.testing.assert_close(y, z @ cell.read.T + cell.shift, rtol=0, atol=1e-5)


def test_without_outputs_the_state_is_the_answer():
    cell = random_cell(4, 6, lipschitz=1.0)
    x = inputs_for(cell)
    torch.testing.assert_close(cell(x), cell.solve(x).value)
    assert "read" not in dict(cell.named_parameters())


@pytest.mark.parametrize("splitting", [PeacemanRachford(), ForwardBackward()], ids=repr)
def test_gradients_of_first_and_second_order(splitting):
    cell = random_cell(2, 3, 2, lipschitz=1.0, margin=1.0, splitting=splitting, **TIGHT)
    check_derivatives(cell, fast=True)


@pytest.mark.parametrize("lipschitz", [None, 1.5])
def test_gradients_of_a_smooth_cell(lipschitz):
    """Whose second derivatives do not vanish."""
    check_derivatives(random_cell(2, 3, 2, lipschitz=lipschitz, activation=Tanh(), **TIGHT))


def check_derivatives(cell, *, fast=False):
    """``fast``: along random directions instead of entry by entry."""
    x = inputs_for(cell, 2).requires_grad_()
    names, values = zip(*cell.named_parameters(), strict=True)

    def output(x, *values):
        return torch.func.functional_call(cell, dict(zip(names, values, strict=True)), (x,))

    values = [value.detach().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(output, (x, *values), atol=1e-6, fast_mode=fast)
    assert torch.autograd.gradgradcheck(output, (x, *values), atol=1e-5, fast_mode=True)


def test_gradient_of_a_gradient_loss_is_that_of_differences():
    """The loss of a force, |∂y/∂x|², differentiated by the weights: what training on derivatives needs."""
    cell = random_cell(3, 8, 1, lipschitz=1.0, activation=Softplus(), **TIGHT)
    x = inputs_for(cell, 4)

    def loss():
        points = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(cell(points).sum(), points, create_graph=True)
        return slope.square().sum()

    loss().backward()
    step = 1e-4
    for parameter in (cell.inject, cell.damping, cell.rotation, cell.scale):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * step * direction)
            values.append(float(loss().detach()))
            with torch.no_grad():
                parameter.sub_(sign * step * direction)
        difference = (values[0] - values[1]) / (2 * step)
        predicted = float((parameter.grad * direction).sum())
        assert predicted == pytest.approx(difference, rel=1e-5, abs=1e-7)


def test_other_gradients_work_too_and_tend_to_the_exact_one():
    cell = random_cell(3, 8, 1, lipschitz=1.0, activation=Tanh(), margin=1.0, **TIGHT)
    x = inputs_for(cell, 4)
    found = {}
    for gradient in (TIGHT["gradient"], Phantom(steps=1), Phantom(steps=60), Unrolled(passes=200)):
        cell.gradient = gradient
        cell.zero_grad()
        cell(x).sum().backward()
        found[gradient] = cell.damping.grad.clone()
    exact, rough, phantom, unrolled = found.values()
    assert (rough - exact).norm() > 1e-3 * exact.norm()
    torch.testing.assert_close(phantom, exact, rtol=0, atol=1e-6)
    torch.testing.assert_close(unrolled, exact, rtol=0, atol=1e-6)


def test_a_sample_does_not_feel_its_batch_mates():
    cell = random_cell(3, 10, 2, lipschitz=1.0)
    x = inputs_for(cell)
    batch, alone = cell.solve(x), cell.solve(x[2:3])
    assert batch.passes[2] == alone.passes[0]
    torch.testing.assert_close(batch.value[2:3], alone.value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("splitting", [PeacemanRachford(), ForwardBackward()], ids=repr)
def test_a_solution_is_a_start(splitting):
    cell = random_cell(3, 10, 2, lipschitz=1.0, margin=1.0, splitting=splitting)
    cell.solver = Picard(tolerance=1e-9, max_passes=20_000)
    x = inputs_for(cell)
    cold = cell.solve(x)
    warm = cell.solve(x, start=cold.value)
    assert cold.passes.min() > 10 and warm.passes.max() <= 3


def test_not_converging_is_said():
    cell = random_cell(3, 10, 2, lipschitz=1.0, solver=Anderson(tolerance=1e-10, max_passes=3))
    x = inputs_for(cell)
    with pytest.warns(UserWarning, match=r"8 of 8 equilibria did not converge .*more passes"):
        cell(x)
    assert (cell.solve(x).result == Result.MAX_PASSES).all()


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_bounds_and_margins_must_be_positive(value):
    with pytest.raises(ValueError, match="lipschitz must be > 0 and finite, or None"):
        Monotone(2, 3, 1, lipschitz=value)
    with pytest.raises(ValueError, match="margin must be > 0 and finite, received"):
        Monotone(2, 3, 1, margin=value)


@pytest.mark.parametrize(
    "name, widths", [("inputs", (0, 3)), ("hidden", (2, 0)), ("outputs", (2, 3, 0))]
)
def test_widths_must_be_positive(name, widths):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, received 0"):
        Monotone(*widths)


def test_bad_inputs_are_refused():
    cell = random_cell(3, 5, 2, lipschitz=1.0)
    x = inputs_for(cell)
    with pytest.raises(
        ValueError, match=r"x must have shape \(samples >= 1, 3\), received \(8, 2\)"
    ):
        cell(x[:, :2])
    with pytest.raises(ValueError, match=r"received \(0, 3\)"):
        cell(x[:0])
    with pytest.raises(ValueError, match="float64, received torch.float32"):
        cell(x.float())
    with pytest.raises(ValueError, match="x must be finite"):
        cell(x / 0)
    with pytest.raises(ValueError, match=r"start must have shape \(8, 5\), received \(7, 5\)"):
        cell.solve(x, start=torch.zeros(7, 5).double())


def test_broken_weights_are_named():
    cell = random_cell(3, 5, 2, lipschitz=1.0)
    x = inputs_for(cell)
    with torch.no_grad():
        cell.rotation[1, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity in rotation"):
        cell(x)
    with torch.no_grad():
        cell.rotation[1, 2] = 0
        cell.damping[0, 0] = 1e200
    with pytest.raises(ValueError, match="overflow torch.float64"):
        cell(x)
