"""How many passes per step keep a sequence of guesses and corrections from running away."""

from equipoise.deq.predictors.aspc import ASPC
from equipoise.deq.predictors.predictor import FixedCoefficients, Predictor

# Energies of simulations drift with the guesses of lower orders, through errors of odd order 2k + 3 in the step.
LOWEST = 3
HIGHEST = 4  # orders beyond gain next to nothing and ask for more passes


def passes_needed(contraction: float, predictor: Predictor) -> int:
    r"""The smallest n ≥ 1 with $\rho^n \sum_j |c_j| < 1$: passes per step that keep errors from growing, step after step.

    A pass multiplies the error of a guess by (at most) ρ, and the next guess passes on Σ|c_j| times the errors of the last
    solutions. The rule is sufficient for plain passes z ← f(z) near the fixed point. It is sharp for predictors whose
    coefficients alternate in sign when the slowest mode of f changes sign in n passes (an eigenvalue λ of ∂f/∂z with
    λⁿ < 0); for complex ones 1.1 to 2 times as much is borne, and for λⁿ > 0 a guess is stable whenever f contracts.

    Stable is not accurate: the number of passes that a tolerance asks for may be larger, and is what should end a solve.

    Source: the analysis of Kolafa, J. Comput. Chem. 25, 335 (2004), for n passes.

    Args:
      contraction: ρ, the factor by which a pass shrinks the error, at least 0 and below 1; see
        :func:`equipoise.deq.spectral_radius`.
      predictor: one whose coefficients are known beforehand.

    Raises:
      ValueError: if ρ does not lie in [0, 1), since passes that do not contract stabilise nothing, or if the coefficients
        depend on more than the length of the history.
    """
    if not isinstance(predictor, FixedCoefficients):
        raise ValueError(
            f"only predictors with fixed coefficients amplify errors by a known factor, received {predictor}; run its solves "
            "to a tolerance instead of a number of passes"
        )
    if not 0 <= contraction < 1:
        raise ValueError(
            f"contraction must lie in [0, 1), received {contraction}; a map that does not contract needs a solver that does "
            "not rely on it (Anderson, Broyden, Newton), run to its tolerance"
        )
    passes, error = 1, contraction * predictor.amplification
    while error >= 1:
        passes, error = passes + 1, error * contraction
    return passes


def stable_guess(contraction: float, passes: int) -> ASPC:
    """The predictor of highest order, at most four, that so many passes per step keep stable.

    Args:
      contraction: ρ, as for :func:`passes_needed`, of the problems to come; measured on one of them.
      passes: per step, at least 1.

    Raises:
      ValueError: if they are too few for any order; and see :func:`passes_needed`.
    """
    needed = [passes_needed(contraction, ASPC(k)) for k in range(HIGHEST + 1)]
    if passes < needed[0]:
        raise ValueError(
            f"passes must keep errors from growing, received {passes} for a map that contracts by {contraction:.2f} a pass; "
            f"take at least {needed[0]}, better {needed[LOWEST]}, or solve to a tolerance"
        )
    return ASPC(max(k for k, each in enumerate(needed) if each <= passes))


def stable_scheme(contraction: float, *, passes: int = 2) -> tuple[ASPC, int]:
    """The predictor of highest order, at most four, that so many passes per step keep stable, and how many passes these are.

    More passes than asked for where order 3 needs them.

    Args:
      contraction: ρ, as for :func:`stable_guess`.
      passes: at least; 1 leaves errors that are stable and large.

    Raises:
      ValueError: see :func:`passes_needed`.
    """
    passes = max(passes, passes_needed(contraction, ASPC(LOWEST)))
    return stable_guess(contraction, passes), passes
