"""A fixed number of passes per step: when the errors of a moving fixed point die out, and when they run away.

The map is z ↦ W z + b(t), W having one pair of eigenvalues ρ exp(±iφ/n), so that n passes multiply errors by ρⁿ exp(±iφ).
"""

import math

import pytest
import torch

from equipoise.deq.predictors import (
    ASPC,
    Last,
    LeastSquares,
    Linear,
    Quadratic,
    passes_needed,
    stable_guess,
    stable_scheme,
)


def growth(predictor, *, rho, passes, phase, steps=400):
    """Error at the end over error in the second period of b, of states updated ``passes`` times per step."""
    angle = torch.tensor(phase / passes, dtype=torch.float64)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    basis = torch.tensor([[1.0, 0.7], [0.0, 0.5]], dtype=torch.float64)  # W is not normal
    matrix = rho * basis @ turn @ torch.linalg.inv(basis)
    inverse = torch.linalg.inv(torch.eye(2, dtype=torch.float64) - matrix)
    direction = torch.tensor([1.0, -2.0], dtype=torch.float64)
    history, errors = [], []
    for step in range(steps):
        b = direction * math.sin(0.1 * step)
        z = predictor(history) if history else torch.zeros(2, dtype=torch.float64)
        for _ in range(passes):
            z = matrix @ z + b
        errors.append((z - inverse @ b).norm())
        if errors[-1] > 1e12:
            return math.inf
        history = [z, *history][: predictor.depth]
    window = 60  # about a period of b
    early, late = torch.stack(errors[window : 2 * window]), torch.stack(errors[-window:])
    return float(late.max() / early.max())


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("predictor", [Linear(), Quadratic(), *map(ASPC, range(5))], ids=repr)
def test_the_rule_is_sharp_where_passes_change_the_sign(predictor, passes):
    def at(product):
        rho = (product / predictor.amplification) ** (1 / passes)
        return growth(predictor, rho=rho, passes=passes, phase=math.pi)

    assert at(0.97) < 1.1
    assert at(1.1) > 1e3


@pytest.mark.parametrize("k", range(5))
def test_the_rule_is_safe_for_other_spectra(k):
    """Limits of ρⁿ(2k + 3) from the roots of x^m = λⁿ Σ B_j x^(m-j) on the unit circle."""
    limit = {0: 1.18, 1: 1.25, 2: 1.30, 3: 1.32, 4: 1.34}[k]

    def at(product, phase):
        rho = math.sqrt(product / (2 * k + 3))
        return growth(ASPC(k), rho=rho, passes=2, phase=phase)

    assert at(0.95 * limit, math.pi / 2) < 1.1
    assert at(1.3 * limit, math.pi / 2) > 1e3
    assert at(0.95 * (2 * k + 3), 0.0) < 1.1  # stable whenever f contracts


@pytest.mark.parametrize(("rho", "k"), [(0.4, 2), (0.63, 2), (0.16, 4), (0.8, 0), (0.63, 3)])
def test_passes_needed_are_enough_and_one_less_can_be_too_few(rho, k):
    passes = passes_needed(rho, ASPC(k))
    assert rho**passes * (2 * k + 3) < 1 <= rho ** (passes - 1) * (2 * k + 3)
    assert growth(ASPC(k), rho=rho, passes=passes, phase=math.pi) < 1.1
    assert growth(ASPC(k), rho=rho, passes=passes - 1, phase=math.pi, steps=3000) > 1e2


def test_known_numbers_of_passes():
    assert passes_needed(0.4, ASPC(2)) == 3
    assert passes_needed(0.63, ASPC(2)) == 5
    assert passes_needed(0.99, Last()) == 1
    assert passes_needed(0.0, Quadratic()) == 1
    assert passes_needed(0.5, Linear()) == 2
    assert passes_needed(1 / 3, Linear()) == 2  # the border itself is not stable


def test_bad_input():
    for rho in (1.0, 1.3, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"contraction must lie in \[0, 1\)"):
            passes_needed(rho, ASPC(2))
    with pytest.raises(ValueError, match="only predictors with fixed coefficients"):
        passes_needed(0.5, LeastSquares())


def test_the_guess_is_of_the_highest_order_that_is_stable():
    assert stable_guess(0.26, 2) == ASPC(4)  # 0.26² · 11 < 1
    assert stable_guess(0.35, 2) == ASPC(2)  # 0.35² · 9 > 1 > 0.35² · 7
    assert stable_guess(0.44, 2) == ASPC(1)
    assert stable_guess(0.1, 9) == ASPC(4)
    with pytest.raises(ValueError, match="contracts by 0.80 a pass; take at least 5, better 10"):
        stable_guess(0.8, 4)


def test_the_scheme_takes_as_many_passes_as_a_reversible_guess_needs():
    assert stable_scheme(0.26) == (ASPC(4), 2)
    assert stable_scheme(0.35) == (ASPC(4), 3)  # order 2 would do with two
    assert stable_scheme(0.46) == (ASPC(3), 3)
    assert stable_scheme(0.26, passes=1) == (ASPC(4), 2)
    assert stable_scheme(0.01, passes=1) == (ASPC(4), 1)
    with pytest.raises(ValueError, match="does not contract"):
        stable_scheme(1.0)
