"""The always-stable predictor: published numbers, and which sequences it continues."""

from fractions import Fraction
from math import comb

import pytest
import torch

from equipoise.deq.predictors import ASPC

# Kolafa (2004), as two molecular-simulation packages print them; newest first, then the mixing of the corrector.
PUBLISHED = {
    0: ("2 -1", "2/3"),
    1: ("5/2 -2 1/2", "3/5"),
    2: ("14/5 -14/5 6/5 -1/5", "4/7"),
    3: ("3 -24/7 27/14 -4/7 1/14", "5/9"),
    4: ("22/7 -55/14 55/21 -22/21 5/21 -1/42", "6/11"),
}


@pytest.mark.parametrize("k", PUBLISHED)
def test_published_coefficients(k):
    coefficients, mixing = PUBLISHED[k]
    expected = [float(Fraction(c)) for c in coefficients.split()]
    assert ASPC(k).coefficients(99) == pytest.approx(expected, rel=1e-15)
    assert ASPC(k).mixing == pytest.approx(float(Fraction(mixing)), rel=1e-15)
    assert ASPC(k).depth == len(expected) == k + 2


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5, 8, 15])
def test_closed_formula_at_any_order(k):
    """In exact arithmetic: the coefficients sum to 1, their sizes to 2k + 3, and odd moments vanish up to 2k + 1."""
    n = k + 2
    exact = [
        Fraction((-1) ** (j + 1) * j * comb(2 * n, n - j), comb(2 * n - 2, n - 1))
        for j in range(1, n + 1)
    ]
    assert ASPC(k).coefficients(n) == tuple(float(b) for b in exact)
    assert sum(exact) == 1
    assert sum(abs(b) for b in exact) == ASPC(k).amplification

    def moment(degree):
        return sum(b * Fraction(-j) ** degree for j, b in enumerate(exact, start=1))

    assert all(moment(degree) == 0 for degree in range(1, 2 * k + 2, 2))
    assert moment(2 * k + 3) != 0
    assert all(moment(degree) != 0 for degree in range(2, 2 * k + 2, 2))


@pytest.mark.parametrize("k", range(5))
def test_continues_what_is_odd_about_the_guessed_time(k):
    """Motion z(s) = c + Σ odd powers of s up to 2k + 1, s = 0 being the time of the guess; curvature is what is lost."""
    coefficients = torch.randn(
        k + 1, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(k)
    )
    constant = torch.ones(5, 3, dtype=torch.float64)

    def at(s):
        return constant + sum(c * s ** (2 * i + 1) for i, c in enumerate(coefficients))

    past = [at(-0.1 * j) for j in range(1, k + 3)]
    torch.testing.assert_close(ASPC(k)(past), constant, rtol=1e-12, atol=0)
    curved = [z + (0.1 * j) ** 2 for j, z in enumerate(past, start=1)]
    lost = {0: -2, 1: -1, 2: -4 / 5, 3: -5 / 7, 4: -2 / 3}[k] * 0.01
    torch.testing.assert_close(ASPC(k)(curved), constant + lost, rtol=1e-12, atol=0)


@pytest.mark.parametrize("available", range(1, 8))
def test_a_short_history_uses_the_best_order_of_its_length(available):
    short = ASPC(4).coefficients(available)
    expected = (1.0,) if available == 1 else ASPC(min(available - 2, 4)).coefficients(99)
    assert short == expected


def test_refuses_negative_orders():
    with pytest.raises(ValueError, match="k must be >= 0, received -1"):
        ASPC(-1)
