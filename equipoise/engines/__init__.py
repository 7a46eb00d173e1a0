"""Programs that move atoms: they remember the equilibrium from one step to the next."""

from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.evaluator import CalculatorStatistics, Evaluator, NonFiniteError
from equipoise.engines.md import MDResult, run_md
from equipoise.engines.md_summary import MDSummary
from equipoise.engines.relax import RelaxResult, relax
from equipoise.engines.run_files import DiskFullError
from equipoise.engines.warm_start import WarmStart
from equipoise.engines.watchdog import SimulationInterrupted, SimulationStopped, Watchdog

# Named, because the module `ase` of this room would otherwise come with a star import
# and hide the real one.
__all__ = [
    "CalculatorStatistics",
    "DiskFullError",
    "EquipoiseCalculator",
    "Evaluator",
    "MDResult",
    "MDSummary",
    "NonFiniteError",
    "RelaxResult",
    "SimulationInterrupted",
    "SimulationStopped",
    "WarmStart",
    "Watchdog",
    "relax",
    "run_md",
]
