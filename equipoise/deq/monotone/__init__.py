"""Equilibrium cells that have exactly one equilibrium and a known Lipschitz bound, whatever their parameters."""

from equipoise.deq.monotone.activation import Activation as Activation
from equipoise.deq.monotone.activation import HardTanh as HardTanh
from equipoise.deq.monotone.activation import ReLU as ReLU
from equipoise.deq.monotone.activation import Sigmoid as Sigmoid
from equipoise.deq.monotone.activation import Softplus as Softplus
from equipoise.deq.monotone.activation import Tanh as Tanh
from equipoise.deq.monotone.cell import Monotone as Monotone
from equipoise.deq.monotone.certificate import Certificate as Certificate
from equipoise.deq.monotone.certificate import certify as certify
from equipoise.deq.monotone.certificate import error_bound as error_bound
from equipoise.deq.monotone.certificate import gain as gain
from equipoise.deq.monotone.equation import Equation as Equation
from equipoise.deq.monotone.splitting import ForwardBackward as ForwardBackward
from equipoise.deq.monotone.splitting import PeacemanRachford as PeacemanRachford
from equipoise.deq.monotone.splitting import Splitting as Splitting
