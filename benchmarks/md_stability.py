"""Does a hot simulation hold, and does it visit the structures that the data have?

    python -m benchmarks.md_stability --model rmd17-ethanol --molecule ethanol --picoseconds 100

Langevin dynamics at the temperature of the data (MD17: 500 K), as `equipoise md` does it. h(r) is the distribution of all
distances between two atoms of a structure; its distance from that of the data is ∫ |h - h_data| dr (0: equal, 2: disjoint), of
which random halves of the data are apart as well. Of a run that fails, the time until then counts.

Source of h(r): Fu et al., Forces are not enough (2023), arXiv:2210.07237, §4.

The run folder stays under --folder: Ctrl-C saves, and the same command goes on.
"""

import argparse
import sys
from pathlib import Path

import ase.io
import matplotlib
import numpy as np
import torch

from benchmarks.record import RESULTS, write
from equipoise.data import rmd17
from equipoise.data.sources.rmd17 import MOLECULES
from equipoise.deq import Joint
from equipoise.engines.md import run_md
from equipoise.engines.watchdog import SimulationStopped
from equipoise.graph import Graph
from equipoise.potentials import load

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

BINS = np.linspace(0.5, 10.0, 191)  # Å


def distances(positions: np.ndarray) -> np.ndarray:
    """All distances of two atoms, Å, [frames, pairs], of positions [frames, atoms, 3]."""
    first, second = np.triu_indices(positions.shape[1], k=1)
    return np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)


def distribution(positions: np.ndarray) -> np.ndarray:
    """h(r), 1/Å, per bin; its integral is 1."""
    return np.histogram(distances(positions), BINS, density=True)[0]


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).sum() * (BINS[1] - BINS[0]))


def halves(positions: np.ndarray) -> float:
    """How far apart two random halves are: the mean of ten draws."""
    generator, found = np.random.default_rng(0), []
    for _ in range(10):
        order = generator.permutation(len(positions))
        one, other = np.array_split(positions[order], 2)
        found.append(apart(distribution(one), distribution(other)))
    return float(np.mean(found))


def frames_of(graphs: list[Graph]) -> np.ndarray:
    return np.array([graph.positions.numpy() for graph in graphs])


def plot(curves: dict[str, np.ndarray], title: str, file: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    middles = (BINS[1:] + BINS[:-1]) / 2
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        axes.plot(middles, curve, style, label=name)
    axes.set_xlim(0.8, middles[np.nonzero(curves["data"])[0][-1]] + 0.3)
    axes.set_xlabel("distance, Å")
    axes.set_ylabel("h(r), 1/Å")
    axes.set_title(title, fontsize=9)
    axes.legend()
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="rmd17-ethanol")
    parser.add_argument("--molecule", choices=MOLECULES, default="ethanol")
    parser.add_argument("--data-folder", help="of the revised MD17 files; ethanol is shipped")
    parser.add_argument("--picoseconds", type=float, default=100.0)
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--temperature", type=float, default=500.0, help="K")
    parser.add_argument(
        "--passes", type=int, help="joint passes a step; default: as many as it takes"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-md-stability"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    potential = load(given.model)
    data = rmd17(given.molecule, cutoff=potential.cutoff, folder=given.data_folder)
    folder = given.folder / f"{given.molecule}-{given.timestep:g}fs-seed{given.seed}"
    every = round(50 / given.timestep)  # one frame in 50 fs
    failure = None
    try:
        run_md(
            data.test[0].to_ase()[0], potential,
            steps=round(1000 * given.picoseconds / given.timestep), folder=folder, ensemble="langevin",
            timestep_fs=given.timestep, temperature_k=given.temperature, seed=given.seed, log_every=10,
            trajectory_every=every, checkpoint_every=1000, compile=given.compile,
            joint="auto" if given.passes is None else Joint(passes=given.passes),
        )  # fmt: skip
    except SimulationStopped as stop:
        failure = str(stop)
    log = np.genfromtxt(folder / "log.csv", delimiter=",", names=True)
    frames = np.array([a.positions for a in ase.io.iread(folder / "trajectory.extxyz")])
    frames = frames[round(2000 / 50) :]  # after 2 ps with the thermostat
    known = frames_of([*data.train, *data.test])
    curves = {"data": distribution(known), "simulation": distribution(frames)}
    line = {
        "picoseconds": float(log["time_fs"][-1] / 1000),
        "failure": failure,
        "mean_temperature_k": float(
            log["temperature_k"][round(2000 / given.timestep / 10) :].mean()
        ),
        "h_of_r_apart_from_data": apart(*curves.values()),
        "halves_of_data_apart": halves(known),
        "halves_of_simulation_in_time_apart": apart(*map(distribution, np.array_split(frames, 2))),
        "shortest_distance": float(distances(frames).min()),
        "shortest_distance_in_data": float(distances(known).min()),
        "passes": float(log["passes"].mean()),
        "adjoint_passes": float(log["adjoint_passes"].mean()),
        "residual_median": float(np.median(log["residual"])),
        "residual_max": float(log["residual"].max()),
        "milliseconds_per_step": 1e3 * float(np.median(log["seconds"])),
        "frames": len(frames),
    }
    for name, value in line.items():
        print(f"{name:36s} {value if not isinstance(value, float) else format(value, '.4g')}")
    name = f"md_stability_{given.molecule}"
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    plot(
        curves,
        f"{given.molecule}, {line['picoseconds']:.0f} ps at {given.temperature:g} K",
        RESULTS / f"{name}.png",
    )
    command = " ".join(["python -m benchmarks.md_stability", *words])
    print(f"wrote {write(name, command, {given.molecule: line}, seeds=[given.seed])}")


if __name__ == "__main__":
    main()
