"""What reusing the fixed point is worth in molecular dynamics: passes and time per step, cold and warm, at several tolerances.

    python -m benchmarks.md_reuse --model rmd17-ethanol --steps 1000

Each line is an NVE run of the same molecule from the same velocities. "cold" starts every solve from nothing; the others
extrapolate the state and its adjoint from earlier steps. The energy drift says whether the tolerance was good enough.
"""

import argparse
import dataclasses
import sys
import tempfile

import matplotlib
import torch

from benchmarks.record import RESULTS, write
from equipoise.data import rmd17
from equipoise.deq import Anderson
from equipoise.deq.predictors import Last, LeastSquares, Linear, Quadratic
from equipoise.engines.md import run_md
from equipoise.engines.warm_start import WarmStart
from equipoise.potentials import load

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

STARTS = {
    "cold": lambda: False,
    "last": lambda: WarmStart(Last()),
    "linear": lambda: WarmStart(Linear()),
    "quadratic": lambda: WarmStart(Quadratic()),
    "least squares": lambda: WarmStart(LeastSquares()),
}
KEYS = (
    "mean_passes",
    "mean_adjoint_passes",
    "seconds_per_step",
    "ns_per_day",
    "drift_mev_per_atom_per_ps",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="rmd17-ethanol")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-3, 1e-4, 1e-5])
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, dict] = {}
    for tolerance in arguments.tolerances:
        solver = Anderson(tolerance=tolerance, max_passes=80)
        potential = load(
            arguments.model, dtype=getattr(torch, arguments.dtype), solver=solver, adjoint=solver
        )
        atoms = rmd17(cutoff=potential.cutoff).test[0].to_ase()[0]
        for name, start in STARTS.items():
            with tempfile.TemporaryDirectory() as folder:
                summary = run_md(
                    atoms, potential, steps=arguments.steps, folder=folder, timestep_fs=arguments.timestep,
                    temperature_k=300.0, seed=0, warm_start=start(), progress=False,
                ).summary  # fmt: skip
            line = {key: dataclasses.asdict(summary)[key] for key in KEYS}
            results[f"{name}, tolerance {tolerance:g}"] = {
                "start": name,
                "tolerance": tolerance,
            } | line
            print(
                f"{tolerance:8.0e} {name:13s} passes {line['mean_passes']:5.2f} + {line['mean_adjoint_passes']:5.2f}  "
                f"{1e3 * line['seconds_per_step']:6.1f} ms/step  drift {line['drift_mev_per_atom_per_ps']:+.3f} meV/atom/ps"
            )
        cold = results[f"cold, tolerance {tolerance:g}"]["seconds_per_step"]
        for name in STARTS:
            line = results[f"{name}, tolerance {tolerance:g}"]
            line["speed_up_over_cold"] = cold / line["seconds_per_step"]
    path = write(
        "md_reuse", " ".join(["python -m benchmarks.md_reuse", *sys.argv[1:]]), results, seeds=[0]
    )
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for name in STARTS:
        lines = [line for line in results.values() if line["start"] == name]
        total = [line["mean_passes"] + line["mean_adjoint_passes"] for line in lines]
        axes.semilogx([line["tolerance"] for line in lines], total, "o-", label=name)
    axes.set_xlabel("tolerance (relative residual)")
    axes.set_ylabel("passes per step")
    axes.set_ylim(bottom=0)
    axes.legend(title="start")
    figure.savefig(RESULTS / "md_reuse.png", dpi=150)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
