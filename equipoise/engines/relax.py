"""Geometry optimisation through ASE's optimisers, with the equilibrium reused."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS

from equipoise.deq.predictors import Last, Linear
from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.evaluator import CalculatorStatistics
from equipoise.engines.warm_start import WarmStart
from equipoise.potentials import Potential

# FIRE moves like a dynamics, with steps that change little from one to the next; those
# of the quasi-Newton methods jump, and extrapolating jumps is worse than staying.
OPTIMISERS = {"FIRE": (FIRE, Linear()), "BFGS": (BFGS, Last()), "LBFGS": (LBFGS, Last())}


@dataclass(frozen=True)
class RelaxResult:
    """Where a relaxation ended, converged or not."""

    atoms: ase.Atoms  # relaxed, with the energy, forces (and stress) of that place
    converged: bool  # whether fmax was reached
    steps: int
    fmax: float  # eV/Angstrom, the largest force left (with a cell: stress included)
    energy: float  # eV
    statistics: CalculatorStatistics

    @property
    def message(self) -> str:
        """One line for the user."""
        ended = f"{self.steps} steps, largest force {self.fmax:.2g} eV/Angstrom"
        if self.converged:
            return f"converged after {ended}"
        return f"not converged after {ended}; allow more steps, or start again from where it ended"


def relax(
    atoms: ase.Atoms,
    potential: Potential | str | PathLike[str],
    *,
    fmax: float = 0.01,
    steps: int = 500,
    optimiser: str = "FIRE",
    cell: bool = False,
    trajectory: str | PathLike[str] | None = None,
    log: str | PathLike[str] | None = None,
    warm_start: bool | WarmStart = True,
) -> RelaxResult:
    """Move the atoms downhill until no force is larger than `fmax`.

    `atoms` itself is left unchanged. Not reaching `fmax` is a result, not an error:
    look at `converged`.

    **Arguments**

    - `atoms`, `potential`: where to start, and what pulls: a `Potential`, or a model
      file, run folder or name as for `EquipoiseCalculator`.
    - `fmax`: eV/Angstrom, larger than 0; the largest force on an atom allowed at the
      end. With forces from an equilibrium solved to a relative 1e-4, values below about
      0.001 can be out of reach.
    - `steps`: at most this many, at least 0.
    - `optimiser`: "FIRE" forgives rough starts, "BFGS" and "LBFGS" need fewer steps
      near a minimum.
    - `cell`: also relax the cell of a structure periodic in three directions.
    - `trajectory`: every step is written there, `.extxyz` (or `.xyz`) or ASE's `.traj`;
      an existing file is replaced, missing folders are made; neither happens before the
      potential has accepted the structure.
    - `log`: ASE's table of steps goes to this file, or to stdout with "-".
    - `warm_start`: as for `EquipoiseCalculator`.

    **Raises** `ValueError` for bad arguments; the errors of `EquipoiseCalculator`.
    """
    if optimiser not in OPTIMISERS:
        raise ValueError(f"optimiser must be one of {', '.join(OPTIMISERS)}, received {optimiser}")
    if not 0 < fmax < float("inf"):
        raise ValueError(f"fmax must be finite and larger than 0 eV/Angstrom, received {fmax}")
    if steps < 0:
        raise ValueError(f"steps must be at least 0, received {steps}")
    if cell and not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise ValueError(
            f"relaxing the cell needs a structure periodic in three directions, received "
            f"pbc {atoms.pbc.tolist()} and cell {atoms.cell.tolist()}"
        )
    kind, predictor = OPTIMISERS[optimiser]
    mover = atoms.copy()
    if warm_start is True:
        warm_start = WarmStart(predictor)
    calculator = EquipoiseCalculator(potential, warm_start=warm_start)
    mover.calc = calculator
    target = FrechetCellFilter(mover) if cell else mover
    path = None if trajectory is None else Path(trajectory)
    if path is not None and path.suffix not in (".extxyz", ".xyz", ".traj"):
        raise ValueError(f"trajectory must end in .extxyz, .xyz or .traj, received {path}")
    mover.get_forces()  # a structure that is refused must leave no files behind
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    own = path if path is not None and path.suffix == ".traj" else None
    engine = kind(target, logfile=None if log is None else str(log), trajectory=own)
    if path is not None and own is None:
        path.unlink(missing_ok=True)
        engine.attach(lambda: ase.io.write(path, _frame(mover), format="extxyz", append=True))
    with engine:
        converged = bool(engine.run(fmax=fmax, steps=steps))
    return RelaxResult(
        atoms=_frame(mover),
        converged=converged,
        steps=int(engine.nsteps),
        fmax=float(np.linalg.norm(target.get_forces(), axis=1).max()),
        energy=float(mover.get_potential_energy()),
        statistics=calculator.statistics,
    )


def _frame(atoms: ase.Atoms) -> ase.Atoms:
    """A copy that carries its results along, and no potential."""
    frame = atoms.copy()
    results = {
        name: value
        for name, value in atoms.calc.results.items()
        if name in ("energy", "forces", "stress")
    }
    frame.calc = SinglePointCalculator(frame, **results)
    return frame
