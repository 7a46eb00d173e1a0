"""How good the first guess is on real dynamics: consecutive frames of MD17 ethanol, 0.5 fs apart at 500 K.

    equipoise data download md17 --subset ethanol
    python -m benchmarks.md17_frames FILE.npz [--frames 300] [--tolerance 1e-4]

The frames come from ab initio dynamics, so no integrator of ours has had a hand in them. Two tables: the error of the guess of
state and adjoint, from histories solved to 1e-9 in float64; and the passes per frame of solves to a fixed tolerance in float32,
where every solve starts from what solves to that tolerance left behind.
"""

import argparse
import sys
from collections import deque
from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
import torch

from benchmarks.record import RESULTS, write
from equipoise.deq import Anderson
from equipoise.deq.predictors import ASPC, Last, LeastSquares, Linear, Predictor, Quadratic
from equipoise.engines.warm_start import WarmStart
from equipoise.graph import Graph
from equipoise.potentials import Potential, load

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

PREDICTORS: dict[str, Predictor] = {
    "last": Last(),
    "linear": Linear(),
    "quadratic": Quadratic(),
    **{f"ASPC({k})": ASPC(k=k) for k in range(5)},
    # Of the ridges the first suits solves to 1e-4, the others tight ones.
    **{
        f"least squares {depth}, ridge {ridge:g}": LeastSquares(depth=depth, ridge=ridge)
        for depth, ridge in ((4, 1e-6), (6, 1e-6), (6, 1e-8), (8, 1e-10))
    },
}
DEEPEST = max(predictor.depth for predictor in PREDICTORS.values())


def graphs(file: Path, count: int, cutoff: float) -> list[Graph]:
    """The first frames of a file with the keys of sGDML; nothing in it is unpickled."""
    with np.load(file) as file:
        frames = file["R"][:count]
        return [Graph.build(frame, file["z"], cutoff=cutoff) for frame in frames]


def guess_errors(potential: Potential, frames: list[Graph]) -> dict[str, dict[str, float]]:
    """Medians over frames of ‖guess - z*‖ / ‖z*‖, for the state and the adjoint."""
    history: deque = deque(maxlen=DEEPEST)  # newest first
    errors = {name: ([], []) for name in PREDICTORS}
    last = None
    for graph in frames:
        last = found = potential(graph, start=last).equilibrium
        if len(history) == DEEPEST:
            known = {
                "descriptors": [each.descriptor for each in history],
                "descriptor": found.descriptor,
            }
            for name, predictor in PREDICTORS.items():
                for part, kept in zip(("value", "adjoint"), errors[name], strict=True):
                    exact = getattr(found, part)
                    guess = predictor([getattr(each, part) for each in history], **known)
                    kept.append(float((guess - exact).norm() / exact.norm()))
        history.appendleft(found)
    return {
        name: {"state_error": median(states), "adjoint_error": median(adjoints)}
        for name, (states, adjoints) in errors.items()
    }


def passes(potential: Potential, frames: list[Graph]) -> dict[str, dict[str, float]]:
    """Means over frames after the first, for solves to the tolerance."""
    found = {}
    for name, predictor in {"cold": None, **PREDICTORS}.items():
        memory = None if predictor is None else WarmStart(predictor)
        counts = []
        for graph in frames:
            start = None if memory is None else memory.start(graph)
            equilibrium = potential(graph, start=start).equilibrium
            if memory is not None:
                memory.remember(graph, equilibrium)
            counts.append((int(equilibrium.passes), int(equilibrium.adjoint_passes)))
        forward, adjoint = np.mean(counts[DEEPEST:], axis=0).tolist()
        found[name] = {"passes": forward, "adjoint_passes": adjoint}
        print(f"{name:32s} passes {forward:5.2f} + {adjoint:5.2f}", flush=True)
    return found


def plot(results: dict[str, dict[str, float]]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    names = list(results)[::-1]
    for name in names:
        line = results[name]
        axes[0].plot(line.get("state_error", np.nan), name, "o", color="#3b6ea8")
        axes[0].plot(line.get("adjoint_error", np.nan), name, "s", color="#b5651d")
        axes[1].barh(name, line["passes"], color="#3b6ea8")
        axes[1].barh(name, line["adjoint_passes"], left=line["passes"], color="#b5651d")
    axes[0].set_xscale("log")
    axes[0].set_xlabel("error of the guess (state, adjoint)")
    axes[1].set_xlabel("passes per frame (state, adjoint)")
    figure.savefig(RESULTS / "md17_frames.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="MD17 ethanol, as sgdml.org has it")
    parser.add_argument("--model", default="rmd17-ethanol")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tight = Anderson(tolerance=1e-9, max_passes=200)
    exact = load(arguments.model, dtype="float64", solver=tight, adjoint=tight)
    frames = graphs(arguments.file, arguments.frames, exact.cutoff)
    errors = guess_errors(exact, frames)
    for name, line in errors.items():
        print(f"{name:32s} state {line['state_error']:.1e}  adjoint {line['adjoint_error']:.1e}")
    solver = Anderson(tolerance=arguments.tolerance, max_passes=80)
    results = passes(load(arguments.model, solver=solver, adjoint=solver), frames)
    for name, line in errors.items():
        results[name] |= line
    plot(results)
    words = [Path(word).name if word.endswith(".npz") else word for word in sys.argv[1:]]
    command = " ".join(["python -m benchmarks.md17_frames", *words])
    print(f"wrote {write('md17_frames', command, results, seeds=[])}")


if __name__ == "__main__":
    main()
