"""What was asked for: a method, and either the structures themselves or Langevin dynamics started from them."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ase
import numpy as np

from equipoise.data.label.method import Method, plain


@dataclass(frozen=True, kw_only=True)
class Langevin:
    """Langevin dynamics from every structure at every temperature, and which of its steps are labelled.

    Steps ``equilibration + stride``, ``equilibration + 2 stride``, ... become frames; the equilibration is thrown away. Initial
    momenta are drawn from the Maxwell-Boltzmann distribution of the temperature.

    Wrong tool for rare events: nothing is found that does not happen within a few picoseconds. Start from structures on both
    sides of a barrier instead, or use a higher temperature.

    Attributes:
      temperatures_k: K.
      frames: per trajectory. The only setting that may grow when a request is taken up again.
      stride: steps between two frames. Frames fewer than some 20 fs apart are nearly copies of each other.
      timestep_fs: fs; 0.5 with hydrogen.
      friction_per_ps: 1/ps.
      equilibration: steps.
      trajectories: per structure and temperature, with random numbers of their own.
      chunk: frames per unit of work: this much of a trajectory is lost when the power fails. A new calculator is made for each.
      max_temperature_k: a trajectory that gets hotter ends. None: ten times its temperature, at least 3000 K.
      max_gap: Å; a trajectory ends when the nearest neighbour of any atom is farther away. inf for gases.
    """

    temperatures_k: tuple[float, ...]
    frames: int
    stride: int = 50
    timestep_fs: float = 0.5
    friction_per_ps: float = 10.0
    equilibration: int = 1000
    trajectories: int = 1
    chunk: int = 10
    max_temperature_k: float | None = None
    max_gap: float = 5.0

    def __post_init__(self):
        if not self.temperatures_k:
            raise ValueError("Langevin dynamics need at least one temperature, received none")
        for name in ("frames", "stride", "trajectories", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, received {getattr(self, name)}")
        if self.equilibration < 0:
            raise ValueError(
                f"equilibration must be at least 0 steps, received {self.equilibration}"
            )
        positive = [("timestep_fs", self.timestep_fs), ("friction_per_ps", self.friction_per_ps)]
        positive += [("temperatures_k", temperature) for temperature in self.temperatures_k]
        for name, value in positive:
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be finite and larger than 0, received {value}")
        for name in ("max_temperature_k", "max_gap"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be larger than 0, received {value}")
        if self.timestep_fs * self.friction_per_ps > 500:
            raise ValueError(
                f"a step must be short beside the time of friction, but {self.timestep_fs} fs x "
                f"{self.friction_per_ps} /ps is {self.timestep_fs * self.friction_per_ps / 1000:g}; "
                f"keep it below 0.5"
            )

    @property
    def steps(self) -> int:
        """Of one trajectory."""
        return self.equilibration + self.frames * self.stride

    def end_of_chunk(self, step: int) -> int:
        """Where the unit of work that begins at ``step`` ends."""
        size = self.chunk * self.stride
        return min((step // size + 1) * size, self.steps)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that the labels depend on, besides the structures.

    Attributes:
      method: the calculator.
      langevin: None labels the structures as they are.
      seed: of momenta and thermostat; every trajectory draws from a generator seeded by (seed, number of the trajectory).
    """

    method: Method
    langevin: Langevin | None = None
    seed: int = 0

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, received {self.seed}")

    def units(self, structures: int) -> int:
        """Structures to compute, or trajectories to run."""
        if self.langevin is None:
            return structures
        return structures * len(self.langevin.temperatures_k) * self.langevin.trajectories

    def place(self, unit: int) -> tuple[int, float | None]:
        """The number of the structure and the temperature (K) that a unit belongs to."""
        if self.langevin is None:
            return unit, None
        rest = unit // self.langevin.trajectories
        structure, which = divmod(rest, len(self.langevin.temperatures_k))
        return structure, self.langevin.temperatures_k[which]

    def as_record(self, structures: Sequence[ase.Atoms]) -> dict[str, Any]:
        """In JSON's terms, with the version of the calculator and a fingerprint of the structures."""
        langevin = None if self.langevin is None else asdict(self.langevin)
        return plain(
            {
                "calculator": self.method.name,
                "keywords": self.method.keywords,
                "calculator_version": self.method.version,
                "seed": self.seed,
                "langevin": langevin,
                "structures": len(structures),
                "structures_sha256": fingerprint(structures),
            }
        )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What keeps a request from being the continuation of another, in words; more frames do not."""
    kinds = [record.get("langevin") for record in (before, now)]
    if (kinds[0] is None) != (kinds[1] is None):
        said = ["single structures" if kind is None else "dynamics" for kind in kinds]
        return [f"it was about {said[0]} and is now about {said[1]}"]
    found = []
    old, new = _flat(before), _flat(now)
    for key in dict.fromkeys([*old, *new]):
        was, is_ = old.get(key), new.get(key)
        if was == is_ or (key == "langevin.frames" and is_ > was):
            continue
        if key == "structures_sha256":
            if old.get("structures") == new.get("structures"):
                found.append("the structures changed")
        else:
            found.append(
                f"{key.removeprefix('langevin.')} was {_said(was)} and is now {_said(is_)}"
            )
    return found


def fingerprint(structures: Sequence[ase.Atoms]) -> str:
    """SHA-256 over everything in the structures that labels depend on."""
    digest = hashlib.sha256()
    for atoms in structures:
        for array in (
            atoms.numbers,
            atoms.positions,
            atoms.cell.array,
            atoms.pbc,
            atoms.get_initial_charges(),
            atoms.get_initial_magnetic_moments(),
            atoms.get_masses(),
        ):
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        digest.update(repr(atoms.info.get("charge")).encode())
        digest.update(_constraints(atoms).encode())
    return digest.hexdigest()


def _constraints(atoms: ase.Atoms) -> str:
    return json.dumps([plain(constraint.todict()) for constraint in atoms.constraints])


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    langevin = record.get("langevin") or {}
    flat = {key: value for key, value in record.items() if key != "langevin"}
    return flat | {f"langevin.{key}": value for key, value in langevin.items()}


def _said(value: Any) -> str:
    return "not set" if value is None else repr(value)
