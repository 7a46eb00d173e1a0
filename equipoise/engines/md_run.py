"""One simulation: its moving parts, its files, and how it is saved and taken up again."""

import dataclasses
import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.md.md import MolecularDynamics

from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.ensembles import FEELS, Bath, conserved_energy, integrator, memory_of, recall
from equipoise.engines.evaluator import NonFiniteError
from equipoise.engines.md_records import MDRecords
from equipoise.engines.md_summary import MDSummary, ns_per_day
from equipoise.engines.progress import LiveLine
from equipoise.engines.run_files import locked, read_arrays, write_arrays
from equipoise.engines.velocities import (
    degrees_of_all,
    degrees_of_freedom,
    temperature,
    thermal_momenta,
)
from equipoise.engines.watchdog import (
    SimulationInterrupted,
    SimulationStopped,
    Watchdog,
    bonds_of,
)
from equipoise.potentials import UnconvergedError


@dataclass(frozen=True)
class MDSettings:
    """What must not change when a run is continued."""

    ensemble: str
    timestep_fs: float
    temperature_k: float
    friction_per_ps: float
    thermostat_fs: float
    pressure_bar: float
    barostat_fs: float
    velocities: str
    seed: int
    log_every: int
    trajectory_every: int
    warm_start: str
    passes: str
    unconverged: str
    model: str  # fingerprint
    structure: str  # fingerprint of the atoms handed in
    masses: str  # likewise
    constraints: str

    @property
    def bath(self) -> Bath:
        return Bath(**{name: getattr(self, name) for name in Bath._fields})


# Beside every so many steps: a step of fifty thousand atoms takes minutes.
CHECKPOINT_SECONDS = 60.0
FINGERPRINTS = ("model", "structure", "masses")  # say nothing to a reader


class MDRun:
    """The moving parts: atoms, integrator, files and running totals."""

    def __init__(
        self,
        atoms: ase.Atoms,
        calculator: EquipoiseCalculator,
        settings: MDSettings,
        *,
        folder: Path,
        watchdog: Watchdog,
        cold_steps: frozenset[int],
        model: dict[str, Any],
    ) -> None:
        self.atoms = atoms.copy()
        self.atoms.calc = calculator
        self.calculator = calculator
        self.settings = settings
        self.folder = folder
        self.watchdog = watchdog
        self.cold_steps = cold_steps
        self.model = model
        self.rng = np.random.default_rng(settings.seed)
        self.step = 0
        self.degrees = 0
        self.restarts = 0
        self.resumed = False
        self.passes = self.adjoint_passes = 0
        self.seconds = 0.0
        self.records: MDRecords | None = None
        self.bonds: np.ndarray | None = None  # of the structure handed in
        self._lock = ExitStack()
        self._saved = time.perf_counter()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.npz"

    def begin(self, *, resume: bool) -> None:
        """Open the folder: a new run, or the one that it holds."""
        if resume and self.checkpoint.exists():
            self._lock.enter_context(locked(self.folder))
            self._restore(read_arrays(self.checkpoint))
        else:
            if self.calculator.warm_start is not None:
                self.calculator.warm_start.reset()  # a start does not depend on the past
            # Before anything else looks at the atoms: the calculator says best what is
            # wrong with them.
            began = time.perf_counter()
            self.atoms.get_forces()
            self.bonds = bonds_of(self.atoms)
            seconds = time.perf_counter() - began
            # Langevin dynamics push the structure about as a whole.
            at_rest = self.settings.ensemble != "langevin"
            if self.settings.velocities == "thermal":
                kelvin = self.settings.temperature_k
                momenta = thermal_momenta(self.atoms, kelvin, self.rng, at_rest=at_rest)
                self.atoms.set_momenta(momenta, apply_constraint=False)
            count = degrees_of_freedom if at_rest else degrees_of_all
            self.degrees = count(self.atoms)
            self.integrator = self._integrator()
            complaint = self._complaint()
            if complaint is not None:
                raise ValueError(
                    f"the starting structure must be within the watchdog's bounds, but "
                    f"{complaint}; correct the structure, or raise the bound"
                )
            # Only now, with a start that works, may a folder appear, or an older run in it
            # be overwritten.
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(locked(self.folder))
            self.checkpoint.unlink(missing_ok=True)
            self.records = MDRecords(self.folder, lengths=None, cold=bool(self.cold_steps))
            self._record(seconds)
            self.save()

    def advance(self, steps: int, checkpoint_every: int, *, line: LiveLine, stop: dict) -> None:
        first, began = self.step, time.perf_counter()
        self.restarts += self.resumed and self.step < steps
        while self.step < steps:
            good = self._snapshot()
            started = time.perf_counter()
            try:
                self.integrator.step()
                seconds = time.perf_counter() - started
                complaint = self._complaint()
            except Exception as error:
                reason = _first_line(error)
                self._save_good(good)
                known = (UnconvergedError, NonFiniteError, ValueError)
                if not isinstance(error, known):
                    raise
                raise self._stopped(reason) from error
            if complaint is not None:
                self._save_good(good)
                raise self._stopped(complaint)
            self.step += 1
            self.seconds += seconds
            self.passes += self.calculator.passes
            self.adjoint_passes += self.calculator.adjoint_passes
            self._record(seconds)
            long_ago = time.perf_counter() - self._saved > CHECKPOINT_SECONDS
            if self.step % checkpoint_every == 0 or self.step == steps or long_ago:
                self.save()
            if line.due or self.step == steps:
                self._show(line, (time.perf_counter() - began) / (self.step - first))
            if stop and self.step < steps:
                self.save()
                raise SimulationInterrupted(
                    f"stopped by {stop['signal']} after step {self.step} of {steps}; "
                    f"everything is saved in {self.folder}: run the same again to "
                    f"continue"
                )

    def save(self, *, memory: bool = True) -> None:
        """Write the checkpoint: everything that the next step depends on."""
        arrays = {
            "settings": np.array(json.dumps(dataclasses.asdict(self.settings))),
            "rng": np.array(json.dumps(self.rng.bit_generator.state)),
            "positions": self.atoms.positions,
            "momenta": self.atoms.get_momenta(),
            "cell": self.atoms.cell.array,
            "step": np.array(self.step),
            "degrees": np.array(self.degrees),
            "restarts": np.array(self.restarts),
            "passes": np.array(self.passes),
            "adjoint_passes": np.array(self.adjoint_passes),
            "seconds": np.array(self.seconds),
        }
        for name, length in self.records.sync().items():
            arrays[f"bytes.{name}"] = np.array(length)
        for name, array in memory_of(self.integrator).items():
            arrays[f"integrator.{name}"] = array
        if memory:
            for name, array in self.calculator.state().items():
                arrays[f"calculator.{name}"] = array
        write_arrays(self.checkpoint, arrays)
        self._saved = time.perf_counter()

    def close(self) -> None:
        if self.records is not None:
            self.records.close()
        self._lock.close()

    def summary(self) -> MDSummary:
        totals = self.records.totals
        line = None if self.settings.ensemble == "langevin" else totals.drift(len(self.atoms))
        cold = self.records.cold_table()
        steps = max(self.step, 1)
        return MDSummary(
            ensemble=self.settings.ensemble,
            steps=self.step,
            timestep_fs=self.settings.timestep_fs,
            time_ps=self.step * self.settings.timestep_fs / 1000,
            temperature_k=self.settings.temperature_k,
            mean_temperature_k=totals.mean_temperature_k,
            drift_mev_per_atom_per_ps=None if line is None else line.slope,
            drift_standard_error_mev_per_atom_per_ps=None if line is None else line.standard_error,
            fluctuation_mev_per_atom=None if line is None else line.scatter,
            mean_passes=self.passes / steps,
            mean_adjoint_passes=self.adjoint_passes / steps,
            mean_cold_passes=float(cold[:, 1].mean()) if len(cold) else None,
            mean_cold_adjoint_passes=float(cold[:, 2].mean()) if len(cold) else None,
            cold_samples=len(cold),
            seconds_per_step=self.seconds / steps,
            ns_per_day=ns_per_day(self.settings.timestep_fs, self.seconds / steps),
            atoms=len(self.atoms),
            formula=self.atoms.get_chemical_formula(),
            warm_start=self.settings.warm_start,
            restarts=self.restarts,
            model=self.model,
        )

    def _integrator(self) -> MolecularDynamics:
        return integrator(
            self.settings.ensemble,
            self.atoms,
            timestep_fs=self.settings.timestep_fs,
            bath=self.settings.bath,
            degrees=self.degrees,
            rng=self.rng,
        )

    def _complaint(self) -> str | None:
        return self.watchdog.complaint(
            self.atoms,
            self.calculator.evaluator.graph,
            energy=self.atoms.get_potential_energy(),
            temperature_k=self._temperature(),
            target_k=self.settings.temperature_k,
            bonds=self.bonds,
        )

    def _temperature(self) -> float:
        return temperature(self.atoms.get_kinetic_energy(), self.degrees)

    def _record(self, seconds: float) -> None:
        time_fs = self.step * self.settings.timestep_fs
        if self.step % self.settings.log_every == 0:
            self.records.log(
                self.step,
                time_fs,
                self.atoms,
                temperature_k=self._temperature(),
                calculator=self.calculator,
                seconds=seconds,
                conserved=conserved_energy(self.integrator),
            )
        if self.step % self.settings.trajectory_every == 0:
            self.records.frame(self.step, time_fs, self.atoms, self.calculator)
        if self.step in self.cold_steps:
            self.records.cold(self.step, *self.calculator.evaluator.cold_passes())

    def _show(self, line: LiveLine, seconds_per_step: float) -> None:
        drift = None
        if self.settings.ensemble != "langevin":
            drift = self.records.totals.drift(len(self.atoms))
        line.show(
            self.step,
            ns_per_day=ns_per_day(self.settings.timestep_fs, seconds_per_step),
            passes_per_step=(self.passes + self.adjoint_passes) / self.step,
            temperature_k=self._temperature(),
            drift=drift,
        )

    def _snapshot(self) -> dict[str, Any]:
        return {
            "positions": self.atoms.get_positions(),
            "momenta": self.atoms.get_momenta(),
            "cell": self.atoms.cell.array.copy(),
            "integrator": memory_of(self.integrator),
            "rng": self.rng.bit_generator.state,
        }

    def _save_good(self, good: Mapping[str, Any]) -> None:
        """Go back to `good`, the state after the last healthy step, and save it."""
        self.atoms.set_positions(good["positions"], apply_constraint=False)
        self.atoms.set_momenta(good["momenta"], apply_constraint=False)
        self.atoms.set_cell(good["cell"], scale_atoms=False)
        recall(self.integrator, good["integrator"])
        self.rng.bit_generator.state = good["rng"]
        # The calculator is elsewhere already: forces are made again on restart.
        self.save(memory=False)
        time_fs = self.step * self.settings.timestep_fs
        self.records.last_good(self.step, time_fs, self.atoms)

    def _stopped(self, reason: str) -> SimulationStopped:
        return SimulationStopped(
            f"the simulation stopped after step {self.step}: {reason}. The last good "
            f"state is saved in {self.folder / 'last_good.extxyz'} and in the "
            f"checkpoint. Look at the end of the trajectory; usual causes are a "
            f"timestep too long (now {self.settings.timestep_fs} fs), a start far from "
            f"equilibrium (relax it first), and structures unlike the training data",
            step=self.step,
            reason=reason,
        )

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        needed = ("settings", "rng", "positions", "momenta", "cell", "step", "bytes.log.csv")
        missing = [name for name in needed if name not in arrays]
        if missing:
            raise ValueError(
                f"{self.checkpoint} must be the checkpoint of a simulation, received "
                f"one without {', '.join(missing)}; use another folder"
            )
        self._compare(json.loads(str(arrays["settings"])))
        self.bonds = bonds_of(self.atoms)
        lengths = {
            name.removeprefix("bytes."): int(value)
            for name, value in arrays.items()
            if name.startswith("bytes.")
        }
        cold = bool(self.cold_steps)
        self.records = MDRecords(self.folder, lengths=lengths, cold=cold)
        self.atoms.set_positions(arrays["positions"], apply_constraint=False)
        self.atoms.set_momenta(arrays["momenta"], apply_constraint=False)
        self.atoms.set_cell(arrays["cell"], scale_atoms=False)
        self.rng.bit_generator.state = json.loads(str(arrays["rng"]))
        for name in ("step", "degrees", "restarts", "passes", "adjoint_passes"):
            setattr(self, name, int(arrays[name]))
        self.seconds = float(arrays["seconds"])
        state = {
            name.removeprefix("calculator."): value
            for name, value in arrays.items()
            if name.startswith("calculator.")
        }
        if state:
            self.calculator.restore(self.atoms, state)
        self.integrator = self._integrator()
        recall(
            self.integrator,
            {
                name.removeprefix("integrator."): value
                for name, value in arrays.items()
                if name.startswith("integrator.")
            },
        )
        self.resumed = True

    def _compare(self, before: Mapping[str, Any]) -> None:
        now = dataclasses.asdict(self.settings)
        feels = ("temperature_k", *FEELS[self.settings.ensemble])
        unfelt = set(Bath._fields) - set(feels)
        changed = [
            f"{name} changed"
            if name in FINGERPRINTS
            else f"{name} was {before.get(name)!r} and is now {value!r}"
            for name, value in now.items()
            if before.get(name) != value and name not in unfelt
        ]
        if changed:
            raise ValueError(
                f"{self.folder} holds a run with other settings: {'; '.join(changed)}. "
                f"Use another folder, or start again with resume=False, which "
                f"overwrites it"
            )


def _first_line(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return text.splitlines()[0] if text else type(error).__name__
