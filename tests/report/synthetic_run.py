"""A run folder made up from nothing, with every file a finished quickstart leaves."""

import json
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.io import write


def make_run(folder: Path, *, epochs: int = 40, steps: int = 600, seed: int = 0) -> Path:
    """Writes a complete run folder whose numbers look like those of a short ethanol run."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(
        "data:\n  source: rmd17\n  molecule: ethanol\ntraining:\n  epochs: 40\n"
    )
    _write_log(folder / "log.csv", epochs, random)
    _write_evaluation(folder, random)
    _write_md(folder / "md", steps, random)
    return folder


def _write_log(path: Path, epochs: int, random: np.random.Generator) -> None:
    header = (
        "epoch,step,seconds,lr,loss,train_energy_mae_mev,train_force_mae_mev,"
        "valid_energy_mae_mev,valid_force_mae_mev,passes,adjoint_passes,unconverged,contraction"
    )
    lines = [header]
    for epoch in range(epochs):
        force = 45 + 600 * np.exp(-epoch / 6) * random.uniform(0.9, 1.1)
        energy = 18 + 170 * np.exp(-epoch / 8) * random.uniform(0.8, 1.2)
        lines.append(
            f"{epoch},{epoch * 95},{epoch * 7.5 + 7},0.005,{force / 100},{energy * 0.9},"
            f"{force * 0.93},{energy},{force},{6 + epoch / 15},{5 + epoch / 20},0,"
            f"{0.3 + 0.2 * epoch / epochs}"
        )
    path.write_text("\n".join(lines) + "\n")


def _write_evaluation(folder: Path, random: np.random.Generator) -> None:
    energy = random.normal(-4209.0, 0.18, 1000)
    forces = random.laplace(0, 0.8, (9000, 3))
    energy_pred = energy + random.normal(0, 0.02, 1000)
    forces_pred = forces + random.laplace(0, 0.05, forces.shape)
    np.savez(
        folder / "evaluation.npz",
        energy_true=energy,
        energy_pred=energy_pred,
        forces_true=forces,
        forces_pred=forces_pred,
        atoms=np.full(1000, 9),
        energy_mean=np.full(1000, -4209.0),
    )
    energy_error, force_error = energy_pred - energy, forces_pred - forces
    evaluation = {
        "energy_mae_mev": 1000 * np.abs(energy_error).mean(),
        "energy_rmse_mev": 1000 * np.sqrt((energy_error**2).mean()),
        "energy_mae_mev_per_atom": 1000 * np.abs(energy_error).mean() / 9,
        "force_mae_mev": 1000 * np.abs(force_error).mean(),
        "force_rmse_mev": 1000 * np.sqrt((force_error**2).mean()),
        "mean_predictor": {"energy_mae_mev": 144.2, "force_mae_mev": 911.0},
        "intervals": {"energy_mae_mev": [15.1, 16.9], "force_mae_mev": [49.5, 50.6]},
        "bootstrap": {"replicates": 1000, "level": 0.95, "block": 1, "seed": 0},
        "structures": 1000,
        "passes_mean": 18.2,
        "passes_forward": 9.7,
        "passes_adjoint": 8.5,
        "elements": [
            {"element": name, "atoms": atoms, "force_mae_mev": mae, "force_rmse_mev": 1.4 * mae}
            for name, atoms, mae in (("H", 6000, 41.0), ("C", 2000, 66.0), ("O", 1000, 71.0))
        ],
        "molecules": [{"name": "C2H6O", "structures": 1000, "force_mae_mev": 50.0}],
        "worst": [worst(index) for index in (17, 4, 803)],
        "examination": {
            "parameters": 111824,
            "structures": 8,
            "rotation": {"energy_mev": 1e-3, "force_mev": 2e-3, "force_relative": 3e-7},
            "mirror": {"energy_mev": 1e-3, "force_mev": 2e-3, "force_relative": 4e-7},
            "contraction_mean": 0.26,
            "contraction_max": 0.29,
            "seconds_alone": 0.084,
            "seconds_alone_quartiles": [0.08, 0.09],
        },
        "unconverged": 0,
        "seconds_per_structure": 0.004,
        "model": "model.safetensors",
        "data": "rmd17:ethanol",
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


def worst(index: int, **changes: object) -> dict[str, object]:
    """A structure with large errors, as it stands in evaluation.json."""
    return {
        "index": index,
        "molecule": "C2H6O",
        "atoms": 9,
        "energy_error_mev": -17.3,
        "force_mae_mev": 112.0,
        "force_worst_mev": 1140.0,
        "force_worst_atom": 2,
        "force_worst_element": "O",
        "converged": True,
    } | changes


def _write_md(folder: Path, steps: int, random: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    atoms = molecule("CH3CH2OH")
    rest, direction = atoms.positions.copy(), random.normal(0, 0.12, atoms.positions.shape)
    lines = [
        "step,time_fs,potential_ev,kinetic_ev,total_ev,temperature_k,passes,adjoint_passes,seconds,conserved_ev"
    ]
    frames = []
    for step in range(steps + 1):
        time = 0.5 * step
        kinetic = 0.35 + 0.08 * np.sin(time / 3) + random.normal(0, 0.01)
        total = -4209.0 + 2e-6 * time + random.normal(0, 4e-4)
        passes, adjoint = random.integers(2, 5), random.integers(1, 4)
        lines.append(
            f"{step},{time},{total - kinetic},{kinetic},{total},{kinetic * 860},{passes},"
            f"{adjoint},{step * 0.004},{total}"
        )
        if step % 10 == 0:
            atoms.positions = rest + direction * np.sin(time / 5) + np.array([0.001, 0, 0]) * time
            atoms.info.update(step=step, time_fs=time)
            frames.append(atoms.copy())
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    write(folder / "trajectory.extxyz", frames)
    cold = [
        f"{step},{random.integers(9, 13)},{random.integers(8, 11)}"
        for step in range(0, steps + 1, 50)
    ]
    (folder / "cold_passes.csv").write_text("step,passes,adjoint_passes\n" + "\n".join(cold) + "\n")
    (folder / "summary.json").write_text(
        json.dumps({"ensemble": "nve", "atoms": 9, "steps": steps})
    )
