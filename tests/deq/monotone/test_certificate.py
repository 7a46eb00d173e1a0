import pytest
import torch

from equipoise.deq import Anderson, Implicit, Picard
from equipoise.deq.monotone import HardTanh, ReLU, Softplus, Tanh, certify, error_bound, gain
from equipoise.deq.monotone import certificate as certificate_file
from equipoise.deq.monotone.certificate import jacobian
from tests.deq.monotone.cells import inputs_for, random_cell

# For tiny cells plain iteration of the splitting is the quickest.
PLAIN = {
    "solver": Picard(tolerance=1e-5, max_passes=1000),
    "gradient": Implicit(solver=Picard(tolerance=1e-5, max_passes=1000)),
}


@pytest.mark.parametrize("lipschitz", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("size", [0.3, 1.0, 10.0, 1000.0])
def test_the_certificate_confirms_the_construction(size, lipschitz):
    for seed in range(3):
        cell = random_cell(4, 16, 3, lipschitz=lipschitz, size=size, seed=seed)
        certificate = certify(cell)
        assert 0 < certificate.lipschitz <= lipschitz * (1 + 1e-9)
        assert certificate.prescribed == lipschitz
        assert certificate.definiteness > 0
        assert certificate.monotonicity >= 0.5 * (1 - 1e-6)
        assert certificate.norm >= certificate.monotonicity


def test_the_certificate_is_the_best_scaling_of_the_metric():
    """Against a plain scan of c, for a cell whose G and U are of very different size."""
    cell = random_cell(3, 8, 2)
    with torch.no_grad():
        cell.read.mul_(100)
        equation = cell.equation()
        root = torch.linalg.inv(torch.linalg.cholesky(2 * equation.form()))
        read = root @ equation.read.T
        bound = root @ (equation.metric[:, None] * equation.inject)
    scan = [
        float(torch.linalg.matrix_norm(read @ read.T / c + c * bound @ bound.T, 2))
        for c in torch.logspace(-4, 6, 4001, dtype=torch.float64)
    ]
    assert certify(cell).lipschitz == pytest.approx(min(scan), rel=1e-4)
    assert min(scan) < 0.1 * scan[1600], "c = 1 would be a poor choice here"


@pytest.mark.parametrize("activation", [ReLU(), HardTanh(), Tanh(), Softplus()], ids=repr)
@pytest.mark.parametrize("lipschitz", [None, 0.5])
def test_no_slope_exceeds_the_certificate(lipschitz, activation):
    for seed in range(4):
        cell = random_cell(4, 16, 3, lipschitz=lipschitz, activation=activation, seed=seed)
        bound = certify(cell).lipschitz
        found = gain(cell, 3 * inputs_for(cell, 200)).max()
        assert 0 < found <= bound * (1 + 1e-9)


def test_no_pattern_of_slopes_exceeds_the_certificate():
    """The proof needs of D only that it lies in [0, 1]: try the corners, whether an input reaches them or not."""
    cell = random_cell(3, 10, 2, lipschitz=0.5)
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 2, (1000, 10), generator=generator).double()
    slopes = torch.linalg.matrix_norm(jacobian(cell.equation(), corners), 2)
    assert slopes.max() <= certify(cell).lipschitz


def test_gain_is_the_norm_of_the_autograd_jacobian():
    tight = Anderson(tolerance=1e-12, max_passes=500)
    cell = random_cell(3, 8, 2, lipschitz=1.0, solver=tight, gradient=Implicit(solver=tight))
    x = inputs_for(cell, 3)
    for row, found in zip(x, gain(cell, x), strict=True):
        full = torch.autograd.functional.jacobian(lambda v: cell(v[None])[0], row)
        torch.testing.assert_close(torch.linalg.matrix_norm(full, 2), found, rtol=1e-8, atol=0)


def test_the_bound_can_be_reached():
    """Gradient ascent on the gain finds weights within 10 % of γ: the bound is no idle one."""
    cell = random_cell(2, 6, 2, lipschitz=1.0, margin=0.05, activation=Tanh())
    x = (0.1 * inputs_for(cell, 2)).requires_grad_()
    optimiser = torch.optim.Adam([x, *cell.parameters()], lr=0.1)
    for _ in range(40):
        optimiser.zero_grad()
        (-gain(cell, x).max()).backward()
        optimiser.step()
    best = float(gain(cell, x).max().detach())
    assert 0.9 < best <= certify(cell).lipschitz <= 1 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [ReLU(), Tanh()], ids=repr)
def test_the_error_bound_covers_the_error_of_a_loose_solve(activation, dtype):
    cell = random_cell(4, 16, 3, lipschitz=1.0, activation=activation, dtype=dtype)
    x = inputs_for(cell)
    exact = random_cell(4, 16, 3, lipschitz=1.0, activation=activation).double()
    exact.load_state_dict(cell.state_dict())
    exact.solver = Anderson(tolerance=1e-14, max_passes=1000)
    reference = exact.equation().readout(exact.solve(x.double()).value)
    for tolerance in (1e-1, 1e-3, 1e-5):
        cell.solver = Anderson(tolerance=tolerance, max_passes=300)
        y = cell(x)
        error = (y - reference).norm(dim=1)
        bound = error_bound(cell, x, y)
        assert bound.dtype == torch.float64
        assert (error <= bound + 1e-12).all()
        assert (bound <= 1.01 * error + 1e-9).all(), "and it is not a loose one"


def test_the_error_bound_holds_even_when_its_own_solve_fails(monkeypatch):
    """Rigorous for any state: cut the reference solve short and the bound must grow, not lie."""
    cell = random_cell(4, 16, 3, lipschitz=1.0)
    cell.solver = Anderson(tolerance=1e-13, max_passes=500)
    x = inputs_for(cell)
    y = cell(x)
    for passes in (1, 3, 10):
        short = Anderson(tolerance=0.0, max_passes=passes)
        monkeypatch.setattr(certificate_file, "REFERENCE", short)
        for offset in (0.0, 0.3):
            bound = error_bound(cell, x, y + offset)
            assert (bound >= offset * 3**0.5 - 1e-9).all()
    monkeypatch.setattr(certificate_file, "REFERENCE", Anderson(tolerance=0.0, max_passes=1))
    assert (error_bound(cell, x, y) > 1e-3).all()


def test_answers_differ_by_no_more_than_certified():
    """|ŷ - ŷ'| <= γ|x - x'| + ε + ε' for pairs near and far, with a solve so loose that γ|x - x'| alone is violated."""
    cell = random_cell(4, 16, 3, lipschitz=1.0, margin=0.1)
    cell.solver = Anderson(tolerance=3e-2, max_passes=300)
    bound = certify(cell).lipschitz
    x = inputs_for(cell, 100)
    violated = False
    for distance in (1e-4, 1e-2, 1.0):
        other = x + distance * inputs_for(cell, 100, seed=2)
        y, y_other = cell(x), cell(other)
        change, allowed = (y - y_other).norm(dim=1), bound * (x - other).norm(dim=1)
        violated |= bool((change > allowed).any())
        slack = error_bound(cell, x, y) + error_bound(cell, other, y_other)
        assert (change <= allowed + slack).all()
    assert violated, "this solve was meant to be a bad one"


def test_training_keeps_the_guarantee():
    """100 steps of Adam towards a function that is steeper than γ."""
    cell = random_cell(1, 16, 1, lipschitz=1.0, dtype=torch.float32, **PLAIN)
    x = torch.linspace(-2, 2, 16)[:, None]
    target = 3 * torch.tanh(2 * x)
    optimiser = torch.optim.Adam(cell.parameters(), lr=0.02)
    losses = []
    for _ in range(100):
        optimiser.zero_grad()
        loss = (cell(x) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    certificate = certify(cell)
    assert losses[-1] < 0.8 * losses[0]
    assert certificate.lipschitz <= 1 + 1e-9
    assert certificate.monotonicity >= 0.5 * (1 - 1e-6) and certificate.definiteness > 0
    assert 0.5 < gain(cell, x).max() <= certificate.lipschitz * (1 + 1e-5)


def test_more_than_rounding_can_hold_is_refused():
    cell = random_cell(3, 12, 2)
    with torch.no_grad():
        cell.damping.copy_(
            1e12 * cell.damping[:1]
        )  # rank one: what is left is the margin, lost in 1e24
    with pytest.raises(ValueError, match="must be positive definite, received one that is not"):
        certify(cell)


def test_an_answer_of_another_shape_is_refused():
    cell = random_cell(3, 5, 2, lipschitz=1.0)
    x = inputs_for(cell)
    with pytest.raises(ValueError, match=r"y must have shape \(8, 2\), received \(8, 1\)"):
        error_bound(cell, x, cell(x)[:, :1])
