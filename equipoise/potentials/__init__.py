"""Energy, forces and stress of structures."""

from equipoise.potentials.checkpoint import build as build
from equipoise.potentials.checkpoint import describe as describe
from equipoise.potentials.checkpoint import load as load
from equipoise.potentials.checkpoint import save as save
from equipoise.potentials.checkpoint import zoo as zoo
from equipoise.potentials.choices import Choice as Choice
from equipoise.potentials.config import ImplicitGradient as ImplicitGradient
from equipoise.potentials.config import PotentialConfig as PotentialConfig
from equipoise.potentials.config import Statistics as Statistics
from equipoise.potentials.equilibrium import Equilibrium as Equilibrium
from equipoise.potentials.injection import InjectionConfig as InjectionConfig
from equipoise.potentials.potential import Potential as Potential
from equipoise.potentials.potential import Prediction as Prediction
from equipoise.potentials.potential import UnconvergedError as UnconvergedError
from equipoise.potentials.research import from_research_code as from_research_code
from equipoise.potentials.stacked import Stacked as Stacked
