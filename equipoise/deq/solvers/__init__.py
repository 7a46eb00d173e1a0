"""Ways to find a fixed point: one file each."""

from equipoise.deq.solvers.anderson import Anderson as Anderson
from equipoise.deq.solvers.broyden import Broyden as Broyden
from equipoise.deq.solvers.newton import Newton as Newton
from equipoise.deq.solvers.picard import Picard as Picard
from equipoise.deq.solvers.solver import Solver as Solver
