"""Deep equilibrium models: fixed points of any f(z, *args). Knows no atoms and no rotations."""

from equipoise.deq.fixed_point import fixed_point as fixed_point
from equipoise.deq.gradients import Gradient as Gradient
from equipoise.deq.gradients import Implicit as Implicit
from equipoise.deq.gradients import Phantom as Phantom
from equipoise.deq.gradients import Transposed as Transposed
from equipoise.deq.inner import Inner as Inner
from equipoise.deq.regularise import jacobian_penalty as jacobian_penalty
from equipoise.deq.regularise import spectral_radius as spectral_radius
from equipoise.deq.solution import Result as Result
from equipoise.deq.solution import Solution as Solution
from equipoise.deq.solvers import Anderson as Anderson
from equipoise.deq.solvers import Picard as Picard
from equipoise.deq.solvers import Solver as Solver
