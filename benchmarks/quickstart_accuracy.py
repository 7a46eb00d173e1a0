"""What the quickstart's minutes buy: the equilibrium model beside explicit stacks, trained side by side.

    python -m benchmarks.quickstart_accuracy --seconds 240 --seeds 0 1 2

Same data, loss, optimiser, width and wall time; only ``potential.kind`` and the number of layers differ. The explicit stacks
have a weight for every layer, the equilibrium model for one. All predict conservative forces.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch

from benchmarks.record import RESULTS, write
from equipoise.graph import Graph
from equipoise.potentials import Potential, load
from equipoise.train import evaluate, fit, load_recipe
from equipoise.train.datasets import read_datasets

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

MODELS = {
    "equilibrium, 1 block": ["potential.kind=equilibrium"],
    "stacked, 1 layer": ["potential.kind=stacked", "potential.backbone.layers=1"],
    "stacked, 4 layers": ["potential.kind=stacked", "potential.backbone.layers=4"],
}


def train_and_test(
    overrides: list[str],
    *,
    seconds: float,
    seed: int,
    threads: int,
    test: int,
    more: Callable[[Potential, list[Graph]], dict[str, float]] = lambda potential, graphs: {},
) -> dict[str, float]:
    """One model, one seed; ``more`` measures what else is wanted of the trained potential on the test structures."""
    recipe = load_recipe(
        "quickstart",
        [
            *overrides,
            f"training.max_seconds={seconds}",
            f"training.seed={seed}",
            f"training.threads={threads}",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        result = fit(recipe, Path(folder))
        potential = load(result.model)
        graphs = read_datasets(recipe.data, cutoff=potential.cutoff).test[:test]
        evaluation = evaluate(potential, graphs, batch_size=16)
    return {
        "force_mae_mev": evaluation.errors.force_mae_mev,
        "energy_mae_mev": evaluation.errors.energy_mae_mev,
        "mean_predictor_force_mae_mev": evaluation.mean_predictor.force_mae_mev,
        "parameters": sum(p.numel() for p in potential.parameters()),
        "training_steps": result.steps,
        "passes": evaluation.passes_mean,
        "unconverged": evaluation.unconverged,
        **more(potential, graphs),
    }


def repeated(overrides: list[str], *, seeds: list[int], **settings: object) -> dict[str, object]:
    """Medians over seeds of what :func:`train_and_test` measures, and the single runs."""
    runs = [train_and_test(overrides, seed=seed, **settings) for seed in seeds]
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]} | {"runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=240, help="training time of each model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test", type=int, default=1000, help="test structures")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    for name, overrides in MODELS.items():
        results[name] = repeated(
            overrides,
            seeds=arguments.seeds,
            seconds=arguments.seconds,
            threads=arguments.threads,
            test=arguments.test,
        )
        print(
            f"{name:22s} F {results[name]['force_mae_mev']:.1f} meV/Å  E {results[name]['energy_mae_mev']:.1f} meV"
        )
    results["force_mae_ratio_stacked_4_to_equilibrium"] = (
        results["stacked, 4 layers"]["force_mae_mev"]
        / results["equilibrium, 1 block"]["force_mae_mev"]
    )
    path = write(
        "quickstart_accuracy",
        " ".join(["python -m benchmarks.quickstart_accuracy", *sys.argv[1:]]),
        results,
        seeds=arguments.seeds,
    )
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.barh(list(MODELS), [results[name]["force_mae_mev"] for name in MODELS], color="#3b6ea8")
    axes.set_xlabel(f"force MAE on the test set after {arguments.seconds:.0f} s of training, meV/Å")
    axes.invert_yaxis()
    figure.savefig(RESULTS / "quickstart_accuracy.png", dpi=150)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
