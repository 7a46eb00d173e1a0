"""What a trajectory says as a whole: `summary.json`."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols

from equipoise.engines.drift import BLOCKS, Drift, standard_error
from equipoise.engines.run_files import explain_full_disk
from equipoise.potentials import Potential


@dataclass(frozen=True)
class MDSummary:
    """Totals of a trajectory from its first step on, restarts included."""

    ensemble: str
    steps: int
    timestep_fs: float
    time_ps: float
    temperature_k: float  # asked for: at the start (NVE) or of the thermostat
    mean_temperature_k: float
    # Of the total energy: least-squares slope, its standard error, and rms about that line. None
    # where energy is not conserved anyway (a thermostat), or too few frames were logged.
    drift_mev_per_atom_per_ps: float | None
    drift_standard_error_mev_per_atom_per_ps: float | None
    fluctuation_mev_per_atom: float | None
    mean_passes: float  # per step, equilibrium
    mean_adjoint_passes: float
    mean_cold_passes: float | None  # of the sampled frames, solved from nothing
    mean_cold_adjoint_passes: float | None
    cold_samples: int
    seconds_per_step: float
    ns_per_day: float
    atoms: int
    formula: str
    warm_start: str
    restarts: int
    model: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write as JSON, in one piece. Raises `DiskFullError`."""
        temporary = path.with_name(path.name + ".part")
        with explain_full_disk(path):
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")
            temporary.replace(path)


class Totals:
    """Sums over the logged steps, of which a long run has millions.

    **Attributes**

    - `count`: of steps.
    - `mean_temperature_k`: K.
    """

    def __init__(self) -> None:
        self.count = 0
        self._temperature = 0.0
        self._first = (0.0, 0.0)  # counting from here, sums of small numbers keep their digits
        self._sums = np.zeros(5)  # of t, E, t², tE, E²
        self._blocks: list[np.ndarray] = []  # count, Σt, ΣE of equally many steps each
        self._block_size = 1

    def add(self, time_fs: float, conserved_ev: float, temperature_k: float) -> None:
        """One more step."""
        if not self.count:
            self._first = (time_fs, conserved_ev)
        self.count += 1
        self._temperature += temperature_k
        t, e = (time_fs - self._first[0]) / 1000, (conserved_ev - self._first[1]) * 1000
        self._sums += (t, e, t * t, t * e, e * e)
        if not self._blocks or self._blocks[-1][0] == self._block_size:
            if len(self._blocks) == 8 * BLOCKS:
                self._blocks = [a + b for a, b in zip(*[iter(self._blocks)] * 2, strict=True)]
                self._block_size *= 2
            self._blocks.append(np.zeros(3))
        self._blocks[-1] += (1, t, e)

    @property
    def mean_temperature_k(self) -> float:
        return self._temperature / self.count

    def drift(self, atoms: int) -> Drift | None:
        """Of the conserved energy, per atom.

        From a least-squares line through all steps; None for fewer than three. The
        difference of the last and the first step would instead measure where in its
        oscillation the run happened to end.
        """
        if self.count < 3:
            return None
        t, e, tt, te, ee = self._sums / self.count
        slope = float((te - t * e) / (tt - t * t))
        rest = ee - e * e - slope * (te - t * e)
        counts, *sums = np.array(self._blocks).T
        error = standard_error(*(each / counts for each in sums), counts, slope)
        return Drift(slope, error, math.sqrt(max(float(rest), 0.0))).of_each(atoms)


def ns_per_day(timestep_fs: float, seconds_per_step: float) -> float:
    """Simulated nanoseconds per day of wall time."""
    return timestep_fs * 1e-6 * 86400 / seconds_per_step if seconds_per_step else 0.0


def describe_model(potential: Potential) -> dict[str, Any]:
    """What identifies a potential: sizes, and a hash over settings and parameters."""
    return {
        "kind": str(getattr(potential.config, "kind", type(potential).__name__)),
        "parameters": sum(p.numel() for p in potential.parameters()),
        "cutoff": float(potential.cutoff),
        "elements": [chemical_symbols[number] for number in potential.elements],
        "dtype": str(potential.dtype).removeprefix("torch."),
        "fingerprint": _fingerprint(potential),
    }


def _fingerprint(potential: Potential) -> str:
    digest = hashlib.sha256(repr(potential.config).encode())
    for name, tensor in sorted(potential.state_dict().items()):
        digest.update(name.encode())
        data = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
