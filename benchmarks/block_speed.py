"""What one pass through the block costs, and how near that is to what the machine can do.

    python -m benchmarks.block_speed [--threads 1 2] [--large]

For each size: one pass (forward), one vector-Jacobian product, and energy with forces of an untrained model, of
  smooth      equiformer_v2, the default (mirror-symmetric messages),
  so3         the same with messages that tell mirror images apart,
  compiled    smooth, through torch.compile, for single molecules (compiling takes minutes),
  original    equiformer_v2_original at the size of the MD17 models of the DEQ research code ("halftiny": 14 x 14 grid).
The floor is the time that the products of matrices alone would take at the rate which this machine reaches in a product of the
same shapes, measured in between. Times are medians of interleaved repetitions. --large adds 5,000 and 50,000 atoms: one pass
and one product, with the peak memory of a process of their own.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import ase.build
import ase.io
import matplotlib
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import RESULTS, write
from equipoise.backbones import EquiformerV2Config
from equipoise.backbones.equiformer_v2_original import EquiformerV2Original, presets
from equipoise.graph import Graph, batch
from equipoise.potentials import PotentialConfig, Statistics, build

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

STRUCTURES = Path(__file__).parent / "structures"
ELEMENTS = (1, 6, 8)
# One layer of the original implementation: (time of 8 layers - time of 4) / 4, one thread, forward without gradients, on
# a machine of this kind (Xeon with AVX-512, two cores); milliseconds.
PUBLISHED_PASS_MS = {"aspirin": (289 - 152) / 4, "60 atoms": (916 - 572) / 4}


def aspirin() -> ase.Atoms:
    return ase.io.read(STRUCTURES / "aspirin.xyz")


def ethanols(molecules: int) -> ase.Atoms:
    """Molecules at the density of the liquid, on a grid, turned at random."""
    generator, side = np.random.default_rng(0), int(np.ceil(molecules ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    parts = []
    for place in grid[:molecules] * 4.59:  # Å: 96.9 Å³ per molecule
        molecule = ase.build.molecule("CH3CH2OH")
        molecule.euler_rotate(*generator.uniform(0, 360, 3))
        molecule.positions += place - molecule.positions.mean(0)
        parts.append(molecule)
    return ase.Atoms(
        np.concatenate([m.numbers for m in parts]),
        np.concatenate([m.positions for m in parts]),
    )


SIZES = {
    "ethanol": lambda: [ase.build.molecule("CH3CH2OH")],
    "8 ethanol": lambda: [ase.build.molecule("CH3CH2OH")] * 8,
    "aspirin": lambda: [aspirin()],
    "8 aspirin": lambda: [aspirin()] * 8,
    "99 atoms": lambda: [ethanols(11)],
    "999 atoms": lambda: [ethanols(111)],
}
COMPILED = ("ethanol", "aspirin")
LARGE = {"4995 atoms": 555, "49995 atoms": 5555}


def graph_of(structures: list[ase.Atoms]) -> Graph:
    return batch([Graph.from_ase(atoms, cutoff=5.0) for atoms in structures])


def models() -> dict[str, object]:
    backbone = EquiformerV2Config(channels=64, lmax=3, mmax=2, hidden=64, ffn=64)
    statistics = Statistics(ELEMENTS, (0.0, 0.0, 0.0), 1.0, 17.0, 21.0)
    made = {
        name: build(PotentialConfig(backbone=config), statistics, seed=0).eval()
        for name, config in (("smooth", backbone), ("so3", replace(backbone, reflection=False)))
    }
    made["original"] = EquiformerV2Original(replace(presets["halftiny_l3"], layers=1)).eval()
    return made


def one_pass(model, graph: Graph):
    """(f without gradients, its vector-Jacobian product) as functions of nothing."""
    vectors = graph.edge_vectors()
    with torch.no_grad():
        if isinstance(model, EquiformerV2Original):
            context = model.encode(graph, vectors)
            source = model.start(context)
            cell = lambda z: model.update(z + source, context)  # noqa: E731
        else:
            context = model.backbone.encode(graph, vectors)
            source = model.injection.source(model.backbone.start(context))
            module = (model.compiled or model._eager).cell
            cell = lambda z: module(z, source, context)  # noqa: E731
        z = torch.randn_like(source)

    def forward():
        with torch.no_grad():
            return cell(z)

    leaf = z.clone().requires_grad_()
    model.requires_grad_(False)
    mapped = cell(leaf)
    pull = torch.randn_like(mapped)
    return forward, lambda: torch.autograd.grad(mapped, leaf, pull, retain_graph=True)


def matmul_rate() -> float:
    """GFLOP/s of a product like those of the messages."""
    a, b = torch.randn(1024, 256), torch.randn(256, 384)
    began = time.perf_counter()
    for _ in range(10):
        a @ b
    return 10 * 2 * 1024 * 256 * 384 / (time.perf_counter() - began) / 1e9


def timed(function) -> float:
    began = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - began)


def measure(threads: int, repetitions: int) -> dict[str, dict]:
    torch.set_num_threads(threads)
    lines, made = {}, models()
    for size, structures in SIZES.items():
        graph = graph_of(structures())
        count = max(3, repetitions if graph.n_atoms < 300 else repetitions // 6)
        functions, flops = {}, {}
        made.pop("compiled", None)  # for one size
        if size in COMPILED:
            made["compiled"] = model = models()["smooth"].requires_grad_(False)
            model.compile(graph)
        for name, model in made.items():
            forward, product = one_pass(model, graph)
            if name == "compiled":  # the same operations
                forward()
                flops[name] = flops["smooth"]
            else:
                with FlopCounterMode(display=False) as counter:
                    forward()
                flops[name] = counter.get_total_flops()
            functions[name, "pass"], functions[name, "vjp"] = forward, product
            if name != "original":
                functions[name, "energy and forces"] = partial(model, graph, unconverged="accept")
        times = {key: [] for key in functions}
        rates = []
        for _ in range(count):
            rates.append(matmul_rate())
            for key, function in functions.items():
                times[key].append(timed(function))
        rate = median(rates)
        for name in made:
            line = {
                what: median(times[name, what])
                for what in ("pass", "vjp", "energy and forces")
                if (name, what) in times
            }
            line = {f"{what.replace(' ', '_')}_ms": value for what, value in line.items()}
            line |= {
                "atoms": graph.n_atoms,
                "edges": graph.n_edges,
                "threads": threads,
                "megaflop_per_pass": flops[name] / 1e6,
                "machine_gflop_per_s": rate,
                "floor_ms": flops[name] / rate / 1e6,
            }
            line["share_of_matmul_rate"] = line["floor_ms"] / line["pass_ms"]
            if name != "original":
                equilibrium = made[name](graph, unconverged="accept").equilibrium
                line["passes"] = int(equilibrium.passes.max())
                line["adjoint_passes"] = int(equilibrium.adjoint_passes.max())
                line["pass_speed_up_over_our_original"] = (
                    median(times["original", "pass"]) / line["pass_ms"]
                )
                if threads == 1 and size in PUBLISHED_PASS_MS:
                    line["pass_speed_up_over_published"] = PUBLISHED_PASS_MS[size] / line["pass_ms"]
            lines[f"{name}, {size}, {threads} thread{'s' * (threads > 1)}"] = line
            print(
                f"{threads} thr {size:10s} {name:8s} pass {line['pass_ms']:8.2f} ms  vjp {line['vjp_ms']:8.2f} ms  "
                f"floor {line['floor_ms']:7.2f} ms ({100 * line['share_of_matmul_rate']:3.0f} %)",
                flush=True,
            )
    return lines


def large(molecules: int) -> dict:
    """One pass and one product of a big system; meant for a fresh process, whose peak memory it reports."""
    torch.set_num_threads(1)
    graph = graph_of([ethanols(molecules)])
    before = peak_memory()
    forward, product = one_pass(models()["smooth"], graph)
    line = {"atoms": graph.n_atoms, "edges": graph.n_edges, "threads": 1}
    line |= {"pass_ms": timed(forward), "vjp_ms": timed(product)}
    line["bytes_per_atom"] = (peak_memory() - before) / graph.n_atoms
    return line


def peak_memory() -> int:
    """Bytes. Not getrusage, whose peak a process inherits from the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def plot(lines: dict[str, dict]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    single = [line | {"name": name.split(",")[0]} for name, line in lines.items()]
    for name, marker in (("original", "s"), ("so3", "^"), ("smooth", "o"), ("compiled", "v")):
        points = sorted(
            (line["edges"], line["pass_ms"])
            for line in single
            if line["name"] == name and line["threads"] == 1
        )
        axes.loglog(*zip(*points, strict=True), marker=marker, label=name)
    floor = sorted(
        (line["edges"], line["floor_ms"])
        for line in single
        if line["name"] == "smooth" and line["threads"] == 1 and "floor_ms" in line
    )
    axes.loglog(*zip(*floor, strict=True), "k:", label="floor of smooth: its matrix products")
    axes.set_xlabel("edges")
    axes.set_ylabel("one pass, ms")
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "block_speed.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repetitions", type=int, default=31)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--one-large", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_large:
        print(json.dumps(large(arguments.one_large)))
        return
    torch.manual_seed(0)
    lines: dict[str, dict] = {}
    for threads in arguments.threads:
        lines |= measure(threads, arguments.repetitions)
    if arguments.large:
        for name, molecules in LARGE.items():
            command = [
                sys.executable,
                "-m",
                "benchmarks.block_speed",
                "--one-large",
                str(molecules),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            lines[f"smooth, {name}, 1 thread"] = line = json.loads(done.stdout)
            print(name, line, flush=True)
    plot(lines)
    path = write(
        "block_speed",
        " ".join(["python -m benchmarks.block_speed", *sys.argv[1:]]),
        lines,
        seeds=[0],
    )
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
