"""Ways to differentiate a fixed point: one file each."""

from equipoise.deq.gradients.gradient import Gradient as Gradient
from equipoise.deq.gradients.implicit import Adjoint as Adjoint
from equipoise.deq.gradients.implicit import Implicit as Implicit
from equipoise.deq.gradients.implicit import Transposed as Transposed
from equipoise.deq.gradients.phantom import Phantom as Phantom
from equipoise.deq.gradients.unrolled import Unrolled as Unrolled
