"""Equivariant force fields as deep equilibrium models.

potential = equipoise.load("rmd17-ethanol")
graph = equipoise.Graph.from_ase(atoms, cutoff=potential.cutoff)
prediction = potential(graph)                                   # .energy eV, .forces eV/Å
potential(next_graph, start=prediction.equilibrium)             # a step later: fewer passes
"""

from equipoise.deq import Anderson as Anderson
from equipoise.deq import Implicit as Implicit
from equipoise.deq import Phantom as Phantom
from equipoise.deq import Picard as Picard
from equipoise.deq import Result as Result
from equipoise.deq import Solution as Solution
from equipoise.deq import fixed_point as fixed_point
from equipoise.graph import Graph as Graph
from equipoise.graph import batch as batch
from equipoise.potentials import Potential as Potential
from equipoise.potentials import PotentialConfig as PotentialConfig
from equipoise.potentials import Prediction as Prediction
from equipoise.potentials import Statistics as Statistics
from equipoise.potentials import UnconvergedError as UnconvergedError
from equipoise.potentials import build as build
from equipoise.potentials import load as load
from equipoise.potentials import save as save
from equipoise.potentials import zoo as zoo

__version__ = "0.3.0"
