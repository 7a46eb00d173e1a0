"""The half of `benchmarks.peers` that knows nothing of this package: it runs with the Python of each potential's own environment.

    python peers_side.py mace|nequip MODEL TEST.xyz TRAJECTORY.xyz OUT.json [COMPILED MODEL]

Errors and times come from the ASE calculator of the potential, so that all are measured by the same lines.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import ase
import ase.io
import numpy as np
import torch
from ase.calculators.calculator import Calculator

WARM_UP = 20  # first calls: kernels are chosen, code is compiled, memory is taken


def errors(calculator: Calculator, frames: list[ase.Atoms]) -> dict[str, float]:
    """Mean absolute errors against REF_energy (per structure) and REF_forces (per component)."""
    energies, forces = [], []
    for frame in frames:
        atoms = ase.Atoms(frame.numbers, frame.positions, calculator=calculator)
        energies.append(atoms.get_potential_energy() - frame.info["REF_energy"])
        forces.append(atoms.get_forces() - frame.arrays["REF_forces"])
    return {
        "force_mae_mev": 1e3 * float(np.abs(np.concatenate(forces)).mean()),
        "energy_mae_mev": 1e3 * float(np.abs(energies).mean()),
    }


def times(calculator: Calculator, trajectory: list[ase.Atoms]) -> dict[str, float]:
    """Milliseconds for energy and forces of one structure, neighbours included: median and least over consecutive frames."""
    seconds = []
    atoms = ase.Atoms(trajectory[0].numbers, trajectory[0].positions, calculator=calculator)
    for frame in trajectory:
        atoms.positions = frame.positions
        began = time.perf_counter()
        atoms.get_forces()
        atoms.get_potential_energy()
        seconds.append(time.perf_counter() - began)
    return {"median": 1e3 * median(seconds[WARM_UP:]), "least": 1e3 * min(seconds[WARM_UP:])}


def mace(model: str) -> tuple[Calculator, torch.nn.Module]:
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=model, device="cpu", default_dtype="float32")
    return calculator, calculator.models[0]


def nequip(model: str) -> tuple[Calculator, torch.nn.Module]:
    from nequip.integrations.ase import NequIPCalculator

    # Of a checkpoint these are the averaged weights.
    calculator = NequIPCalculator._from_saved_model(model, device="cpu")
    return calculator, calculator.model


def nequip_compiled(model: str) -> Calculator:
    from nequip.integrations.ase import NequIPCalculator

    return NequIPCalculator.from_compiled_model(model, device="cpu")


def main() -> None:
    name, model, test, trajectory, out, *compiled = sys.argv[1:]
    torch.set_num_threads(1)
    calculator, network = {"mace": mace, "nequip": nequip}[name](model)
    frames = ase.io.read(trajectory, ":")
    line = {
        **errors(calculator, ase.io.read(test, ":")),
        "parameters": sum(p.numel() for p in network.parameters()),
        "milliseconds": {"plain": times(calculator, frames)},
        "versions": {p: version(p) for p in (f"{name}-torch".replace("nequip-torch", "nequip"), "e3nn", "torch")},
    }  # fmt: skip
    if compiled:
        line["milliseconds"]["compiled"] = times(nequip_compiled(compiled[0]), frames)
    Path(out).write_text(json.dumps(line))


if __name__ == "__main__":
    main()
