"""Molecular dynamics that can be killed, continued and trusted: `run_md`."""

import hashlib
import math
import operator
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.io import jsonio
from rich.console import Console

from equipoise.deq import Joint
from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.ensembles import Bath, check_ensemble
from equipoise.engines.md_run import MDRun, MDSettings
from equipoise.engines.md_summary import MDSummary, describe_model
from equipoise.engines.passes import longest_step_fs
from equipoise.engines.progress import LiveLine
from equipoise.engines.warm_start import WarmStart
from equipoise.engines.watchdog import SimulationInterrupted, SimulationStopped, Watchdog
from equipoise.potentials import Potential


@dataclass(frozen=True)
class MDResult:
    """A finished simulation."""

    atoms: ase.Atoms  # as they are at the end, momenta included
    folder: Path
    summary: MDSummary


def run_md(
    atoms: ase.Atoms,
    potential: Potential | str | PathLike[str],
    *,
    steps: int,
    folder: str | PathLike[str],
    ensemble: str = "nve",
    timestep_fs: float = 0.5,
    temperature_k: float = 300.0,
    friction_per_ps: float = 10.0,
    thermostat_fs: float = 100.0,
    pressure_bar: float = 1.0,
    barostat_fs: float = 1000.0,
    velocities: str = "thermal",
    seed: int = 0,
    log_every: int = 1,
    trajectory_every: int = 10,
    checkpoint_every: int = 100,
    warm_start: bool | WarmStart = True,
    joint: Joint | str | None = "auto",
    history_free: int | None = None,
    cold_sample: int = 0,
    watchdog: Watchdog | None = None,
    unconverged: str = "error",
    allow_direct: bool = False,
    compile: bool = False,
    resume: bool = True,
    progress: bool = True,
    console: Console | None = None,
) -> MDResult:
    """Simulate `steps` steps and write everything into `folder`.

    Integrators are ASE's: velocity Verlet ("nve"); Langevin ("langevin", every atom
    coupled, the centre of mass free to diffuse); velocity rescaling by Bussi, Donadio and
    Parrinello ("bussi"); Nosé-Hoover chains ("nose-hoover"); and constant pressure by
    Martyna, Tobias and Klein ("npt", the cell keeps its shape). `atoms` itself is left
    unchanged.

    Killed at any moment, the run goes on from its last checkpoint when started again
    with the same arguments, and its trajectory is bit for bit the uninterrupted one (on
    a CPU with as many threads). `steps` counts from the very beginning: raise it to
    prolong a finished run. Ctrl-C finishes the step, saves and stops.

    **Arguments**

    - `ensemble`: one of `equipoise.engines.ensembles.ENSEMBLES`. Single small molecules
      do not explore everything under "nose-hoover"; "langevin" and "bussi" do.
    - `atoms`, `potential`: where to start, and what moves it: a `Potential`, or a model
      file, run folder or name as for `EquipoiseCalculator`.
    - `steps`: an integer, at least 0; `timestep_fs`: fs, larger than 0.
    - `temperature_k`: K, at least 0; of the initial velocities, and of the thermostat.
    - `friction_per_ps`: 1/ps, larger than 0; Langevin only. `thermostat_fs`: fs, time
      constant of the other thermostats.
    - `pressure_bar`: bar, may be negative; `barostat_fs`: fs, its time constant; "npt" only.
    - `velocities`: "thermal" draws them (at rest as a whole, but for "langevin"), "keep"
      takes those of `atoms`.
    - `seed`: of the velocities and of the thermostat.
    - `log_every`, `trajectory_every`, `checkpoint_every`: steps, at least 1; there is a
      checkpoint every minute, too.
    - `joint`, `warm_start`, `history_free`: as for `EquipoiseCalculator`. How many passes a
      step takes depends on them, and what these leave of the residual. "auto" means None
      for steps too long for the lightest atom, 0.5 fs with hydrogen.
    - `cold_sample`: on this many frames along the run also count the passes from
      nothing. Costs that many solves, and disturbs nothing.
    - `watchdog`: when to stop; see `Watchdog`. `unconverged`: "error" stops at a failed
      solve, "warn" and "accept" go on.
    - `allow_direct`: as for `EquipoiseCalculator`. Watch the drift of the total energy.
    - `compile`: as for `EquipoiseCalculator`; pays for thousands of steps.
    - `resume`: continue what `folder` holds. False overwrites it.
    - `progress`, `console`: a live line, by default on stderr.

    **Writes**

    - `log.csv`: step,time_fs,potential_ev,kinetic_ev,total_ev,temperature_k,passes,
      adjoint_passes,residual,seconds (of that step),conserved_ev (the total energy, with
      that of thermostat and barostat; nan for Langevin, which conserves none),
      volume_angstrom3,pressure_bar (nan for what is not periodic in three directions);
    - `trajectory.extxyz`: with energy, forces, momenta, passes and residual;
    - `cold_passes.csv`: step,passes,adjoint_passes, if asked for;
    - `checkpoint.npz`, and when it ends or is stopped `summary.json` (see `MDSummary`).

    **Raises**

    `ValueError` for bad arguments, or a folder with another run in it (another start,
    other masses or constraints, another model, other settings), a potential with direct
    forces, or one in which an atom feels every other one however far;
    `SimulationStopped` by a watchdog or a failed solve, `SimulationInterrupted` (a
    `KeyboardInterrupt`) by a signal, both after saving; `DiskFullError`. Other errors of
    the potential pass through, after saving.
    """
    steps = _integer("steps", steps, least=0)
    cold_sample = _integer("cold_sample", cold_sample, least=0)
    seed = _integer("seed", seed, least=0)
    log_every = _integer("log_every", log_every, least=1)
    trajectory_every = _integer("trajectory_every", trajectory_every, least=1)
    checkpoint_every = _integer("checkpoint_every", checkpoint_every, least=1)
    timestep_fs = _finite("timestep_fs", timestep_fs, "fs; 0.5 suits molecules with hydrogen")
    bath = Bath(
        temperature_k=_finite("temperature_k", temperature_k, "K", zero=True),
        friction_per_ps=_finite("friction_per_ps", friction_per_ps, "1/ps; 10 is usual"),
        thermostat_fs=_finite("thermostat_fs", thermostat_fs, "fs; 100 is usual"),
        pressure_bar=float(pressure_bar),
        barostat_fs=_finite("barostat_fs", barostat_fs, "fs; 1000 is usual"),
    )
    if not math.isfinite(bath.pressure_bar):
        raise ValueError(f"pressure_bar must be finite, received {pressure_bar}; 1 is usual")
    check_ensemble(ensemble, atoms, bath)
    if velocities not in ("thermal", "keep"):
        raise ValueError(f'velocities must be "thermal" or "keep", received {velocities!r}')
    # With rounding to spare: masses of the lightest atom may come from a file.
    if joint == "auto" and timestep_fs > 1.01 * longest_step_fs(atoms.get_masses()):
        joint = None
    calculator = EquipoiseCalculator(
        potential,
        warm_start=warm_start,
        joint=joint,
        history_free=history_free,
        unconverged=unconverged,
        allow_direct=allow_direct,
        compile=compile,
    )
    if not calculator.potential.local:
        raise ValueError(
            "molecular dynamics needs a potential in which atoms feel their neighbours only, received "
            f"injection.norm={calculator.potential.config.injection.norm!r}, through which every atom feels every "
            "other one however far; train with potential.injection.norm=per_atom"
        )
    calculator.choose_passes(atoms)
    memory = calculator.warm_start
    model = describe_model(calculator.potential)
    settings = MDSettings(
        ensemble=ensemble,
        timestep_fs=timestep_fs,
        **bath._asdict(),
        velocities=velocities,
        seed=seed,
        log_every=log_every,
        trajectory_every=trajectory_every,
        warm_start="none" if memory is None else repr(memory.predictor),
        passes=_passes(calculator.evaluator.joint, history_free),
        unconverged=unconverged,
        model=model["fingerprint"],
        structure=_structure(atoms, keep=velocities == "keep"),
        masses=_digest(atoms.get_masses().tobytes()),
        constraints=_constraints(atoms),
    )
    run = MDRun(
        atoms,
        calculator,
        settings,
        folder=Path(folder),
        watchdog=Watchdog() if watchdog is None else watchdog,
        cold_steps=_spread(steps, cold_sample),
        model=model,
    )
    try:
        run.begin(resume=resume)
        console = Console(stderr=True) if console is None else console
        if progress and run.step:
            console.print(f"continuing {run.folder} from step {run.step}")
        with (
            LiveLine(steps, first=run.step, enabled=progress, console=console) as line,
            _signals() as stop,
        ):
            run.advance(steps, checkpoint_every, line=line, stop=stop)
        summary = run.summary()
        summary.write(run.folder / "summary.json")
    except (SimulationStopped, SimulationInterrupted):
        run.summary().write(run.folder / "summary.json")
        raise
    finally:
        run.close()
    return MDResult(atoms=run.atoms, folder=run.folder, summary=summary)


def _passes(joint: Joint | None, history_free: int | None) -> str:
    """How it is decided when a step has had enough passes."""
    if history_free is not None:
        return f"{history_free} from nothing"
    return "to the tolerance" if joint is None else repr(joint)


def _integer(name: str, value: int, *, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(
            f"{name} must be an integer, received {value!r}; round it, or give int({name})"
        ) from error
    if number < least:
        raise ValueError(f"{name} must be at least {least}, received {value}")
    return number


def _finite(name: str, value: float, hint: str, *, zero: bool = False) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        least = "at least 0" if zero else "larger than 0"
        raise ValueError(f"{name} must be {least} and finite, received {value}; it is in {hint}")
    return number


def _spread(steps: int, samples: int) -> frozenset[int]:
    """`samples` steps evenly over 1..steps."""
    if samples == 0 or steps == 0:
        return frozenset()
    places = np.linspace(steps / samples, steps, samples).round().astype(int)
    return frozenset(places.tolist())


def _structure(atoms: ase.Atoms, *, keep: bool) -> str:
    arrays = [atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc]
    if keep:
        arrays.append(atoms.get_momenta())
    return _digest(*(np.ascontiguousarray(array).tobytes() for array in arrays))


def _constraints(atoms: ase.Atoms) -> str:
    """Kind and fingerprint of each constraint: "FixAtoms 1f0c..., Hookean 77ab..."."""
    return ", ".join(
        f"{type(each).__name__} {_digest(_settings(each).encode())}" for each in atoms.constraints
    )


def _settings(constraint: Any) -> str:
    # A constraint of the user's own need not know how to describe itself.
    describe = getattr(constraint, "todict", None)
    try:
        return jsonio.encode(constraint.__dict__ if describe is None else describe())
    except (NotImplementedError, TypeError):
        return type(constraint).__name__


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


@contextmanager
def _signals() -> Iterator[dict[str, str]]:
    """A dict that names the signal once one came; a second one interrupts at once.

    The step in progress has moved the positions but not yet the momenta, so the first
    signal must not break into it.
    """
    stop: dict[str, str] = {}

    def note(number: int, frame: object) -> None:
        if stop:
            raise KeyboardInterrupt
        stop["signal"] = signal.Signals(number).name

    # Python delivers signals to the main thread only, and lets no other set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
