"""Molecular dynamics that can be killed, continued and trusted: `run_md`."""

import hashlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import ase
import numpy as np
from rich.console import Console

from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.md_run import MDRun, MDSettings
from equipoise.engines.md_summary import MDSummary, describe_model
from equipoise.engines.progress import LiveLine
from equipoise.engines.warm_start import WarmStart
from equipoise.engines.watchdog import Watchdog
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
    velocities: str = "thermal",
    seed: int = 0,
    log_every: int = 1,
    trajectory_every: int = 10,
    checkpoint_every: int = 100,
    warm_start: bool | WarmStart = True,
    cold_sample: int = 0,
    watchdog: Watchdog | None = None,
    unconverged: str = "error",
    resume: bool = True,
    progress: bool = True,
    console: Console | None = None,
) -> MDResult:
    """Simulate `steps` steps and write everything into `folder`.

    Integrators are ASE's: velocity Verlet ("nve"), and Langevin ("langevin", every atom
    coupled, the centre of mass free to diffuse). `atoms` itself is left unchanged.

    Killed at any moment, the run goes on from its last checkpoint when started again
    with the same arguments, and its trajectory is bit for bit the uninterrupted one (on
    a CPU with as many threads). `steps` counts from the very beginning: raise it to
    prolong a finished run. Ctrl-C finishes the step, saves and stops.

    **Arguments**

    - `ensemble`: "nve" or "langevin".
    - `atoms`, `potential`: where to start, and what moves it (or its path).
    - `steps`: at least 0; `timestep_fs`: fs, larger than 0.
    - `temperature_k`: K, of the initial velocities, and of the thermostat.
    - `friction_per_ps`: 1/ps, Langevin only.
    - `velocities`: "thermal" draws them (at rest as a whole), "keep" takes those of
      `atoms`.
    - `seed`: of the velocities and of the thermostat.
    - `log_every`, `trajectory_every`, `checkpoint_every`: steps, at least 1.
    - `warm_start`: as for `EquipoiseCalculator`. The number of passes depends on it,
      and the trajectory within the solver's tolerance.
    - `cold_sample`: on this many frames along the run also count the passes from
      nothing. Costs that many solves, and disturbs nothing.
    - `watchdog`: when to stop; see `Watchdog`. `unconverged`: "error" stops at a failed
      solve, "warn" and "accept" go on.
    - `resume`: continue what `folder` holds. False overwrites it.
    - `progress`, `console`: a live line, by default on stderr.

    **Writes**

    - `log.csv`: step,time_fs,potential_ev,kinetic_ev,total_ev,temperature_k,passes,
      adjoint_passes,seconds (of that step);
    - `trajectory.extxyz`: with energy, forces, momenta, passes and residual;
    - `cold_passes.csv`: step,passes,adjoint_passes, if asked for;
    - `checkpoint.npz`, and at the end `summary.json` (see `MDSummary`).

    **Raises**

    `ValueError` for bad arguments, or a folder with another run in it;
    `SimulationStopped` by a watchdog or a failed solve, `SimulationInterrupted` (a
    `KeyboardInterrupt`) by a signal, both after saving; `DiskFullError`. Other errors of
    the potential pass through, after saving.
    """
    _check(steps, timestep_fs, temperature_k, friction_per_ps, cold_sample)
    for name, value in (
        ("log_every", log_every),
        ("trajectory_every", trajectory_every),
        ("checkpoint_every", checkpoint_every),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1 step, received {value}")
    for name, value, allowed in (
        ("ensemble", ensemble, ("nve", "langevin")),
        ("velocities", velocities, ("thermal", "keep")),
    ):
        if value not in allowed:
            raise ValueError(f'{name} must be "{allowed[0]}" or "{allowed[1]}", received {value!r}')
    calculator = EquipoiseCalculator(potential, warm_start=warm_start, unconverged=unconverged)
    memory = calculator.warm_start
    model = describe_model(calculator.potential)
    settings = MDSettings(
        ensemble=ensemble,
        timestep_fs=float(timestep_fs),
        temperature_k=float(temperature_k),
        friction_per_ps=float(friction_per_ps),
        velocities=velocities,
        seed=int(seed),
        log_every=int(log_every),
        trajectory_every=int(trajectory_every),
        warm_start="none" if memory is None else repr(memory.predictor),
        unconverged=unconverged,
        model=model["fingerprint"],
        structure=_structure(atoms, keep=velocities == "keep"),
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
    finally:
        run.close()
    return MDResult(atoms=run.atoms, folder=run.folder, summary=summary)


def _check(
    steps: int,
    timestep_fs: float,
    temperature_k: float,
    friction_per_ps: float,
    cold_sample: int,
) -> None:
    for name, value in (
        ("steps", steps),
        ("temperature_k", temperature_k),
        ("cold_sample", cold_sample),
    ):
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, received {value}")
    for name, value in (
        ("timestep_fs", timestep_fs),
        ("friction_per_ps", friction_per_ps),
    ):
        if not value > 0:
            raise ValueError(f"{name} must be larger than 0, received {value}")


def _spread(steps: int, samples: int) -> frozenset[int]:
    """`samples` steps evenly over 1..steps."""
    if samples == 0 or steps == 0:
        return frozenset()
    places = np.linspace(steps / samples, steps, samples).round().astype(int)
    return frozenset(places.tolist())


def _structure(atoms: ase.Atoms, *, keep: bool) -> str:
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
    if keep:
        digest.update(np.ascontiguousarray(atoms.get_momenta()).tobytes())
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
