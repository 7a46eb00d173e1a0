"""Polynomials through the last solutions, extrapolated by one step."""

from dataclasses import dataclass
from math import comb

from equipoise.deq.predictors.predictor import FixedCoefficients


def extrapolation(points: int) -> tuple[float, ...]:
    r"""Weights that continue a polynomial of degree ``points - 1`` exactly.

    $$ c_j = (-1)^{j+1} \binom{n}{j}, \quad j = 1 \dots n $$

    newest first: (1,), (2, -1), (3, -3, 1), ... The sum of their absolute values, 2^n - 1, is the factor by which errors of
    the solves (their tolerance) can grow in the guess: more points pay only as long as the solves are tight.
    """
    return tuple(float((-1) ** (j + 1) * comb(points, j)) for j in range(1, points + 1))


@dataclass(frozen=True)
class Linear(FixedCoefficients):
    r"""$z^{\mathrm{guess}} = 2 z_{-1} - z_{-2}$: error of second order in the step.

    Errors of the solves are amplified up to 3 times.
    """

    @property
    def depth(self) -> int:
        return 2

    def coefficients(self, available: int) -> tuple[float, ...]:
        return extrapolation(min(available, self.depth))


@dataclass(frozen=True)
class Quadratic(FixedCoefficients):
    r"""$z^{\mathrm{guess}} = 3 z_{-1} - 3 z_{-2} + z_{-3}$: third order in the step.

    Errors of the solves are amplified up to 7 times. Not to be confused with :class:`equipoise.deq.predictors.ASPC`, which
    gives up an order for stability when the number of passes is fixed; here every solve should run to its tolerance.
    """

    @property
    def depth(self) -> int:
        return 3

    def coefficients(self, available: int) -> tuple[float, ...]:
        return extrapolation(min(available, self.depth))
