"""Extrapolation formulas: exact on what they should continue, and only on that."""

import pytest
import torch

from equipoise.deq import Inner
from equipoise.deq.predictors import ASPC, Last, LeastSquares, Linear, Predictor, Quadratic

PREDICTORS = [Last(), Linear(), Quadratic()]
FIXED = [*PREDICTORS, ASPC(0), ASPC(2)]
EVERY = [*FIXED, LeastSquares(depth=3)]


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


def call(predictor, past):
    """All predictors are called alike; the first component of the state serves as descriptor."""
    return predictor(
        past[1:], descriptors=[z[:, :1] for z in past[1:]], descriptor=past[0][:, :1], inner=Inner()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("predictor", EVERY)
def test_all_are_called_alike_and_keep_the_type(predictor, dtype):
    past, _ = history(2, dtype=dtype)
    before = [z.clone() for z in past]
    guess = call(predictor, past)
    assert guess.dtype == dtype and guess.shape == past[0].shape
    assert all(torch.equal(z, old) for z, old in zip(past, before, strict=True))
    assert isinstance(predictor, Predictor)


@pytest.mark.parametrize("predictor", EVERY)
def test_the_guess_for_a_rotated_history_is_the_rotated_guess(predictor):
    generator = torch.Generator().manual_seed(2)
    past = [torch.randn(5, 3, dtype=torch.float64, generator=generator) for _ in range(5)]
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))

    def guess(states):
        return predictor(states[1:], descriptors=states[1:], descriptor=states[0])

    rotated = guess([z @ rotation for z in past])
    torch.testing.assert_close(rotated, guess(past) @ rotation, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("predictor", EVERY)
def test_a_constant_is_continued_exactly(predictor):
    state = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(call(predictor, [state] * 5), state, rtol=1e-14, atol=0)


@pytest.mark.parametrize("predictor", FIXED)
def test_amplification_is_the_worst_case(predictor):
    """Errors of the solves of size one, with the worst signs, are that large in the guess."""
    signs = [1.0 if c > 0 else -1.0 for c in predictor.coefficients(predictor.depth)]
    worst = predictor([torch.tensor([sign], dtype=torch.float64) for sign in signs])
    assert worst.item() == pytest.approx(predictor.amplification, rel=1e-13)


def test_published_amplification():
    assert [p.amplification for p in FIXED] == [1, 3, 7, 3, 7]


@pytest.mark.parametrize("predictor", EVERY)
def test_refuses_an_empty_history(predictor):
    with pytest.raises(ValueError, match="at least 1 past solution"):
        predictor([])
