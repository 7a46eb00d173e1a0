"""Peak memory of one training step against depth: explicit stacks beside the equilibrium with each of its gradients.

    python -m benchmarks.memory [--only stacked implicit] [--depths 1 2 4 8 16] [--device cuda]

One step is forward pass, conservative forces, a loss on energies and forces, its gradient (so a derivative of derivatives) and
an update by AdamW, for a batch of eight aspirin molecules and the network of the recipe rmd17-ethanol. Depth is, for

  stacked              the number of layers, each with weights of its own (pre-norm, as explicit stacks are used),
  implicit             passes of every solve: of the state, of its adjoint, and of the two problems behind the gradient of the loss,
  implicit + penalty   the same in a step in which the Jacobian penalty is computed as well (a quarter of the steps of that recipe),
  phantom, 1 or 5      passes of the solve of the state, whose last one or five steps are differentiated,
  unrolled             passes differentiated one after the other: back-propagation through time.

Solvers have tolerance 0, so that they take all passes. Every point is a process of its own, which takes a tiny step first to
load its libraries. "resident" is the highest resident memory beyond that before the network was made: weights, moments and all
that an allocator holds on to; "live" the highest number of bytes in tensors made by a step, whatever the allocator. On a GPU,
"allocated" is torch.cuda.max_memory_allocated beyond that before the network was made.
"""

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import matplotlib
import torch

from benchmarks.block_speed import STRUCTURES, peak_memory
from benchmarks.live import Live
from benchmarks.record import RESULTS, write
from equipoise.graph import Graph, batch
from equipoise.potentials import Potential, Prediction, build
from equipoise.train import Processes, Recipe, TrainingSection, load_recipe, training_statistics
from equipoise.train.optimiser import Optimiser, build_optimiser
from equipoise.train.reuse import FixedPoints
from equipoise.train.step import Draw, batch_loss

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

MOLECULES = 8
SOLVERS = ("training_solver", "training_adjoint", "training_gradient")


def solves(passes: int) -> list[str]:
    """Every solve of a training step takes so many passes."""
    return [
        f"potential.{solver}.{key}"
        for solver in SOLVERS
        for key in ("tolerance=0.0", f"max_passes={passes}")
    ]


LINES: dict[str, Callable[[int], list[str]]] = {
    "stacked": lambda depth: [
        "potential.kind=stacked",
        "potential.backbone.norm=pre",
        f"potential.backbone.layers={depth}",
    ],
    "implicit": solves,
    "implicit + penalty": solves,
    "phantom, 1": lambda depth: [*solves(depth), "potential.gradient={name: phantom, steps: 1}"],
    "phantom, 5": lambda depth: [*solves(depth), "potential.gradient={name: phantom, steps: 5}"],
    "unrolled": lambda depth: [f"potential.gradient={{name: unrolled, passes: {depth}}}"],
}
# Smallest network that has been through all the code.
TINY = [
    f"potential.backbone.{key}"
    for key in ("channels=4", "hidden=4", "heads=1", "ffn=4", "radial_hidden=4", "lmax=1", "mmax=1")
]


def molecules(count: int, *, cutoff: float, seed: int) -> list[Graph]:
    """Aspirin with its atoms moved about by 0.05 Å, labelled with random energies and forces."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for i in range(count):
        atoms = ase.io.read(STRUCTURES / "aspirin.xyz")
        atoms.rattle(0.05, seed=seed + i)
        graph = Graph.from_ase(atoms, cutoff=cutoff)
        energy = torch.randn(1, generator=generator, dtype=torch.float64)
        forces = torch.randn(len(atoms), 3, generator=generator, dtype=torch.float64)
        graphs.append(graph.replace(energy=energy, forces=forces))
    return graphs


def training_step(
    potential: Potential,
    optimiser: Optimiser,
    graph: Graph,
    settings: TrainingSection,
    drawn: Draw,
) -> Prediction:
    """One step of the training loop, without its bookkeeping; returns what was predicted in it."""
    optimiser.zero_grad(set_to_none=True)
    found = batch_loss(
        potential,
        graph,
        range(graph.n_structures),
        settings,
        progress=0.5,
        drawn=drawn,
        points=FixedPoints(0, from_zero=True),
        processes=Processes(),
    )
    found.value.backward()
    torch.nn.utils.clip_grad_norm_(potential.parameters(), settings.clip_norm)
    optimiser.step()
    return found.prediction


def learner(recipe: Recipe, graphs: list[Graph], device: str) -> tuple[Potential, Callable]:
    """What learns, and its step on the first so many structures."""
    potential = build(recipe.potential, training_statistics(graphs), seed=0).to(device).train()
    optimiser = build_optimiser(potential, recipe.training)

    def step(count: int, drawn: Draw) -> None:
        graph = batch(graphs[:count]).to(device)
        training_step(potential, optimiser, graph, recipe.training, drawn)

    return potential, step


def resident() -> int:
    """Bytes of this process in memory now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def measure(line: str, depth: int, *, device: str, seed: int) -> dict[str, float]:
    """MiB at the peak of a step; meant for a fresh process, whose peak it reads."""
    torch.set_num_threads(1)
    drawn = Draw(penalise=line.endswith("penalty"), passes=None)
    recipe = load_recipe("rmd17-ethanol", LINES[line](depth))
    graphs = molecules(MOLECULES, cutoff=recipe.potential.backbone.cutoff, seed=seed)
    tiny = load_recipe("rmd17-ethanol", [*LINES[line](1), *TINY])
    learner(tiny, graphs, device)[1](1, drawn)
    gc.collect()
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else resident()
    potential, step = learner(recipe, graphs, device)
    step(1, drawn)  # makes the moments of the optimiser, which the next has beside all else
    step(MOLECULES, drawn)
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory()
    found = {"allocated" if on_gpu else "resident": (peak - before) / 2**20}
    with Live() as live:
        step(MOLECULES, drawn)
    return found | {
        "live": live.peak / 2**20,
        "parameters": sum(p.numel() for p in potential.parameters()),
        "edges": sum(graph.n_edges for graph in graphs),
    }


def in_own_process(line: str, depth: int, *, device: str, seed: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--one", line, str(depth)]
    command += ["--device", device, "--seed", str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def claims(points: dict[str, dict[int, dict[str, float]]]) -> dict[str, Any]:
    """How flat the lines of an equilibrium are, and how much less they need than eight layers."""
    found: dict[str, Any] = {}
    for what in ("resident", "allocated", "live"):
        heights = {
            name: {depth: point[what] for depth, point in line.items() if what in point}
            for name, line in points.items()
        }
        heights = {name: line for name, line in heights.items() if line}
        if not heights:
            continue
        layers = heights.get("stacked", {}).get(8)
        found[what] = {
            name: {
                "most_over_least": max(line.values()) / min(line.values()),
                "less_than_8_layers": None if layers is None else 1 - max(line.values()) / layers,
            }
            for name, line in heights.items()
            if name not in ("stacked", "unrolled")
        }
    return found


def plot(points: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    kinds = [
        k for k in ("resident", "allocated", "live") if k in next(iter(points["stacked"].values()))
    ]
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.8 * len(kinds), 4), layout="constrained")
    titles = {
        "resident": "resident memory",
        "allocated": "allocated on the GPU",
        "live": "bytes in live tensors",
    }
    for axis, kind in zip(axes, kinds, strict=True):
        for name, line in points.items():
            style = "s--" if name == "stacked" else "x-" if name == "unrolled" else "o-"
            depths = sorted(line)
            heights = [line[depth][kind] for depth in depths]
            axis.loglog(depths, heights, style, label=name, base=2)
        axis.set_xticks(sorted({d for line in points.values() for d in line}))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.yaxis.set_major_formatter("{x:.0f}")
        axis.set(xlabel="layers, or passes", ylabel="MiB", title=f"a training step: {titles[kind]}")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(LINES), default=list(LINES))
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", nargs=2, metavar=("LINE", "DEPTH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    where = {"device": given.device, "seed": given.seed}
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]), **where)))
        return
    torch.set_num_threads(1)
    kind = "allocated" if given.device == "cuda" else "resident"
    points: dict[str, dict[int, dict[str, float]]] = {}
    for name in given.only:
        for depth in given.depths:
            point = in_own_process(name, depth, **where)
            points.setdefault(name, {})[depth] = point
            print(
                f"{name:18s} {depth:3d}  {kind} {point[kind]:7.0f} MiB  live {point['live']:7.0f} MiB",
                flush=True,
            )
    found = claims(points)
    print(f"\n| {kind} MiB (live) | " + " | ".join(map(str, given.depths)) + " |")
    print("|" + "---|" * (1 + len(given.depths)))
    for name, line in points.items():
        cells = [
            f"{line[d][kind]:.0f} ({line[d]['live']:.0f})" if d in line else ""
            for d in given.depths
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for what, lines in found.items():
        for name, claim in lines.items():
            less = claim["less_than_8_layers"]
            text = "" if less is None else f", {100 * less:.0f} % less than 8 layers"
            print(f"{what}: {name}: most / least {claim['most_over_least']:.2f}{text}")
    if set(given.only) != set(LINES):
        print("not all lines: nothing written")
        return
    name = "memory" if given.device == "cpu" else "memory_cuda"
    results = {"structures": MOLECULES, "atoms": 21, "points": points, "claims": found}
    command = " ".join(["python -m benchmarks.memory", *sys.argv[1:]])
    path = write(name, command, results, seeds=[given.seed])
    plot(points, RESULTS / f"{name}.png")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
