"""Which network is worth its time: variants of the backbone trained side by side for the same wall time.

    python -m benchmarks.accuracy_ablation --seconds 150 [--molecule aspirin --folder RMD17] [--only smooth so3]

Same data, loss, optimiser and minutes; reported are the errors on the test set, what a solve costs, how strongly a pass contracts
at the fixed points (ρ), and how exactly the trained network keeps rotations and mirror images apart or together. Ethanol comes
with the package; other molecules from a folder with the files of the revised MD17 set.
"""

import argparse
import sys
import time

import matplotlib
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from benchmarks.quickstart_accuracy import repeated
from benchmarks.record import RESULTS, write
from equipoise.graph import Graph, batch
from equipoise.potentials import Potential

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

# The original block at the width of the others: its own activations, norms and radial functions, post-norm so that a fixed
# point exists, injected and solved like the others; pre-norm needs a norm in the injection, as in the DEQ research code.
ORIGINAL = (
    "potential.backbone={name: equiformer_v2_original, channels: 32, lmax: 3, mmax: 2, hidden: 16, heads: 4, alpha_channels: 16, "
    "value_channels: 8, edge_channels: 32, ffn: 64, layers: 1, cutoff: 5.0, grid: 14, placement: post, force_head: false"
)
VARIANTS = {
    "smooth": [],
    "so3": ["potential.backbone.reflection=false"],
    "lmax 2": ["potential.backbone.lmax=2"],
    "mmax 1": ["potential.backbone.mmax=1"],
    "2 blocks": ["potential.backbone.layers=2"],
    "original, S2": [ORIGINAL + "}"],
    "original, S2, lr/5": [ORIGINAL + "}", "training.learning_rate=1e-3"],
    "original, gate": [ORIGINAL + ", attention_activation: gate, ffn_activation: gate}"],
    "original, pre": [
        ORIGINAL.replace("placement: post", "placement: pre") + "}",
        "potential.injection.norm=per_atom",
    ],
    "stacked 1, post": ["potential.kind=stacked"],
    "stacked 1, pre": ["potential.kind=stacked", "potential.backbone.norm=pre"],
    "stacked 2, post": ["potential.kind=stacked", "potential.backbone.layers=2"],
    "stacked 2, pre": [
        "potential.kind=stacked",
        "potential.backbone.layers=2",
        "potential.backbone.norm=pre",
    ],
}
COLUMNS = {
    "force_mae_mev": "F meV/Å",
    "energy_mae_mev": "E meV",
    "training_steps": "steps",
    "contraction": "ρ",
    "passes": "passes",
    "milliseconds": "ms",
    "rotation_error_mev": "rotation meV",
    "mirror_change_mev": "mirror meV",
}


def turned(graph: Graph, matrix: np.ndarray) -> Graph:
    return graph.replace(positions=graph.positions @ torch.tensor(matrix).T)


def symmetry_and_cost(potential: Potential, graphs: list[Graph]) -> dict[str, float]:
    """Of the trained weights, at the tolerance of use: errors of a rotation below it are those of the solve."""
    some = batch(graphs[:16])

    def energy(graph: Graph) -> torch.Tensor:
        return potential(graph, forces=False, unconverged="accept").energy

    began = time.perf_counter()
    for graph in graphs[:16]:
        potential(graph, unconverged="accept")
    line = {"milliseconds": 1e3 * (time.perf_counter() - began) / 16}
    rho = potential.contraction(some)
    line["contraction"] = float("nan") if rho is None else float(rho.mean())
    reference, generator = energy(some), np.random.default_rng(0)
    turns = [Rotation.random(rng=generator).as_matrix() for _ in range(4)]
    line["rotation_error_mev"] = 1e3 * max(
        float((energy(turned(some, turn)) - reference).abs().max()) for turn in turns
    )
    line["mirror_change_mev"] = 1e3 * float(
        (energy(turned(some, -np.eye(3))) - reference).abs().max()
    )
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=150, help="training time of each model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test", type=int, default=500, help="test structures")
    parser.add_argument("--molecule", default="ethanol")
    parser.add_argument("--folder", help="of the revised MD17 files, for other molecules")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = [f"data.molecule={arguments.molecule}"]
    if arguments.folder:
        data.append(f"data.folder={arguments.folder}")
    results = {}
    print(" ".join([f"{'':16s}", *[f"{title:>13s}" for title in COLUMNS.values()]]))
    for name in arguments.only:
        results[name] = repeated(
            [*data, *VARIANTS[name]],
            seeds=arguments.seeds,
            seconds=arguments.seconds,
            threads=arguments.threads,
            test=arguments.test,
            more=symmetry_and_cost,
        )
        cells = [f"{results[name][key]:13.4g}" for key in COLUMNS]
        print(f"{name:16s} " + " ".join(cells), flush=True)
    record = f"accuracy_ablation_{arguments.molecule}"
    command = " ".join(["python -m benchmarks.accuracy_ablation", *sys.argv[1:]])
    path = write(record, command, results, seeds=arguments.seeds)
    figure, axes = plt.subplots(figsize=(6, 0.4 * len(results) + 1.2), layout="constrained")
    axes.barh(list(results), [line["force_mae_mev"] for line in results.values()], color="#3b6ea8")
    axes.set_xlabel(
        f"{arguments.molecule}: force MAE after {arguments.seconds:.0f} s of training, meV/Å"
    )
    axes.invert_yaxis()
    figure.savefig(RESULTS / f"{record}.png", dpi=150)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
