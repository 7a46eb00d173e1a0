"""Units of work: what a worker gets, does, and gives back. No files, no state, no memory of the last one."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
from ase import units
from ase.md.langevin import Langevin as Integrator

from equipoise.data.label.frames import Label, as_text
from equipoise.data.label.method import Method, MissingPackage
from equipoise.data.label.request import Langevin
from equipoise.data.label.watchdog import broken, hot


@dataclass(frozen=True)
class Outcome:
    """What became of a unit of work.

    Attributes:
      text: the labelled frames, as extended XYZ; those before a failure are kept.
      frames: how many.
      seconds: of the worker.
      failure: why it ended early; None if it did not.
      step: of the trajectory, the last one reached; None for a single structure.
      state: positions, momenta and random numbers at that step, to go on from; None if there is nothing to go on from.
    """

    text: str = ""
    frames: int = 0
    seconds: float = 0.0
    failure: str | None = None
    step: int | None = None
    state: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SinglePoint:
    """Label one structure as it is."""

    method: Method
    atoms: ase.Atoms
    structure: int

    def run(self) -> Outcome:
        began = time.perf_counter()
        atoms = self.atoms.copy()
        try:
            atoms.calc = self.method.build(atoms)
            overlap = broken(atoms, math.inf)  # what no reader of the labels would take
            if overlap is not None:
                return Outcome(failure=overlap, seconds=time.perf_counter() - began)
            info = _provenance(self.method) | {"structure": self.structure}
            text = as_text(atoms, Label.of(atoms), info)
        except MissingPackage:
            raise
        except Exception as error:  # every calculator fails in its own way
            failure = self.method.unknown_element(atoms) or reason(error)
            return Outcome(failure=failure, seconds=time.perf_counter() - began)
        return Outcome(text=text, frames=1, seconds=time.perf_counter() - began)


@dataclass(frozen=True)
class Stretch:
    """Take a trajectory from one step to another.

    Two neighbouring stretches give the same frames, bit for bit, wherever and whenever they are run: everything that is handed
    on is in ``state``, and the calculator is new in each.
    """

    method: Method
    atoms: ase.Atoms
    structure: int
    langevin: Langevin
    temperature_k: float
    trajectory: int
    seed: int
    last: int
    state: Mapping[str, Any] | None = None

    def run(self) -> Outcome:
        began = time.perf_counter()
        atoms = self.atoms.copy()
        rng = np.random.default_rng([self.seed, self.trajectory])
        texts: list[str] = []
        step, failure = self._restore(atoms, rng), None
        try:
            atoms.calc = self.method.build(atoms)
            failure = _unfit(atoms, self.langevin.max_gap) if step == 0 else None
            integrator = Integrator(
                atoms,
                self.langevin.timestep_fs * units.fs,
                temperature_K=self.temperature_k,
                friction=self.langevin.friction_per_ps / (1000 * units.fs),
                fixcm=False,  # ASE's correction does not sample the right distribution
                rng=rng,
            )
            while step < self.last and failure is None:
                integrator.step()
                step += 1
                failure = hot(atoms, self._bound_k())
                after = step - self.langevin.equilibration
                if failure is None and after > 0 and after % self.langevin.stride == 0:
                    failure = broken(atoms, self.langevin.max_gap)
                    if failure is None:
                        texts.append(self._frame(atoms, step, after // self.langevin.stride))
        except MissingPackage:
            raise
        except Exception as error:  # every calculator fails in its own way
            failure = self.method.unknown_element(atoms) or reason(error)
        return Outcome(
            text="".join(texts),
            frames=len(texts),
            seconds=time.perf_counter() - began,
            failure=failure,
            step=step,
            state=None if failure else _state(atoms, rng, step),
        )

    def _restore(self, atoms: ase.Atoms, rng: np.random.Generator) -> int:
        if self.state is None:
            # p ~ N(0, m kB T): the canonical distribution, the drift of the whole included, as the thermostat has it.
            width = np.sqrt(atoms.get_masses() * units.kB * self.temperature_k)
            atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * width[:, None])
            return 0
        atoms.set_positions(np.array(self.state["positions"]), apply_constraint=False)
        atoms.set_momenta(np.array(self.state["momenta"]), apply_constraint=False)
        rng.bit_generator.state = self.state["rng"]
        return int(self.state["step"])

    def _bound_k(self) -> float:
        bound = self.langevin.max_temperature_k
        return max(10 * self.temperature_k, 3000.0) if bound is None else bound

    def _frame(self, atoms: ase.Atoms, step: int, frame: int) -> str:
        info = _provenance(self.method) | {
            "structure": self.structure,
            "trajectory": self.trajectory,
            "frame": frame,
            "temperature_k": self.temperature_k,
            "time_fs": step * self.langevin.timestep_fs,
        }
        return as_text(atoms, Label.of(atoms), info)


Task = SinglePoint | Stretch


def carry_out(task: Task) -> Outcome:
    """Run a task: the one function that processes and clusters are asked to call.

    Raises:
      MissingPackage: if this process lacks what the calculator needs, which no other structure would change.
    """
    return task.run()


def reason(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _unfit(atoms: ase.Atoms, max_gap: float) -> str | None:
    """Why no dynamics can start here. Positions that bad forces made may hang a calculator, so these come first."""
    complaint = broken(atoms, max_gap)
    if complaint is None:
        Label.of(atoms)
    return complaint


def _state(atoms: ase.Atoms, rng: np.random.Generator, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "positions": atoms.positions.tolist(),
        "momenta": atoms.get_momenta().tolist(),
        "rng": rng.bit_generator.state,
    }


def _provenance(method: Method) -> dict[str, Any]:
    # "theory" is what `one_theory` looks at: labels of two methods are refused where they would be learned together.
    return {"theory": method.title, "calculator_version": method.version}
