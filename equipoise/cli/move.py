"""Commands that move atoms: md, relax."""

import math
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import ase.io
import torch
import typer

from equipoise.cli.app import app, messages, results, say
from equipoise.cli.arguments import (
    DEFAULT_MODEL,
    Device,
    DeviceOption,
    ModelArgument,
    PrecisionOption,
    StructureArgument,
    ThreadsOption,
    device_of,
    dtype_of,
    model_file,
    one_process,
    read_structure,
    run_folder,
)
from equipoise.deq import Joint
from equipoise.engines.ensembles import ENSEMBLES
from equipoise.engines.evaluator import CalculatorStatistics
from equipoise.engines.md import run_md
from equipoise.engines.relax import relax as relax_structure
from equipoise.engines.watchdog import Watchdog
from equipoise.potentials import Repulsion, load
from equipoise.report.terminal import md_table

Ensemble = StrEnum("Ensemble", {name.replace("-", "_"): name for name in ENSEMBLES})
# Femtoseconds in each unit of time that --duration understands.
FEMTOSECONDS = {"fs": 1.0, "ps": 1e3, "ns": 1e6}


class Optimiser(StrEnum):
    FIRE = "FIRE"
    BFGS = "BFGS"
    LBFGS = "LBFGS"


@app.command()
def md(
    model: ModelArgument = DEFAULT_MODEL,
    structure: StructureArgument = None,
    ensemble: Annotated[
        Ensemble,
        typer.Option(
            help="nve: energy is conserved. langevin, bussi, nose-hoover: a thermostat keeps the temperature. npt: thermostat "
            "and barostat; the cell keeps its shape."
        ),
    ] = Ensemble.nve,
    timestep: Annotated[float, typer.Option(help="fs; 0.5 with hydrogen, up to 2 without.")] = 0.5,
    temperature: Annotated[
        float, typer.Option(help="K; of the initial velocities, and of the thermostat.")
    ] = 300.0,
    friction: Annotated[float, typer.Option(help="1/ps; langevin only.")] = 10.0,
    thermostat: Annotated[
        float, typer.Option(help="fs; time constant of the other thermostats.")
    ] = 100.0,
    pressure: Annotated[float, typer.Option(help="bar; npt only.")] = 1.0,
    barostat: Annotated[float, typer.Option(help="fs; time constant of the barostat.")] = 1000.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Length in steps, from the very beginning.")
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(
            help="Length as a time instead, such as 500fs, 10ps or 1ns; without either: 1ps."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; the simulation is its subfolder md. Default: the run folder of the "
            "model; for a model outside one, runs/NAME-md."
        ),
    ] = None,
    keep_velocities: Annotated[
        bool, typer.Option("--keep-velocities", help="Start with the velocities in the file.")
    ] = False,
    reuse: Annotated[
        bool,
        typer.Option(
            "--reuse/--no-reuse", help="Start each solve from the fixed points of the last steps."
        ),
    ] = True,
    passes: Annotated[
        str,
        typer.Option(
            metavar="INTEGER|auto|solve",
            help="Joint passes of state and adjoint per step, from a guess that is reversible in time. auto: 2, or as "
            "many as the contraction of the model asks for. solve: every step to the tolerance of the model.",
        ),
    ] = "auto",
    secants: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With a number of --passes: differences of earlier passes that accelerate the next. Smaller residuals, "
            "and a drift: such steps are not reversible in time.",
            show_default="0; with --until 8",
        ),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(
            help="With --passes: fewer of them where that is enough, the last one pass after both residuals were so small."
        ),
    ] = None,
    cold_sample: Annotated[
        int, typer.Option(min=0, help="On so many frames also count the passes without reuse.")
    ] = 20,
    every: Annotated[int, typer.Option(min=1, help="Steps between frames of the trajectory.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the velocities and the thermostat.")] = 0,
    max_temperature: Annotated[
        float | None,
        typer.Option(
            help="K; a hotter simulation is stopped. Default: ten times the temperature, at least "
            "3000."
        ),
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(
            help="Å; a simulation is stopped when the nearest neighbour of any atom is so far. "
            "Default: the cutoff of the model; inf for gases."
        ),
    ] = None,
    max_stretch: Annotated[
        float | None,
        typer.Option(
            help="A simulation is stopped when a bond of the start is longer than so many sums of covalent radii. Default: 2, "
            "for periodic structures inf; inf where bonds may break."
        ),
    ] = None,
    repulsion: Annotated[
        float | None,
        typer.Option(
            help="Add the repulsion of nuclei nearer than this many sums of their covalent radii (ZBL); 0.7 is short of every "
            "bond. Keeps atoms apart that a hot simulation drives where nothing was trained."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Overwrite the simulation in the folder.")
    ] = False,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the potential first: some minutes, then up to twice as fast. For long "
            "simulations.",
        ),
    ] = False,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Simulate molecular dynamics, reusing fixed points from step to step.

    A simulation that was stopped goes on when it is started again with the same command; more
    steps prolong it. Writes log.csv, trajectory.extxyz and summary.json.

    Example: [dim]equipoise md runs/mine start.xyz --ensemble langevin --temperature 350
    --duration 10ps[/]
    """
    one_process("md")
    torch.set_num_threads(threads)
    if steps is not None and duration is not None:
        raise ValueError(f"give --steps or --duration, not both; received {steps} and {duration}")
    if steps is None:
        steps = _steps("1ps" if duration is None else duration, timestep)
    potential = load(
        model_file(model),
        device=device_of(device),
        dtype=dtype_of(precision),
        repulsion=None if repulsion is None else Repulsion(repulsion),
    )
    atoms = read_structure(structure, potential.cutoff)
    if keep_velocities and not atoms.has("momenta"):
        raise ValueError(
            f"--keep-velocities needs a structure with velocities, received {structure or 'none'}; leave it out to draw them"
        )
    result = run_md(
        atoms,
        potential,
        steps=steps,
        folder=run_folder(model, folder) / "md",
        ensemble=ensemble.value,
        timestep_fs=timestep,
        temperature_k=temperature,
        friction_per_ps=friction,
        thermostat_fs=thermostat,
        pressure_bar=pressure,
        barostat_fs=barostat,
        velocities="keep" if keep_velocities else "thermal",
        seed=seed,
        trajectory_every=every,
        warm_start=reuse,
        joint=_joint(passes, secants, until),
        cold_sample=cold_sample,
        watchdog=Watchdog(
            max_temperature_k=max_temperature, max_gap=max_gap, max_stretch=max_stretch
        ),
        compile=compile,
        resume=not fresh,
        console=messages,
    )
    results.print(md_table(result.summary))
    say(f"written: {result.folder}\nNext:  equipoise report {result.folder.parent}")


@app.command()
def relax(
    model: ModelArgument = DEFAULT_MODEL,
    structure: StructureArgument = None,
    fmax: Annotated[float, typer.Option(help="eV/Å; done when no force is larger.")] = 0.01,
    steps: Annotated[int, typer.Option(min=0, help="At most so many steps.")] = 500,
    optimiser: Annotated[
        Optimiser, typer.Option(help="FIRE forgives rough starts; BFGS is quicker near a minimum.")
    ] = Optimiser.FIRE,
    cell: Annotated[bool, typer.Option("--cell", help="Relax the periodic cell as well.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Run folder; the relaxation is its subfolder relax.")
    ] = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Relax a structure to the nearest minimum of the energy.

    Writes relaxed.extxyz and trajectory.extxyz. Exit code 1 if it has not converged.
    """
    one_process("relax")
    torch.set_num_threads(threads)
    potential = load(model_file(model), device=device_of(device), dtype=dtype_of(precision))
    target = run_folder(model, folder) / "relax"
    with messages.status(f"relaxing to {fmax} eV/Å"):
        result = relax_structure(
            read_structure(structure, potential.cutoff),
            potential,
            fmax=fmax,
            steps=steps,
            optimiser=optimiser.value,
            cell=cell,
            trajectory=target / "trajectory.extxyz",
        )
    ase.io.write(target / "relaxed.extxyz", result.atoms)
    results.print(f"{result.message}; energy {result.energy:.6f} eV", highlight=False)
    say(f"{_passes_per_call(result.statistics):.1f} passes per step\nwritten: {target}")
    if not result.converged:
        raise typer.Exit(1)


def _passes_per_call(statistics: CalculatorStatistics) -> float:
    return (statistics.passes + statistics.adjoint_passes) / max(statistics.calls, 1)


def _joint(passes: str, secants: int | None, until: float | None) -> Joint | str | None:
    if passes in ("auto", "solve"):
        for option, value in (("--until", until), ("--secants", secants)):
            if value is not None:
                raise ValueError(
                    f"{option} goes with a number of --passes; received {option} {value:g} and --passes {passes}"
                )
        return None if passes == "solve" else passes
    if not passes.isdecimal() or int(passes) < 1:
        raise ValueError(
            f"--passes must be an integer, at least 1, or auto, or solve, received {passes!r}"
        )
    if secants is None:
        secants = 0 if until is None else 8
    return Joint(passes=int(passes), recycled=secants, tolerance=until)


def _steps(duration: str, timestep: float) -> int:
    if not timestep > 0:
        raise ValueError(f"the timestep must be larger than 0 fs, received {timestep:g}")
    found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*(fs|ps|ns)\s*", duration)
    try:
        steps = float(found[1]) * FEMTOSECONDS[found[2]] / timestep
    except (TypeError, ValueError):
        raise ValueError(
            f"--duration must be a number with its unit, such as 500fs, 10ps or 1ns, received {duration!r}"
        ) from None
    if not math.isfinite(steps):
        raise ValueError(f"--duration must be finite, received {duration!r}")
    return round(steps)
