"""Is energy conserved when a step of dynamics gets two passes instead of a converged solve?

    python -m benchmarks.md_conservation --picoseconds 2 --timesteps 0.5 1 [--dtypes float64] [--only "cold 1e-4" "aspc2 x2"]

Each line is an NVE run of the same molecule from the same velocities. Rows "name xK" take K joint passes per step from the guess
of a predictor, "+R" with R secants kept from step to step, "until" with passes until both residuals were so small; "tolerance"
rows solve to a tolerance as the calculator does by default, "cold" from nothing. Reported are the drift (slope of a line through
the total energy, with the standard error of blocks), once of the energy that predictions report (stationary in what was not solved
exactly, E_L) and once of the plain energy E = E_L - λᵀ(f(z) - z), the residuals, passes and times; how far from the start the
way back ends, 100 steps out and back, once with the velocities turned round; and how far the distribution of distances h(r) is
from that of the first line, ∫ |Δh| dr.

--work N adds the work that the errors of the forces do, against forces solved to 1e-8 every N steps; over half a picosecond that is
mostly what the energy that these forces do conserve differs by. --stretch I J E begins with E eV more in the stretching of a bond.

Rows of earlier calls with other schemes, time steps or precisions stay in the file.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import ase
import matplotlib
import numpy as np
import torch
from ase import units
from ase.md.verlet import VelocityVerlet
from rich.progress import track

from benchmarks.md_stability import apart, distribution
from benchmarks.record import RESULTS, write
from equipoise.data import rmd17
from equipoise.data.sources.rmd17 import MOLECULES
from equipoise.deq import Anderson, Joint
from equipoise.deq.predictors import ASPC, Last, LeastSquares, Quadratic
from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.drift import drift_of
from equipoise.engines.velocities import thermal_momenta
from equipoise.engines.warm_start import WarmStart
from equipoise.potentials import load

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first


def joint(predictor, passes: int, recycled: int, tolerance: float | None = None):
    return {
        "joint": Joint(passes=passes, recycled=recycled, tolerance=tolerance),
        "warm_start": lambda: WarmStart(predictor),
    }


def solved(tolerance: float, predictor=None):
    return {"tolerance": tolerance, "warm_start": lambda: WarmStart(predictor)}


def cold(tolerance: float):
    return {"tolerance": tolerance, "warm_start": lambda: False}


SCHEMES = {
    "aspc0 x1": joint(ASPC(k=0), 1, 0),
    "aspc1 x1": joint(ASPC(k=1), 1, 0),
    "quadratic x1": joint(Quadratic(), 1, 0),
    "aspc1 x2": joint(ASPC(k=1), 2, 0),
    "aspc2 x2": joint(ASPC(k=2), 2, 0),
    "aspc3 x2": joint(ASPC(k=3), 2, 0),
    "aspc4 x2": joint(ASPC(k=4), 2, 0),
    "aspc4 x3": joint(ASPC(k=4), 3, 0),
    "aspc8 x3": joint(ASPC(k=8), 3, 0),
    "aspc2 x3": joint(ASPC(k=2), 3, 0),
    "quadratic x2": joint(Quadratic(), 2, 0),
    "last x2 +8": joint(Last(), 2, 8),
    "quadratic x2 +8": joint(Quadratic(), 2, 8),
    "aspc1 x2 +8": joint(ASPC(k=1), 2, 8),
    "aspc2 x2 +8": joint(ASPC(k=2), 2, 8),
    "aspc3 x2 +8": joint(ASPC(k=3), 2, 8),
    "aspc2 x2 +16": joint(ASPC(k=2), 2, 16),
    "aspc2 x3 +8": joint(ASPC(k=2), 3, 8),
    "aspc2 until 3e-4 +8": joint(ASPC(k=2), 6, 8, 3e-4),
    "least squares x2 +8": joint(LeastSquares(ridge=1e-8), 2, 8),
    "quadratic, 1e-4": solved(1e-4, Quadratic()),
    "least squares 1e-8, 1e-4": solved(1e-4, LeastSquares(ridge=1e-8)),
    "cold 1e-4": cold(1e-4),
    "tolerance 1e-2": solved(1e-2),
    "tolerance 1e-3": solved(1e-3),
    "tolerance 1e-4": solved(1e-4),
    "tolerance 1e-8": solved(1e-8),
}
# Errors of float32 alone are above the tightest.
ONLY_FLOAT64 = {"tolerance 1e-8"}


def simulate(
    start: ase.Atoms,
    model: str,
    scheme: dict,
    *,
    dtype: str,
    compiled: bool,
    steps: int,
    timestep: float,
    temperature: float,
    work_every: int = 0,
    stretch: tuple[int, int, float] | None = None,
) -> tuple[dict[str, float], np.ndarray]:
    """(what is reported, h(r))."""
    options = dict(scheme)
    tolerance = options.pop("tolerance", None)
    solver = None if tolerance is None else Anderson(tolerance=tolerance, max_passes=100)
    potential = load(model, dtype=dtype, solver=solver, adjoint=solver)
    calculator = EquipoiseCalculator(
        potential,
        warm_start=options.pop("warm_start")(),
        unconverged="accept",
        compile=compiled,
        **options,
    )
    atoms = start.copy()
    atoms.set_momenta(thermal_momenta(atoms, temperature, np.random.default_rng(0)))
    if stretch is not None:
        heat_bond(atoms, *stretch)
    atoms.calc = calculator
    tight = Anderson(tolerance=1e-8, max_passes=200)
    exact = EquipoiseCalculator(load(model, dtype="float64", solver=tight, adjoint=tight))
    work, wrong = 0.0, []
    integrator = VelocityVerlet(atoms, timestep * units.fs)
    total, plain, residuals, adjoint_residuals, seconds, frames = [], [], [], [], [], []
    for step in track(range(steps), description=f"{steps} steps"):
        began = time.perf_counter()
        integrator.run(1)
        seconds.append(time.perf_counter() - began)
        total.append(atoms.get_total_energy())
        plain.append(total[-1] - calculator.correction)
        residuals.append(calculator.residual)
        adjoint_residuals.append(calculator.adjoint_residual)
        frames.append(atoms.positions.copy())
        if work_every and step % work_every == 0:
            wrong.append(atoms.get_forces() - exact.get_forces(atoms))
            power = float((wrong[-1] * atoms.get_velocities()).sum())
            work += power * work_every * timestep * units.fs
    count = calculator.statistics
    after = steps // 50  # the start-up, with its solves, is not the question
    times = np.arange(steps)[after:] * timestep / 1000  # ps
    line = {"steps": steps, "timestep_fs": timestep, "dtype": dtype}
    for name, energies in (("drift", total), ("drift_of_plain_energy", plain)):
        slope, error, scatter = drift_of(times, 1e3 * np.array(energies)[after:] / len(atoms))
        line |= {
            f"{name}_mev_per_atom_per_ps": slope,
            f"{name}_standard_error": error,
            f"{name}_scatter_mev_per_atom": scatter,
        }
    if work_every:
        per_atom_per_ps = 1e3 * work / len(atoms) / (steps * timestep / 1000)
        line["work_of_errors_mev_per_atom_per_ps"] = per_atom_per_ps
        line["force_error_mev_per_angstrom"] = 1e3 * float(np.sqrt(np.square(wrong).mean()))
    line["reversal_error_angstrom"] = out_and_back(atoms, integrator, calculator)
    return line | {
        "passes": count.passes / count.calls,
        "adjoint_passes": count.adjoint_passes / count.calls,
        "joint_retries": count.joint_retries,
        "residual_median": float(np.median(residuals)),
        "residual_max": float(np.max(residuals[after:])),
        "adjoint_residual_median": float(np.median(adjoint_residuals)),
        "milliseconds_per_step": 1e3 * float(np.median(seconds)),
    }, distribution(np.array(frames))


def heat_bond(atoms: ase.Atoms, one: int, other: int, energy: float) -> None:
    """Give a bond ``energy``, eV, on top of what its stretching has: the atoms move apart, their centre of mass does not."""
    masses, momenta = atoms.get_masses(), atoms.get_momenta()
    along = atoms.positions[one] - atoms.positions[other]
    along /= np.linalg.norm(along)
    reduced = masses[one] * masses[other] / (masses[one] + masses[other])
    speed = float((momenta[one] / masses[one] - momenta[other] / masses[other]) @ along)
    kick = reduced * (np.sqrt(speed**2 + 2 * energy / reduced) - speed) * along
    momenta[one] += kick
    momenta[other] -= kick
    atoms.set_momenta(momenta)


def out_and_back(atoms: ase.Atoms, integrator, calculator, steps: int = 100) -> float:
    """Largest distance of an atom from where it was, Å, after so many steps, and as many with the velocities turned round."""
    before = atoms.positions.copy()
    integrator.run(steps)
    atoms.set_momenta(-atoms.get_momenta())
    if calculator.warm_start is not None:
        calculator.warm_start.forget("the way back does not go on from the way out")
    integrator.run(steps)
    return float(np.linalg.norm(atoms.positions - before, axis=1).max())


def plot(results: dict[str, dict], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for key, line in results.items():
        if "hot bond" in key:
            continue
        drift = max(abs(line["drift_mev_per_atom_per_ps"]), 1e-5)
        passes = (line["passes"] + line["adjoint_passes"]) / 2
        marker = "o" if " x" in line["scheme"] else "s"
        axes.plot(passes, drift, marker, color="#3b6ea8" if marker == "o" else "#b5651d")
        label = f"{line['scheme']}, {line['timestep_fs']:g} fs"
        axes.annotate(label, (passes, drift), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axes.axhline(0.01, color="black", linestyle=":")
    axes.set_yscale("log")
    axes.set_xlabel("passes per step, mean of state and adjoint")
    axes.set_ylabel("|drift|, meV/atom/ps")
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="rmd17-ethanol")
    parser.add_argument("--molecule", choices=MOLECULES, default="ethanol")
    parser.add_argument("--data-folder", help="of the revised MD17 files; ethanol is shipped")
    parser.add_argument("--picoseconds", type=float, default=2.0)
    parser.add_argument("--timesteps", type=float, nargs="+", default=[0.5, 1.0], help="fs")
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--dtypes", choices=["float32", "float64"], nargs="+", default=["float64"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=int, default=0, metavar="N", help="see above")
    parser.add_argument("--stretch", nargs=3, metavar=("I", "J", "E"), help="see above")
    parser.add_argument("--compile", action="store_true", help="minutes, then twice as fast")
    parser.add_argument("--only", nargs="+", choices=list(SCHEMES), default=list(SCHEMES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, dict] = {}
    stretch, kind = None, ", work of errors" if arguments.work else ""
    if arguments.stretch:
        one, other, energy = arguments.stretch
        stretch, kind = (int(one), int(other), float(energy)), f"{kind}, hot bond"
    data = rmd17(
        arguments.molecule, cutoff=load(arguments.model).cutoff, folder=arguments.data_folder
    )
    start = data.test[0].to_ase()[0]
    for dtype in arguments.dtypes:
        for timestep in arguments.timesteps:
            first = None
            for name in arguments.only:
                if dtype == "float32" and name in ONLY_FLOAT64:
                    continue
                line, distances = simulate(
                    start, arguments.model, SCHEMES[name], dtype=dtype,
                    compiled=arguments.compile, timestep=timestep,
                    steps=round(1000 * arguments.picoseconds / timestep), temperature=arguments.temperature,
                    work_every=arguments.work, stretch=stretch,
                )  # fmt: skip
                first = distances if first is None else first
                line["h_of_r_apart_from_first"] = apart(distances, first)
                results[f"{name}, {timestep:g} fs, {dtype}{kind}"] = {"scheme": name} | line
                print(
                    f"{dtype} {timestep:4.2f} fs {name:16s} passes {line['passes']:4.1f} + {line['adjoint_passes']:4.1f}  "
                    f"drift {line['drift_mev_per_atom_per_ps']:+8.4f} ± {line['drift_standard_error']:.4f}  "
                    f"of E {line['drift_of_plain_energy_mev_per_atom_per_ps']:+8.4f}  residual {line['residual_median']:.1e} "
                    f"max {line['residual_max']:.1e}  retries {line['joint_retries']}  "
                    f"work {line.get('work_of_errors_mev_per_atom_per_ps', np.nan):+.4f}  "
                    f"{line['milliseconds_per_step']:5.1f} ms  back {line['reversal_error_angstrom']:.1e} Å  "
                    f"h(r) {line['h_of_r_apart_from_first']:.3f}",
                    flush=True,
                )
    words = [Path(w).name if "/" in w else f'"{w}"' if " " in w else w for w in sys.argv[1:]]
    command = " ".join(["python -m benchmarks.md_conservation", *words])
    name = f"md_conservation_{arguments.molecule}"
    earlier = RESULTS / f"{name}.json"
    if earlier.exists():
        results = json.loads(earlier.read_text())["results"] | results
    path = write(name, command, results, seeds=[0])
    plot(results, RESULTS / f"{name}.png")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
