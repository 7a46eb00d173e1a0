"""Deep equilibrium models: fixed points of any f(z, *args). Knows no atoms and no rotations."""

from equipoise.deq.contraction import spectral_norm as spectral_norm
from equipoise.deq.contraction import weight_norm as weight_norm
from equipoise.deq.dropout import Dropout as Dropout
from equipoise.deq.fixed_point import fixed_point as fixed_point
from equipoise.deq.gradients import Adjoint as Adjoint
from equipoise.deq.gradients import Gradient as Gradient
from equipoise.deq.gradients import Implicit as Implicit
from equipoise.deq.gradients import Phantom as Phantom
from equipoise.deq.gradients import Transposed as Transposed
from equipoise.deq.gradients import Unrolled as Unrolled
from equipoise.deq.inner import Inner as Inner
from equipoise.deq.layer import DEQ as DEQ
from equipoise.deq.layer import ModuleMap as ModuleMap
from equipoise.deq.monotone import ForwardBackward as ForwardBackward
from equipoise.deq.monotone import Monotone as Monotone
from equipoise.deq.monotone import PeacemanRachford as PeacemanRachford
from equipoise.deq.regularise import fixed_point_correction as fixed_point_correction
from equipoise.deq.regularise import jacobian_penalty as jacobian_penalty
from equipoise.deq.regularise import spectral_radius as spectral_radius
from equipoise.deq.solution import Result as Result
from equipoise.deq.solution import Solution as Solution
from equipoise.deq.solvers import Anderson as Anderson
from equipoise.deq.solvers import Broyden as Broyden
from equipoise.deq.solvers import Newton as Newton
from equipoise.deq.solvers import Picard as Picard
from equipoise.deq.solvers import Solver as Solver
