"""Extrapolation formulas: exact on what they should continue, and only on that."""

import pytest
import torch

from equipoise.deq.predictors import Last, Linear, Quadratic

PREDICTORS = [Last(), Linear(), Quadratic()]


def history(degree, dtype=torch.float64):
    """(newest first, truth) of a polynomial sampled at t = 4, 3, 2, ... and 5."""
    coefficients = torch.randn(
        degree + 1, 5, 3, dtype=dtype, generator=torch.Generator().manual_seed(1)
    )

    def at(t):
        return sum(c * float(t) ** k for k, c in enumerate(coefficients))

    return [at(t) for t in (4, 3, 2, 1)], at(5)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_continues_polynomials_of_its_own_degree_and_no_higher(predictor):
    degree = predictor.depth - 1
    past, truth = history(degree)
    torch.testing.assert_close(predictor(past), truth, rtol=1e-12, atol=1e-12)
    past, truth = history(degree + 1)
    assert (predictor(past) - truth).abs().max() > 0.1


def test_the_published_weights():
    assert Linear().coefficients(5) == (2.0, -1.0)
    assert Quadratic().coefficients(3) == (3.0, -3.0, 1.0)


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("available", [1, 2, 3, 4])
def test_a_short_history_uses_the_best_formula_of_its_length(predictor, available):
    degree = min(available, predictor.depth) - 1
    past, truth = history(degree)
    torch.testing.assert_close(predictor(past[:available]), truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_keeps_the_type(predictor):
    past, _ = history(2, dtype=torch.float32)
    assert predictor(past).dtype == torch.float32


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_refuses_an_empty_history(predictor):
    with pytest.raises(ValueError, match="at least 1 past solution"):
        predictor([])
