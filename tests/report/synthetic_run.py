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
        "valid_energy_mae_mev,valid_force_mae_mev,passes,adjoint_passes,unconverged"
    )
    lines = [header]
    for epoch in range(epochs):
        force = 45 + 600 * np.exp(-epoch / 6) * random.uniform(0.9, 1.1)
        energy = 18 + 170 * np.exp(-epoch / 8) * random.uniform(0.8, 1.2)
        lines.append(
            f"{epoch},{epoch * 95},{epoch * 7.5 + 7},0.005,{force / 100},{energy * 0.9},"
            f"{force * 0.93},{energy},{force},9.5,8.5,0"
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
    )
    energy_error, force_error = energy_pred - energy, forces_pred - forces
    evaluation = {
        "energy_mae_mev": 1000 * np.abs(energy_error).mean(),
        "energy_rmse_mev": 1000 * np.sqrt((energy_error**2).mean()),
        "energy_mae_mev_per_atom": 1000 * np.abs(energy_error).mean() / 9,
        "force_mae_mev": 1000 * np.abs(force_error).mean(),
        "force_rmse_mev": 1000 * np.sqrt((force_error**2).mean()),
        "mean_predictor": {"energy_mae_mev": 144.2, "force_mae_mev": 911.0},
        "structures": 1000,
        "passes_mean": 18.2,
        "unconverged": 0,
        "seconds_per_structure": 0.004,
        "model": "model.safetensors",
        "data": "rmd17:ethanol",
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


def _write_md(folder: Path, steps: int, random: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    atoms = molecule("CH3CH2OH")
    rest, direction = atoms.positions.copy(), random.normal(0, 0.12, atoms.positions.shape)
    lines = [
        "step,time_fs,potential_ev,kinetic_ev,total_ev,temperature_k,passes,adjoint_passes,seconds"
    ]
    frames = []
    for step in range(steps + 1):
        time = 0.5 * step
        kinetic = 0.35 + 0.08 * np.sin(time / 3) + random.normal(0, 0.01)
        total = -4209.0 + 2e-6 * time + random.normal(0, 4e-4)
        passes, adjoint = random.integers(2, 5), random.integers(1, 4)
        lines.append(
            f"{step},{time},{total - kinetic},{kinetic},{total},{kinetic * 860},{passes},"
            f"{adjoint},{step * 0.004}"
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
