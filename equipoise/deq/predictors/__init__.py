"""First guesses for a fixed point that moves: the solutions of the last problems tell.

When f(z, x_t) changes smoothly with t, so does its fixed point z(t), and a polynomial
through the last solutions lands much nearer to the next one than the last solution
alone. A predictor is a pure function of that history and knows nothing else: what to
remember, and when to forget, is for the caller to decide.
"""

from equipoise.deq.predictors.last import Last as Last
from equipoise.deq.predictors.polynomial import Linear as Linear
from equipoise.deq.predictors.polynomial import Quadratic as Quadratic
from equipoise.deq.predictors.predictor import Predictor as Predictor
