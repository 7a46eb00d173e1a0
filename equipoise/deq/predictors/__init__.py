"""First guesses for a fixed point that moves: the solutions of the last problems tell.

When f(z, x_t) changes smoothly with t, so does its fixed point z(t), and a combination of the last solutions lands much
nearer to the next one than the last solution alone. A predictor is a pure function of that history and knows nothing else:
what to remember, and when to forget, is for the caller to decide.

Which one? :class:`LeastSquares` where something is known of the next problem before it is solved, such as its input;
:class:`ASPC` for a fixed, small number of passes; :class:`Quadratic` for equal steps and tight solves otherwise, :class:`Last`
where steps are irregular.
"""

from equipoise.deq.predictors.aspc import ASPC as ASPC
from equipoise.deq.predictors.last import Last as Last
from equipoise.deq.predictors.least_squares import LeastSquares as LeastSquares
from equipoise.deq.predictors.polynomial import Linear as Linear
from equipoise.deq.predictors.polynomial import Quadratic as Quadratic
from equipoise.deq.predictors.predictor import FixedCoefficients as FixedCoefficients
from equipoise.deq.predictors.predictor import Predictor as Predictor
from equipoise.deq.predictors.stability import passes_needed as passes_needed
from equipoise.deq.predictors.stability import stable_guess as stable_guess
from equipoise.deq.predictors.stability import stable_scheme as stable_scheme
