"""The always-stable predictor of Kolafa: made for a fixed, small number of passes per step."""

from dataclasses import dataclass
from math import comb

from equipoise.deq.predictors.predictor import FixedCoefficients


@dataclass(frozen=True)
class ASPC(FixedCoefficients):
    r"""Extrapolation over n = k + 2 solutions that trades an order of accuracy for time reversibility.

    $$ B_j = (-1)^{j+1} \, j \, \binom{2n}{n-j} \Big/ \binom{2n-2}{n-1}, \quad j = 1 \dots n, \qquad
       \omega = \frac{k + 2}{2k + 3} $$

    A sequence c + p(t), with p odd about the *guessed* time and of degree up to 2k + 1, is continued exactly. Straight lines
    always are; the even part of a motion (its curvature) never is, so the error stays of second order in the step, with a
    factor that falls slowly: 2, 1, 4/5, 5/7, 2/3 times z'' h² / 2 for k = 0 ... 4. What is gained is that the error looks the
    same in both directions of time up to order 2k + 3; the part that does not is what makes an energy drift.

    Errors of the solves grow by at most Σ|B_j| = 2k + 3 in a guess, against 2^(k+2) - 1 of the polynomial through as many
    points. For how many passes are enough see :func:`equipoise.deq.predictors.passes_needed`.

    The wrong tool for solves that run to a tight tolerance every time: there
    :class:`equipoise.deq.predictors.Quadratic` or :class:`equipoise.deq.predictors.LeastSquares` start nearer.

    Source: Kolafa, J. Comput. Chem. 25, 335 (2004).

    Attributes:
      k: order, at least 0. Higher orders pay when the fastest motion is sampled by many steps; 2 is the usual choice.
    """

    k: int = 2

    def __post_init__(self):
        if self.k < 0:
            raise ValueError(f"k must be >= 0, received {self.k}")

    @property
    def depth(self) -> int:
        return self.k + 2

    @property
    def mixing(self) -> float:
        """ω of the corrector z = ω f(p) + (1 - ω) p from the guess p, for schemes that pay for one pass only."""
        return (self.k + 2) / (2 * self.k + 3)

    @property
    def amplification(self) -> float:
        """Σ|B_j| = 2k + 3."""
        return float(2 * self.k + 3)

    def coefficients(self, available: int) -> tuple[float, ...]:
        n = min(available, self.depth)  # n = 1 gives (1,), the last solution
        norm = comb(2 * n - 2, n - 1)
        return tuple((-1) ** (j + 1) * j * comb(2 * n, n - j) / norm for j in range(1, n + 1))
