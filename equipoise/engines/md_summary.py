"""What a trajectory says as a whole: `summary.json`."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols

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
    # Of the total energy: least-squares slope, and rms about that line. None where
    # energy is not conserved anyway (a thermostat), or too few frames were logged.
    drift_mev_per_atom_per_ps: float | None
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


def drift(time_fs: np.ndarray, total_ev: np.ndarray, atoms: int) -> tuple[float, float] | None:
    """(slope in meV/atom/ps, rms about the line in meV/atom) of the total energy.

    From a least-squares line through all frames; None for fewer than three. The
    difference of the last and the first frame would instead measure where in its
    oscillation the run happened to end.
    """
    if len(time_fs) < 3:
        return None
    time_ps = (time_fs - time_fs.mean()) / 1000
    energy = (total_ev - total_ev.mean()) * 1000 / atoms
    slope = float(time_ps @ energy / (time_ps @ time_ps))
    return slope, float(np.sqrt(np.mean((energy - slope * time_ps) ** 2)))


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
