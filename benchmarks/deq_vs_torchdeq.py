"""equipoise.deq beside TorchDEQ: evaluations to a tolerance, time of a pass beyond the map itself, memory in training.

    python -m benchmarks.deq_vs_torchdeq [--quick]

Passes: calls of f are counted by a wrapper, and the residual ‖f(z) - z‖ / ‖f(z)‖ of each structure is measured there too, the
same for both. "spent" is what a solver used with its own stopping test at the tolerance (TorchDEQ: stop mode "rel"; a sample is
a structure, or an atom where it says so), "needed" the calls until the common residual of every structure had met it: what the
method would use with a perfect test; "-" where a solve ended before. Ours is the stricter test, of the worst row. Products with
the Jacobian count as calls. Overhead: processor time of a solve of many passes less that of as many calls of f, medians of runs
that take turns. Memory: highest number of bytes in live tensors during one forward and backward step, above those before it;
both solves take the number of passes given.
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import mean, median
from typing import Any

import matplotlib
import torch
from torch import Tensor, nn
from torchdeq import get_deq
from torchdeq.solver import get_solver

from benchmarks.deq_cases import Case, ethanol, graph_network, tanh_network
from benchmarks.live import Live
from benchmarks.record import RESULTS, write
from equipoise.deq import (
    DEQ,
    Anderson,
    Broyden,
    Implicit,
    Inner,
    Newton,
    Phantom,
    Picard,
    Unrolled,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

OURS = {"Picard": Picard, "Anderson": Anderson, "Broyden": Broyden, "Newton": Newton}
PAIRS = {"Picard": "fixed_point_iter", "Anderson": "anderson", "Broyden": "broyden"}
CASES = {
    "tanh network, ρ 0.85": lambda seed: tanh_network(0.85, seed),
    "graph network, ρ 0.6": lambda seed: graph_network(0.6, seed),
    "graph network, ρ 0.85": lambda seed: graph_network(0.85, seed),
    "ethanol cell": ethanol,
}
STATES = {
    "9 atoms": ((9, 16, 64), 1),
    "21 atoms": ((21, 16, 64), 1),
    "8 x 9 atoms": ((72, 16, 64), 8),
    "1000 atoms": ((1000, 16, 64), 1),
}
LIMIT = 300  # evaluations after which a solve has failed


class Counted:
    """f(z), and after each call the best residual that every structure has had: both libraries return that iterate."""

    def __init__(self, f: Callable[[Tensor], Tensor], structures: int):
        self.f, self.structures = f, structures
        self.best, self.worst = torch.full((structures,), torch.inf).double(), []

    def __call__(self, z: Tensor) -> Tensor:
        mapped = self.f(z)
        change = (mapped - z).reshape(self.structures, -1).norm(dim=1)
        size = mapped.reshape(self.structures, -1).norm(dim=1)
        self.best = torch.fmin(self.best, change / size)
        self.worst.append(self.best.max().item())
        return mapped


@torch.no_grad()
def passes(case: Case, tolerances: list[float]) -> dict[str, dict]:
    """Evaluations of f, by start ("cold", "warm") and solver; a list over tolerances each."""
    count, shape = case.structures, case.start.shape
    runs = {name: _ours(solver, case.inner) for name, solver in OURS.items()}
    for name in PAIRS.values():
        runs[f"torchdeq {name}"] = _theirs(name, (count, case.rows, *shape[1:]))
        if case.rows > 1:
            runs[f"torchdeq {name}, atoms"] = _theirs(name, shape)
    found: dict[str, dict] = {}
    for heat, start in (("cold", case.start), ("warm", case.solved())):
        for label, run in runs.items():
            line = {"spent": [], "needed": [], "residual": []}
            for tolerance in tolerances:
                f = Counted(lambda z: case.f(z, case.sources[1]), count)
                run(f, start, tolerance)
                met = [i for i, r in enumerate(f.worst, 1) if r <= tolerance]
                line["spent"].append(len(f.worst))
                line["needed"].append(met[0] if met else None)
                line["residual"].append(f.worst[-1])
            found.setdefault(heat, {})[label] = line
    return found


def _ours(solver, inner: Inner) -> Callable:
    return lambda f, z, tolerance: solver(tolerance=tolerance, max_passes=LIMIT).solve(f, z, inner)


def _theirs(name: str, shape: tuple[int, ...]) -> Callable:
    def run(f, z, tolerance):
        seen = lambda x: f(x.view(z.shape)).view(shape)  # noqa: E731
        told = {"max_iter": LIMIT, "tol": tolerance, "stop_mode": "rel"}
        get_solver(name)(seen, z.view(shape), **told)

    return run


def averaged(several: list[dict]) -> dict[str, dict]:
    """Mean evaluations over the seeds, None where one was not solved, and the worst of their final residuals."""
    merged: dict[str, dict] = {}
    for heat, labels in several[0].items():
        for label in labels:
            lines = [one[heat][label] for one in several]
            merged.setdefault(heat, {})[label] = {
                key: [reduce(v) for v in zip(*(line[key] for line in lines), strict=True)]
                for key, reduce in (("spent", mean), ("needed", _mean), ("residual", max))
            }
    return merged


def _mean(counts: tuple[int | None, ...]) -> float | None:
    return None if None in counts else mean(counts)


@torch.no_grad()
def overhead(shape: tuple[int, ...], structures: int, repeats: int, calls: int = 30) -> dict:
    """Microseconds per pass beyond f(z) = b + r ∘ z with rates between -0.95 and 0.95, in float32."""
    generator = torch.Generator().manual_seed(0)
    rates = 1.9 * torch.rand(shape, generator=generator) - 0.95
    source, start = torch.randn(shape, generator=generator), torch.zeros(shape)
    rows = shape[0] // structures
    inner = Inner(torch.arange(structures).repeat_interleave(rows), structures)
    grouped = (structures, rows, *shape[1:])

    def repeat_f():
        z = start
        for _ in range(calls):
            z = torch.addcmul(source, z, rates)

    def theirs(name, shape):
        b, r, z = source.view(shape), rates.view(shape), start.view(shape)
        told = {"max_iter": calls, "tol": 0.0, "stop_mode": "rel"}
        return lambda: get_solver(name)(lambda z: torch.addcmul(b, z, r), z, **told)

    def ours(solver):
        return lambda: solver.solve(lambda z: torch.addcmul(source, z, rates), start, inner)

    runs = {"f": repeat_f}
    for mine, name in PAIRS.items():
        runs[mine] = ours(OURS[mine](tolerance=0.0, max_passes=calls))
        runs[f"torchdeq {name}"] = theirs(name, grouped)
        runs[f"torchdeq {name}, atoms"] = theirs(name, shape)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 2):
        for name, run in runs.items():
            before = time.process_time()
            run()
            if turn >= 2:
                times[name].append(time.process_time() - before)
    middle = {name: 1e6 * median(t) / calls for name, t in times.items()}
    f = middle.pop("f")
    beyond = {name: t - f for name, t in middle.items()}
    ratio = lambda tail: {a: beyond[f"torchdeq {b}{tail}"] / beyond[a] for a, b in PAIRS.items()}  # noqa: E731
    return {
        "f_us": f,
        "us_per_pass_beyond_f": beyond,
        "ratio": ratio(""),
        "ratio_atoms": ratio(", atoms"),
    }


@torch.no_grad()
def time_of_cell(repeats: int) -> float:
    """Microseconds of one pass of the ethanol cell in float32: what the overhead stands beside."""
    case, times = ethanol(0, torch.float32), []
    for _ in range(repeats):
        before = time.process_time()
        case.f(case.start, case.sources[0])
        times.append(time.process_time() - before)
    return 1e6 * median(times)


class Cell(nn.Module):
    """tanh(W₂ silu(W₁ z) + x)."""

    def __init__(self, size: int):
        super().__init__()
        self.inward, self.outward = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.outward(nn.functional.silu(self.inward(z))) + x)


def memory(depths: list[int], rows: int = 256, size: int = 64) -> dict[str, list[float]]:
    """MiB of a training step, by number of passes; the state takes 1/16 MiB, f keeps about 5 states for its derivative."""
    torch.manual_seed(0)
    cell, x = Cell(size), torch.randn(rows, size)
    start = torch.zeros_like(x)
    found: dict[str, list[float]] = {}
    for depth in depths:
        told = {"tolerance": 0.0, "max_passes": depth}
        theirs = {"f_max_iter": depth, "b_max_iter": depth, "f_tol": 0.0, "b_tol": 0.0}
        layers: dict[str, nn.Module] = {"unrolled": DEQ(cell, gradient=Unrolled(passes=depth))}
        for mine in ("Anderson", "Broyden"):
            solver, name = OURS[mine](**told), PAIRS[mine]
            layers[f"implicit, {mine}"] = DEQ(cell, solver=solver, gradient=Implicit(solver=solver))
            layers[f"torchdeq ift, {name}"] = get_deq(
                f_solver=name, b_solver=name, ift=True, **theirs
            )
        layers["phantom 5"] = DEQ(cell, solver=Anderson(**told), gradient=Phantom(steps=5))
        layers["torchdeq phantom 5"] = get_deq(f_solver="anderson", grad=5, **theirs)
        for label, layer in layers.items():
            for _ in range(2):  # the first time makes the gradients of the parameters
                with Live() as live:
                    if label.startswith("torchdeq"):
                        value = layer(lambda z: cell(z, x), start)[0][-1]
                    else:
                        value = layer(start, x).value
                    value.square().sum().backward()
                    del value
            found.setdefault(label, []).append(live.peak / 2**20)
    return found


def draw(results: dict[str, Any]) -> None:
    """Passes of a slow and of a quick map, overhead, memory."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for axis, name in zip(axes[0], ("graph network, ρ 0.85", "ethanol cell"), strict=True):
        lines = results["passes"][name]["evaluations"]
        for heat, style in (("cold", "-"), ("warm", "--")):
            for i, (mine, other) in enumerate(PAIRS.items()):
                for label, mark in ((mine, "o"), (f"torchdeq {other}", "x")):
                    axis.loglog(
                        results["tolerances"],
                        lines[heat][label]["spent"],
                        f"{mark}{style}",
                        color=f"C{i}",
                        alpha=1.0 if mark == "o" else 0.5,
                        label=label if heat == "cold" else None,
                    )
        rho = results["passes"][name]["rho"]
        axis.set(xlabel="tolerance", ylabel="evaluations of f", ylim=(1, 200))
        axis.set_title(f"{name.split(',')[0]}, ρ = {rho:.2f}; dashed: warm start")
        axis.invert_xaxis()
    cases, axis = list(results["overhead"]), axes[1, 0]
    for i, (mine, other) in enumerate(PAIRS.items()):
        for shift, label, alpha in ((0, mine, 1.0), (0.13, f"torchdeq {other}", 0.5)):
            heights = [results["overhead"][c]["us_per_pass_beyond_f"][label] for c in cases]
            where = [k + 0.28 * (i - 1) + shift for k in range(len(cases))]
            axis.bar(where, heights, 0.13, color=f"C{i}", alpha=alpha, label=label)
    axis.axhline(results["ethanol_cell_us"], color="k", lw=0.8, label="a pass of the ethanol cell")
    axis.set(xticks=range(len(cases)), xticklabels=cases, yscale="log")
    axis.set(ylabel="µs per pass beyond f", title="overhead of the solver")
    for i, (label, heights) in enumerate(results["memory_mib"].items()):
        style = "x--" if label.startswith("torchdeq") else "o-"
        axes[1, 1].plot(results["depths"], heights, style, color=f"C{i}", label=label)
    axes[1, 1].set(xlabel="passes", ylabel="MiB", title="peak memory of a training step")
    for axis in axes.flat:
        axis.legend(fontsize=7)
    figure.savefig(RESULTS / "deq_vs_torchdeq.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of everything; writes nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    seeds = [0] if quick else list(range(5))
    tolerances = [10.0**-k for k in ((2, 4) if quick else range(2, 9))]
    results: dict[str, Any] = {
        "torchdeq": version("torchdeq"),
        "tolerances": tolerances,
        "depths": [10, 20] if quick else [10, 20, 40, 80],
        "passes": {},
        "overhead": {},
    }
    for name, build in CASES.items():
        cases = [build(seed) for seed in seeds]
        rho = mean(case.rho for case in cases)
        lines = averaged([passes(case, tolerances) for case in cases])
        results["passes"][name] = {"rho": rho, "evaluations": lines}
        print(f"\n{name}: ρ = {rho:.2f}, spent (needed) at", *(f"{t:.0e}" for t in tolerances))
        for heat, solvers in lines.items():
            for label, line in solvers.items():
                pairs = zip(line["spent"], line["needed"], strict=True)
                texts = (f"{s:5.1f} ({'-' if n is None else f'{n:.1f}':>5s})" for s, n in pairs)
                print(f"  {heat} {label:33s}", *texts)
    results["ethanol_cell_us"] = time_of_cell(5 if quick else 200)
    print(f"\none pass of the ethanol cell: {results['ethanol_cell_us']:.0f} µs")
    print("µs per pass beyond f, and times as much in torchdeq with structures, atoms as samples")
    for name, (shape, structures) in STATES.items():
        repeats = 1 if quick else max(12, min(200, 4000 // shape[0]))
        line = results["overhead"][name] = overhead(shape, structures, repeats)
        print(f"  {name:12s} f {line['f_us']:6.1f}", end="")
        for mine in PAIRS:
            ratios = f"x {line['ratio'][mine]:.1f}, x {line['ratio_atoms'][mine]:.1f}"
            print(f"  {mine} {line['us_per_pass_beyond_f'][mine]:.1f} ({ratios})", end="")
        print()
    results["memory_mib"] = memory(results["depths"])
    print(f"\nMiB at the peak of a training step of {results['depths']} passes")
    for label, line in results["memory_mib"].items():
        print(f"  {label:24s}", *(f"{m:7.2f}" for m in line))
    if not quick:
        command = " ".join(["python -m benchmarks.deq_vs_torchdeq", *sys.argv[1:]])
        path = write("deq_vs_torchdeq", command, results, seeds=seeds)
        draw(results)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
